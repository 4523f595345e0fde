"""Two control planes on one host: never on one home, and never at each other's processes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from tests.e2e.load import canary
from tests.e2e.plane import Plane, below, is_alive, marked, open_plane

if TYPE_CHECKING:
    from collections.abc import Callable

EX_CONFIG = 78


def run_to_its_end(plane: Plane) -> tuple[int, str]:
    """Start a control plane that is not to come up; returns its exit status and what it said."""
    before = len(plane.log)
    status = plane.begin().wait(60)
    return status, plane.log[before:]


def test_a_home_in_use_is_refused_with_the_holders_pid_and_the_holder_goes_on(
    plane: Plane, figure: Callable[..., None]
) -> None:
    pid = plane.deploy("undisturbed")["pid"]
    second = Plane(plane.folder, {"PORT": "0"}, token=plane.token)

    began = time.monotonic()
    status, said = run_to_its_end(second)

    assert status == EX_CONFIG
    assert f"in use by another control plane (process {plane.pid})" in said
    assert "corral up --replace" in said
    assert "CORRAL_HOME" in said
    assert "Traceback" not in said
    assert plane.tool("undisturbed", "pid") == str(pid)
    assert plane.get("/health")["status"] == "healthy"
    figure("refused after", time.monotonic() - began, "s")


def test_a_port_in_use_is_refused_and_nothing_of_the_start_is_left(plane: Plane) -> None:
    with open_plane(PORT=plane.url.rpartition(":")[2]) as second:
        status, said = run_to_its_end(second)

        assert status == EX_CONFIG
        assert "cannot listen on 127.0.0.1:" in said
        assert "PORT" in said
        assert marked(second.owner_id) == []
    assert plane.get("/health")["status"] == "healthy"


async def test_two_homes_run_side_by_side_and_the_death_of_one_does_not_touch_the_other(
    planes: Callable[..., Plane],
) -> None:
    one, other = planes(), planes()
    for each in (one, other):
        each.deploy("twin")
    ours, theirs = one.instance("twin")["pid"], other.instance("twin")["pid"]
    services = [process for process in below(other.pid) if process.command.startswith(("postgres", "valkey"))]

    with trio.fail_after(120):
        async with canary(other, "twin") as bird:
            await trio.to_thread.run_sync(one.kill)
            await trio.to_thread.run_sync(one.start)
            await trio.to_thread.run_sync(one.wait_status, "twin", "running")

    bird.assert_undisturbed()
    if os.geteuid() == 0:
        users = {Path(f"/proc/{each.instance('twin')['pid']}").stat().st_uid for each in (one, other)}
        assert len(users) == 2
        assert 0 not in users
    assert not is_alive(ours)
    assert other.instance("twin")["pid"] == theirs
    assert all(process.is_live for process in services)
    assert one.stop() == 0
    assert other.tool("twin", "echo", text="alone") == "alone"
    other.assert_no_orphans()


def test_what_an_earlier_life_left_is_killed_at_the_start_and_nobody_else(planes: Callable[..., Plane]) -> None:
    plane = planes()
    plane.kill()

    def sleeper(**environment: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["sleep", "300"], env={"PATH": os.environ["PATH"]} | environment)

    with (
        sleeper(CORRAL_OWNER=plane.owner_id) as leftover,
        sleeper(CORRAL_OWNER=plane.owner_id + "0") as another_homes,
        sleeper(CORRAL_OWNERS=plane.owner_id) as strangers,
    ):
        try:
            plane.start()
            assert leftover.wait(20) == -signal.SIGKILL
            assert (another_homes.poll(), strangers.poll()) == (None, None)
        finally:
            for process in (leftover, another_homes, strangers):
                process.kill()
    assert "killed 1 processes that an earlier life" in plane.log
    plane.assert_no_orphans()
