"""Postgres and Valkey are killed and frozen: calls go on, writes are refused with a time to come back, all recovers."""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from tests.e2e.load import canary, until
from tests.e2e.plane import below, wait_until
from tests.services import own_postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.plane import Plane, Process
    from tests.services import Postgres

__all__ = ["own_postgres"]

RECOVERY_S = 60
BOUND_S = 15
"""No answer takes longer, whatever is away."""
AT_ONCE = 100
"""Requests for a frozen database at the same time."""
in_thread = trio.to_thread.run_sync


@pytest.fixture(scope="module")
def served(plane: Plane) -> Plane:
    """A control plane with its own Postgres and Valkey, and a server called `steady`."""
    plane.deploy("steady")
    return plane


@pytest.fixture(autouse=True)
def healthy_at_the_end(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test leaves the shared control plane healthy, without a restart of it."""
    yield
    if "served" in request.fixturenames:
        plane: Plane = request.getfixturevalue("served")
        wait_until(lambda: health(plane)["status"] == "healthy", RECOVERY_S, "healthy again")
        plane.assert_no_orphans()


def service(plane: Plane, program: str) -> Process:
    """The embedded service's first process."""
    found = [process for process in below(plane.pid) if process.command.startswith(program)]
    assert found, f"no {program} below {plane.pid}"
    return min(found, key=lambda process: (process.start_ticks, process.pid))


def health(plane: Plane) -> dict[str, Any]:
    document: dict[str, Any] = httpx.get(f"{plane.url}/health", timeout=BOUND_S).json()
    return document


def deploy_answer(plane: Plane, name: str) -> httpx.Response:
    body = {"name": name, "source_type": "mcp_config", "mcp_config": {"command": "cat"}}
    return plane.request("POST", "/api/v2/deploy?wait=0", json=body, timeout=BOUND_S)


def accepts_writes(plane: Plane, label: str) -> bool:
    answer = plane.request("PATCH", "/instances/steady", json={"labels": {"wrote": label}}, timeout=BOUND_S)
    assert answer.status_code in (200, 503), answer.text
    return answer.status_code == 200


def assert_refused(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
    assert int(answer.headers["retry-after"]) >= 1


# -- Postgres


async def test_calls_go_on_while_postgres_is_killed_and_comes_back_by_itself(
    served: Plane, figure: Callable[..., None]
) -> None:
    recovered_s = 0.0
    with trio.fail_after(180):
        async with canary(served, "steady") as bird:
            for number in range(3):
                killed_at = trio.current_time()
                os.kill(service(served, "postgres").pid, signal.SIGKILL)
                write = partial(accepts_writes, served, f"after-{number}")
                await in_thread(partial(wait_until, write, RECOVERY_S, "writes are accepted again"))
                recovered_s = max(recovered_s, trio.current_time() - killed_at)

    bird.assert_undisturbed()
    assert served.instance("steady")["labels"] == {"wrote": "after-2"}
    figure("writes accepted again after, at most", recovered_s, "s")
    figure("calls meanwhile, all answered", bird.answered)


async def test_a_postgres_that_stays_away_costs_writes_only(
    planes: Callable[..., Plane], own_postgres: Postgres, figure: Callable[..., None]
) -> None:
    plane = planes(DATABASE_URL=own_postgres.url("postgres"))
    plane.deploy("steady")
    plane.deploy("mortal")
    processes = len(below(plane.pid))
    own_postgres.kill()

    with trio.fail_after(180):
        async with canary(plane, "steady") as bird:
            began = trio.current_time()
            assert_refused(await in_thread(deploy_answer, plane, "refused"))
            figure("a deploy was refused after", trio.current_time() - began, "s")
            await until(lambda: health(plane)["services"]["postgres"] == "disconnected", RECOVERY_S, "health says so")
            figure("health says so after", trio.current_time() - began, "s")
            assert health(plane)["status"] == "degraded"
            for path in ("/instances/steady/stop", "/instances/steady/restart"):
                assert_refused(plane.request("POST", path, timeout=BOUND_S))
            assert_refused(plane.request("DELETE", "/instances/steady", timeout=BOUND_S))
            assert sorted(row["name"] for row in plane.instances()) == ["mortal", "steady"]
            assert len(below(plane.pid)) == processes
            assert plane.tool("mortal", "spam", lines=3, word="during-the-outage") == "spammed"
            plane.execute("mortal", "tools/call", {"name": "kill", "arguments": {}})
            await in_thread(plane.wait_status, "mortal", "running")
            assert plane.tool("mortal", "echo", text="a restart needs no database") == "a restart needs no database"

            own_postgres.start()
            back_at = trio.current_time()
            await until(lambda: health(plane)["status"] == "healthy", RECOVERY_S, "healthy again")
            figure("healthy again after", trio.current_time() - back_at, "s")

    bird.assert_undisturbed()
    query = {"q": "during-the-outage", "stream": "stderr"}
    wait_until(lambda: len(plane.get("/instances/mortal/logs", params=query)["logs"]) == 3, RECOVERY_S, "the log")
    assert plane.get("/stats")["control_plane"]["journal"]["rows"] < 100
    assert deploy_answer(plane, "refused").status_code == 202, "nothing of the refused one is left"
    plane.assert_no_orphans()


@pytest.fixture
def frozen_postgres(served: Plane) -> Iterator[Callable[[], None]]:
    """Every Postgres process stopped: a database that neither answers nor refuses. Gives what ends it."""
    processes = [process for process in below(served.pid) if process.command.startswith("postgres")]

    def thaw() -> None:
        for process in processes:
            if process.is_live:
                os.kill(process.pid, signal.SIGCONT)

    for process in processes:
        os.kill(process.pid, signal.SIGSTOP)
    yield thaw
    thaw()


async def test_a_frozen_postgres_hangs_nobody_however_many_ask(
    served: Plane, frozen_postgres: Callable[[], None], figure: Callable[..., None]
) -> None:
    answers: list[httpx.Response] = []

    async def write(http: httpx.AsyncClient, number: int) -> None:
        body = {"name": f"frozen{number}", "source_type": "mcp_config", "mcp_config": {"command": "cat"}}
        answers.append(await http.post("/api/v2/deploy?wait=0", json=body))

    with trio.fail_after(180):
        async with canary(served, "steady") as bird, served.aclient(limits=httpx.Limits(max_connections=None)) as http:
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                for number in range(AT_ONCE):
                    nursery.start_soon(write, http, number)
            took_s = trio.current_time() - began
            assert [row["name"] for row in served.instances()] == ["steady"]
            await until(lambda: health(served)["services"]["postgres"] == "disconnected", RECOVERY_S, "health says so")

            frozen_postgres()
            back_at = trio.current_time()
            await in_thread(partial(wait_until, partial(accepts_writes, served, "thawed"), RECOVERY_S, "writes again"))
            recovered_s = trio.current_time() - back_at

    for answer in answers:
        assert_refused(answer)
    assert took_s < 12
    bird.assert_undisturbed()
    figure(f"{AT_ONCE} writes at once, all refused after", took_s, "s")
    figure("writes accepted again after", recovered_s, "s")


def test_a_stop_that_cannot_be_written_does_not_happen(served: Plane, frozen_postgres: Callable[[], None]) -> None:
    assert_refused(served.request("POST", "/instances/steady/stop", timeout=BOUND_S))
    assert served.tool("steady", "echo", text="still running") == "still running"

    frozen_postgres()
    wait_until(lambda: accepts_writes(served, "again"), RECOVERY_S, "writes are accepted again")
    assert served.tool("steady", "echo", text="still running") == "still running"


def test_what_the_database_says_is_followed_though_nobody_here_asked_for_it(
    planes: Callable[..., Plane], own_postgres: Postgres
) -> None:
    """As after a commit that was made while the connection broke, and was answered with 503."""
    plane = planes(DATABASE_URL=own_postgres.url("postgres"))
    plane.deploy("unseen")
    plane.deploy("gone")

    own_postgres.sql("postgres", "UPDATE mcp_instances SET desired = 'stopped' WHERE name = 'unseen'")
    deleted = "UPDATE mcp_instances SET desired = 'deleted', deleted_at = now() WHERE name = 'gone'"
    own_postgres.sql("postgres", deleted)

    plane.wait_status("unseen", "stopped")
    wait_until(lambda: plane.request("GET", "/instances/gone").status_code == 404, RECOVERY_S, "the removal")
    own_postgres.sql("postgres", "UPDATE mcp_instances SET desired = 'running' WHERE name = 'unseen'")
    plane.wait_status("unseen", "running")


# -- Valkey


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_without_valkey_no_function_is_lost(
    served: Plane, number: signal.Signals, figure: Callable[..., None]
) -> None:
    name = f"uncached-{int(number)}"
    with trio.fail_after(180):
        async with canary(served, "steady") as bird:
            valkey = service(served, "valkey")
            began = trio.current_time()
            os.kill(valkey.pid, number)
            assert (await in_thread(deploy_answer, served, name)).status_code == 202
            figure("a deploy took", trio.current_time() - began, "s")
            assert served.get("/instances/steady/tools")["tools"]
            assert served.request("DELETE", f"/instances/{name}").status_code == 200
            if number is signal.SIGSTOP:
                os.kill(valkey.pid, signal.SIGCONT)
            await until(lambda: health(served)["services"]["redis"] == "connected", RECOVERY_S, "the cache is back")
    bird.assert_undisturbed()
