"""Many instances at once: started, called, felled and removed, and nothing has grown afterwards."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from controlplane.store.pool import POOL_SIZE
from tests.e2e.load import canary, until
from tests.e2e.plane import below, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.plane import Plane

SOME, MANY = 40, 200
ALL_UP_S = 300
CALLERS = 8
MAX_GROWTH = {"descriptors": 8, "processes": 0, "tasks": 8, "threads": 12}
MAX_CONNECTIONS = POOL_SIZE + 1
"""To Postgres: the pool's, opened when so many are wanted at once and kept, and the one that listens."""
in_thread = trio.to_thread.run_sync


@pytest.fixture(scope="module")
def field(plane: Plane) -> Plane:
    """A control plane on which the tests of this module have once done what they measure.

    What is made once and kept, the pool's connections and threads, is there by now.
    """
    live_through(plane, SOME // 2, lambda *_: None)
    return plane


def size(plane: Plane) -> dict[str, int]:
    """What must not grow: the control plane's descriptors, tasks and threads, and the processes below it.

    But for Postgres's: it has one for each connection, and workers that come and go by its own clock.
    """
    own = plane.get("/stats")["control_plane"]
    return {
        "descriptors": len(os.listdir(f"/proc/{plane.pid}/fd")),
        "processes": sum(process.command != "postgres" for process in below(plane.pid)),
        "tasks": own["tasks"],
        "threads": own["threads"],
    }


def connections(plane: Plane) -> int:
    """Connections to Postgres, by the titles of the processes that serve them."""
    titles = (title(process.pid) for process in below(plane.pid) if process.command == "postgres")
    return sum(text.startswith("postgres: corral ") for text in titles)


def title(pid: int) -> str:
    """The command line of a process; empty once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


def in_parallel(work: Callable[[int], Any], count: int) -> list[Any]:
    with ThreadPoolExecutor(CALLERS) as pool:
        return list(pool.map(work, range(count)))


def deploy_all(plane: Plane, count: int) -> None:
    in_parallel(lambda n: plane.deploy(f"f{n}", wait=ALL_UP_S), count)
    assert sum(row["status"] == "running" for row in plane.instances() if row["name"].startswith("f")) == count


def call_all(plane: Plane, count: int) -> None:
    assert in_parallel(lambda n: plane.tool(f"f{n}", "echo", text=str(n)), count) == [str(n) for n in range(count)]


def remove_all(plane: Plane, count: int) -> None:
    assert set(in_parallel(lambda n: plane.request("DELETE", f"/instances/f{n}").status_code, count)) == {200}


def live_through(plane: Plane, count: int, figure: Callable[..., None]) -> None:
    """Start, call and remove `count` instances."""
    for what, work in (("started", deploy_all), ("called", call_all), ("removed", remove_all)):
        began = time.monotonic()
        work(plane, count)
        figure(f"{count} instances {what} within", time.monotonic() - began, "s")


def rise_and_fall(plane: Plane, count: int, figure: Callable[..., None]) -> None:
    before, before_mb = size(plane), plane.get("/stats")["control_plane"]["memory_mb"]

    live_through(plane, count, figure)

    def grown() -> dict[str, int]:
        return {what: value - before[what] for what, value in size(plane).items()}

    try:
        wait_until(lambda: all(grown()[what] <= most for what, most in MAX_GROWTH.items()), 30, "the size of before")
    except AssertionError:
        raise AssertionError(f"it has grown by {grown()}") from None
    wait_until(
        lambda: 0 < connections(plane) <= MAX_CONNECTIONS, 30, "no more connections to Postgres than there may be"
    )
    assert plane.instances() == []
    assert list((plane.home / "instances").iterdir()) == []
    plane.assert_no_orphans()
    for what, change in grown().items():
        figure(f"{what} changed by", change)
    figure("memory changed by", float(plane.get("/stats")["control_plane"]["memory_mb"] - before_mb), "MiB")


def test_forty_instances_come_and_go_without_a_trace(field: Plane, figure: Callable[..., None]) -> None:
    rise_and_fall(field, SOME, figure)


@pytest.mark.long
def test_two_hundred_instances_come_and_go_without_a_trace(field: Plane, figure: Callable[..., None]) -> None:
    rise_and_fall(field, MANY, figure)


async def fell_all_at_once(plane: Plane, count: int, figure: Callable[..., None]) -> None:
    """SIGKILL every server but one, which is called all the time."""
    await in_thread(plane.deploy, "neighbour")
    await in_thread(deploy_all, plane, count)
    pids = [row["pid"] for row in plane.instances() if row["name"] != "neighbour"]

    def all_back() -> bool:
        rows = [row for row in plane.instances() if row["name"] != "neighbour"]
        return all(row["status"] == "running" and row["restarts"] == 1 for row in rows)

    with trio.fail_after(ALL_UP_S):
        async with canary(plane, "neighbour") as bird:
            began = trio.current_time()
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            await in_thread(partial(wait_until, all_back, ALL_UP_S, "the fleet is back"))
            back_s = trio.current_time() - began
        await in_thread(call_all, plane, count)

    bird.assert_undisturbed()
    plane.assert_no_orphans()
    figure(f"{count} servers killed at once were back after", back_s, "s")
    figure("the neighbour's p99 meanwhile", bird.percentile(99) * 1000, "ms")
    await in_thread(remove_all, plane, count)
    assert (await in_thread(plane.request, "DELETE", "/instances/neighbour")).status_code == 200


async def test_servers_killed_all_at_once_are_back_by_themselves(field: Plane, figure: Callable[..., None]) -> None:
    await fell_all_at_once(field, SOME, figure)


@pytest.mark.long
async def test_two_hundred_servers_killed_all_at_once_are_back_by_themselves(
    field: Plane, figure: Callable[..., None]
) -> None:
    await fell_all_at_once(field, MANY, figure)


async def test_a_control_plane_that_was_suspended_fells_nobody_when_it_wakes(
    field: Plane, figure: Callable[..., None]
) -> None:
    """A laptop that slept, a container that was paused: time has passed and nothing was heard meanwhile."""
    await in_thread(deploy_all, field, 4)
    before = {row["name"]: row["pid"] for row in field.instances()}
    suspended_s = 2.0  # the fault itself

    with trio.fail_after(60):
        async with field.aclient() as http, trio.open_nursery() as nursery:
            answers: list[int] = []

            async def call() -> None:
                body = {"method": "tools/call", "params": {"name": "sleep", "arguments": {"seconds": 1}}}
                answers.append((await http.post("/mcp/f0/execute", json=body)).status_code)

            nursery.start_soon(call)
            await until(lambda: field.get("/stats")["calls"]["in_flight"] == 1, 30, "a call in flight")
            field.send(signal.SIGSTOP)
            await trio.sleep(suspended_s)
            field.send(signal.SIGCONT)

    assert answers == [200]
    await in_thread(call_all, field, 4)
    assert {row["name"]: row["pid"] for row in field.instances()} == before
    field.assert_no_orphans()
    await in_thread(remove_all, field, 4)
