"""Many instances at once: started, called, felled and stopped, and nothing has grown afterwards."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.plane import Plane, below, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

LAX = {"RATE_LIMIT_RPS": "0", "DEPLOYS_PER_MINUTE": "100000", "MAX_INSTANCES_PER_USER": "1000"}
SOME, MANY = 40, 200
ALL_UP_S = 300
MAX_GROWTH = {"descriptors": 8, "processes": 0, "tasks": 8}


def size(plane: Plane) -> dict[str, int]:
    """What must not grow: descriptors of the control plane, processes below it, its tasks."""
    return {
        "descriptors": len(os.listdir(f"/proc/{plane.pid}/fd")),
        "processes": len([p for p in below(plane.pid) if p.is_live]),
        "tasks": plane.get("/stats")["control_plane"]["tasks"],
    }


def in_parallel(work: Callable[[int], Any], count: int) -> list[Any]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(work, range(count)))


def count_running(plane: Plane) -> int:
    return sum(row["status"] == "running" for row in plane.instances())


def live_through(plane: Plane, count: int) -> None:
    """Start, call and remove `count` instances."""
    in_parallel(lambda n: plane.deploy(f"f{n}", wait=ALL_UP_S), count)
    assert count_running(plane) == count
    assert in_parallel(lambda n: plane.tool(f"f{n}", "echo", text=str(n)), count) == [str(n) for n in range(count)]
    removed = in_parallel(lambda n: plane.request("DELETE", f"/instances/f{n}").status_code, count)
    assert set(removed) == {200}


def rise_and_fall(plane: Plane, count: int) -> None:
    live_through(plane, SOME // 2)  # what is made once and kept (the pool's connections) is made now
    before = size(plane)

    live_through(plane, count)

    def has_not_grown() -> bool:
        return all(value - before[what] <= MAX_GROWTH[what] for what, value in size(plane).items())

    wait_until(has_not_grown, 30, f"the size of before, {before}, again; now {size(plane)}")
    assert plane.instances() == []
    plane.assert_no_orphans()


def test_forty_instances_come_and_go_without_a_trace(planes: Callable[..., Plane]) -> None:
    rise_and_fall(planes(**LAX), SOME)


@pytest.mark.long
def test_two_hundred_instances_come_and_go_without_a_trace(planes: Callable[..., Plane]) -> None:
    rise_and_fall(planes(**LAX), MANY)


def test_all_servers_killed_at_once_are_back_by_themselves(planes: Callable[..., Plane]) -> None:
    plane = planes(**LAX)
    in_parallel(lambda n: plane.deploy(f"f{n}", wait=ALL_UP_S), SOME)

    for row in plane.instances():
        os.kill(row["pid"], signal.SIGKILL)

    def all_back() -> bool:
        rows = plane.instances()
        return all(row["status"] == "running" and row["restarts"] == 1 for row in rows)

    wait_until(all_back, ALL_UP_S, "the fleet is back")
    assert in_parallel(lambda n: plane.tool(f"f{n}", "echo", text=str(n)), SOME) == [str(n) for n in range(SOME)]
    plane.assert_no_orphans()
