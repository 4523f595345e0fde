"""Postgres and Valkey are killed and frozen: calls go on, writes are refused with a time to come back, all recovers."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.e2e.plane import below, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.plane import Plane, Process

RECOVERY_S = 60
BOUND_S = 15
"""No answer takes longer, whatever is away."""


@pytest.fixture
def served(planes: Callable[..., Plane]) -> Plane:
    plane = planes(DEPLOYS_PER_MINUTE="1000")
    plane.deploy("steady")
    return plane


def service(plane: Plane, program: str) -> Process:
    """The embedded service's first process."""
    found = [p for p in below(plane.pid) if p.is_live and program in p.command]
    assert found, f"no {program} below {plane.pid}"
    return min(found, key=lambda process: process.pid)


def services_of(plane: Plane) -> dict[str, str]:
    words: dict[str, str] = httpx.get(f"{plane.url}/health", timeout=BOUND_S).json()["services"]
    return words


def deploy_answer(plane: Plane, name: str) -> httpx.Response:
    body = {"name": name, "source_type": "mcp_config", "mcp_config": {"command": "cat"}}
    return plane.request("POST", "/api/v2/deploy?wait=0", json=body, timeout=BOUND_S)


def assert_calls_work(plane: Plane) -> None:
    for number in range(20):
        assert plane.tool("steady", "echo", text=f"call {number}") == f"call {number}"


def test_a_killed_postgres_comes_back_by_itself_and_calls_never_stop(served: Plane) -> None:
    os.kill(service(served, "postgres").pid, signal.SIGKILL)

    assert_calls_work(served)
    wait_until(
        lambda: deploy_answer(served, "after").status_code in (202, 409), RECOVERY_S, "a deploy is accepted again"
    )
    wait_until(lambda: services_of(served)["postgres"] == "connected", RECOVERY_S, "health says so")
    assert_calls_work(served)
    served.assert_no_orphans()


def thaw(processes: list[Process]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):  # a connection that was given up has ended with its backend
            os.kill(process.pid, signal.SIGCONT)


@pytest.fixture
def frozen_postgres(served: Plane) -> Iterator[list[Process]]:
    """Every Postgres process stopped: a database that neither answers nor refuses."""
    processes = [p for p in below(served.pid) if p.is_live and "postgres" in p.command]
    for process in processes:
        os.kill(process.pid, signal.SIGSTOP)
    yield processes
    thaw(processes)


def test_a_frozen_postgres_refuses_writes_in_time_and_nothing_hangs(
    served: Plane, frozen_postgres: list[Process]
) -> None:
    answers = [deploy_answer(served, f"frozen{number}") for number in range(3)]

    assert [answer.status_code for answer in answers] == [503] * 3
    assert {answer.json()["code"] for answer in answers} == {"storage_unavailable"}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
    assert_calls_work(served)
    assert [row["name"] for row in served.instances()] == ["steady"]
    wait_until(lambda: services_of(served)["postgres"] != "connected", RECOVERY_S, "health says so")

    thaw(frozen_postgres)
    wait_until(
        lambda: deploy_answer(served, "thawed").status_code in (202, 409), RECOVERY_S, "writes are accepted again"
    )
    wait_until(lambda: services_of(served)["postgres"] == "connected", RECOVERY_S, "health says so")


def test_what_was_printed_while_postgres_was_away_is_in_the_log_afterwards(served: Plane) -> None:
    os.kill(service(served, "postgres").pid, signal.SIGKILL)
    served.tool("steady", "spam", lines=3, word="during-the-outage")

    def is_kept() -> bool:
        answer = served.request("GET", "/instances/steady/logs", params={"q": "during-the-outage"}, timeout=BOUND_S)
        return answer.status_code == 200 and len(answer.json()["logs"]) == 3

    wait_until(is_kept, RECOVERY_S, "the journal was written")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_without_valkey_no_function_is_lost(served: Plane, number: signal.Signals) -> None:
    valkey = service(served, "valkey")
    os.kill(valkey.pid, number)

    assert_calls_work(served)
    assert deploy_answer(served, "uncached").status_code == 202
    assert served.get("/instances/steady/tools")["tools"]

    if number is signal.SIGSTOP:
        os.kill(valkey.pid, signal.SIGCONT)
    wait_until(lambda: services_of(served)["redis"] == "connected", RECOVERY_S, "the cache is used again")
    served.assert_no_orphans()


def test_a_stop_and_a_start_are_refused_while_the_wish_cannot_be_written(
    served: Plane, frozen_postgres: list[Process]
) -> None:
    def refused(action: str) -> Any:
        answer = served.request("POST", f"/instances/steady/{action}", timeout=BOUND_S)
        return answer.status_code, answer.json()["code"]

    assert refused("stop") == (503, "storage_unavailable")
    assert refused("restart") == (503, "storage_unavailable")
    assert served.tool("steady", "echo", text="still running") == "still running"
