"""What remains when the control plane or its spawner is killed: nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from controlplane.spawn import link, proctree
from controlplane.spawn.client import open_spawner
from tests.spawn.children import (
    DAEMON_WITH_MARKER,
    HOSTILE,
    LIFE_S,
    left_of,
    live_of,
    names_of,
    pids_of,
    read_line,
    start,
    start_python,
    until,
    zombies_of,
)

if TYPE_CHECKING:
    from controlplane.spawn.client import Job, Spawner
    from controlplane.spawn.uids import UidPool

ROOT = Path(__file__).parents[2]
GONE_S = 2.0
STUBBORN = (
    f"trap 'echo asked >> \"$1\"' TERM; echo ready; n=0; while [ $n -lt {LIFE_S * 10} ]; do sleep 0.1; n=$((n+1)); done"
)

CONTROL_PLANE = f"""
import json, sys, trio
from controlplane.spawn.client import open_spawner
from controlplane.spawn.uids import open_uid_pool
from tests.spawn.children import HOSTILE, pids_of, read_line, start, start_python

async def main():
    with open_uid_pool() as uids:
        async with open_spawner(marker=sys.argv[1], uids=uids) as spawner:
            first = await start_python(spawner, HOSTILE, uid=uids.claim())
            second = await start_python(spawner, HOSTILE, uid=uids.claim())
            build = await start(spawner, "sleep", "{LIFE_S}", uid=uids.claim(), kind="build")
            service = await start(spawner, "sh", "-c", {STUBBORN!r}, "sh", sys.argv[2], kind="service")
            await read_line(service.stdout_fd)
            pids = [*await pids_of(first), *await pids_of(second), build.pid, service.pid, spawner._link.pid]
            print(json.dumps(pids), flush=True)
            await trio.sleep({LIFE_S})

trio.run(main)
"""


def start_control_plane(marker: str, note: Path) -> tuple[subprocess.Popen[bytes], list[tuple[int, int]]]:
    process = subprocess.Popen(
        [sys.executable, "-c", CONTROL_PLANE, marker, str(note)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
    )
    assert process.stdout is not None
    with process.stdout as out:
        line = out.readline()
    names = names_of(json.loads(line))
    assert len(names) == 11
    return process, names


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGSEGV])
async def test_nothing_outlives_a_control_plane_that_is_killed(marker: str, tmp_path: Path, sig: int) -> None:
    process, names = start_control_plane(marker, tmp_path / "note")
    try:
        process.send_signal(sig)
        assert process.wait(10) == -sig
        killed = time.monotonic()
        await until(lambda: not live_of(names), 10)
        assert time.monotonic() - killed < GONE_S + 0.5
        assert (tmp_path / "note").read_text() == "asked\n", "a service is asked to stop before it is killed"
    finally:
        process.kill()
        process.wait()


async def test_the_death_of_the_spawner_ends_its_jobs_and_another_one_takes_over(
    spawner: Spawner, uids: UidPool
) -> None:
    jobs: list[Job] = []
    pids: list[int] = []
    for _ in range(3):
        jobs.append(await start_python(spawner, HOSTILE, uid=uids.claim()))
        pids += await pids_of(jobs[-1])
    jobs.append(await start_python(spawner, DAEMON_WITH_MARKER, uid=uids.claim()))
    pids += [jobs[-1].pid, int(await read_line(jobs[-1].stdout_fd))]
    names = names_of(pids)
    assert len(names) == 14
    assert spawner._link is not None
    os.kill(spawner._link.pid, signal.SIGKILL)
    with trio.fail_after(10):
        for job in jobs:
            end = await job.wait()
            assert (end.code, end.lost) == (-signal.SIGKILL, True)
            await job.kill_all()
    assert left_of(names) == []
    assert zombies_of(os.getpid()) == []
    again = await start(spawner, "cat", uid=uids.claim())
    os.write(again.stdin_fd, b"on\n")
    assert await read_line(again.stdout_fd) == "on"
    statistics = spawner.statistics()
    assert (statistics.restarts, statistics.jobs, statistics.orphans) == (1, 1, 0)
    await again.kill_all()
    for job in (*jobs, again):
        job.close_fds()


async def test_a_child_of_the_control_plane_itself_survives_the_burial(spawner: Spawner, uid: int | None) -> None:
    own = subprocess.Popen(["sleep", str(LIFE_S)])
    quick = subprocess.Popen(["sh", "-c", "exit 5"])
    try:
        job = await start(spawner, "sleep", str(LIFE_S), uid=uid)
        assert spawner._link is not None
        os.kill(spawner._link.pid, signal.SIGKILL)
        with trio.fail_after(10):
            await job.kill_all()
        assert own.poll() is None
        assert quick.wait(10) == 5, "its status was taken by somebody else"
        job.close_fds()
    finally:
        own.kill()
        own.wait()


async def test_a_spawner_that_is_stopped_is_replaced_as_if_it_had_died(
    marker: str, uids: UidPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trio.fail_after(30):
        async with open_spawner(marker=marker, uids=uids) as spawner:
            job = await start(spawner, "sleep", str(LIFE_S), uid=uids.claim())
            names = names_of([job.pid])
            assert spawner._link is not None
            os.kill(spawner._link.pid, signal.SIGSTOP)
            monkeypatch.setattr(link, "PING_S", 0.1)

            end = await job.wait()
            monkeypatch.undo()

            assert (end.code, end.lost) == (-signal.SIGKILL, True)
            await job.kill_all()
            assert left_of(names) == []
            again = await start(spawner, "cat", uid=uids.claim())
            assert spawner.statistics().restarts == 1
            await again.kill_all()
            job.close_fds()
            again.close_fds()


async def test_a_control_plane_that_was_stopped_itself_blames_nobody(
    marker: str, uids: UidPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "PING_S", 0.4)
    with trio.fail_after(30):
        async with open_spawner(marker=marker, uids=uids) as spawner:
            assert spawner._link is not None
            pid = spawner._link.pid
            time.sleep(2 * link.SILENT_PINGS * link.PING_S)  # as good as stopped
            await trio.sleep(2 * link.PING_S)

            assert (spawner._link.pid, spawner.statistics().restarts) == (pid, 0)


async def test_a_spawn_waits_for_the_next_spawner(spawner: Spawner, uid: int | None) -> None:
    assert spawner._link is not None
    first = spawner._link.pid
    os.kill(first, signal.SIGKILL)
    await until(lambda: spawner._link is None)
    with trio.fail_after(15):
        job = await start(spawner, "true", uid=uid)
        assert (await job.wait()).code == 0
    assert spawner._link.pid != first
    await job.kill_all()
    job.close_fds()


async def test_the_spawner_ignores_what_a_terminal_or_an_init_system_sends_to_everybody(
    spawner: Spawner, uid: int | None
) -> None:
    assert spawner._link is not None
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(spawner._link.pid, sig)
    job = await start(spawner, "true", uid=uid)
    assert (await job.wait()).code == 0
    assert spawner.statistics().restarts == 0
    await job.kill_all()
    job.close_fds()


async def test_nobody_may_look_into_the_spawner(spawner: Spawner) -> None:
    assert spawner._link is not None
    # The files of a process that cannot be dumped belong to root, whoever runs it.
    assert Path(f"/proc/{spawner._link.pid}/environ").stat().st_uid == 0
    found = proctree.look(spawner._link.pid)
    assert found is not None
    assert found.sid == spawner._link.pid, "a terminal's signals must not reach it"


async def test_a_start_that_is_broken_off_leaves_no_spawner_and_does_not_hang(marker: str) -> None:
    async def start(scope: trio.CancelScope) -> None:
        with scope:
            async with open_spawner(marker=marker):
                raise AssertionError("it was to be broken off before it was ready")

    def spawners() -> list[int]:
        return [pid for pid in proctree.scan() if marker.encode() in words_of(pid)]

    scope = trio.CancelScope()
    with trio.fail_after(GONE_S * 5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(start, scope)
            while not spawners():
                await trio.lowlevel.checkpoint()
            scope.cancel()
    assert spawners() == []


def words_of(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
