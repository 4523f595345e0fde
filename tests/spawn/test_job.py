"""How jobs end, by themselves and by force."""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from controlplane.spawn.client import SpawnFailed, open_spawner
from tests.spawn.children import (
    DAEMON_WITH_MARKER,
    FORK_STORM,
    HOSTILE,
    LIFE_S,
    STORM_PROCESSES,
    left_of,
    live_of,
    names_of,
    pids_of,
    read_all,
    read_line,
    start,
    start_python,
    until,
    zombies_of,
)

if TYPE_CHECKING:
    from controlplane.spawn.client import Spawner
    from controlplane.spawn.uids import UidPool

SLEEP = ("sleep", str(LIFE_S))
ANSWER_ON_STDIN = "import socket; s = socket.socket(fileno=0); s.send(s.recv(99).upper())"


async def test_every_waiter_hears_the_exit_status(spawner: Spawner, uid: int | None) -> None:
    job = await start(spawner, "sh", "-c", "read x; exit 7", uid=uid)
    codes = []

    async def wait() -> None:
        codes.append((await job.wait()).code)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert codes == []
            job.close_stdin()
    assert codes == [7, 7, 7]
    assert job.exit is not None
    assert not job.exit.lost
    assert (await job.wait()).code == 7
    await job.kill_all()
    job.close_fds()


async def test_death_by_a_signal_is_a_negative_code_and_the_peak_of_memory_is_told(
    spawner: Spawner, uid: int | None
) -> None:
    program = "import os, signal; x = bytearray(64 << 20); os.kill(os.getpid(), signal.SIGSEGV)"
    job = await start_python(spawner, program, uid=uid)
    with trio.fail_after(10):
        end = await job.wait()
    assert end.code == -signal.SIGSEGV
    assert end.max_rss_bytes is not None
    assert 64 << 20 < end.max_rss_bytes < 160 << 20
    await job.kill_all()
    job.close_fds()


async def test_a_signal_reaches_the_whole_group_and_nothing_once_it_is_gone(spawner: Spawner, uid: int | None) -> None:
    job = await start(spawner, "sh", "-c", f"sleep {LIFE_S} & echo $!; wait", uid=uid)
    names = names_of([job.pid, int(await read_line(job.stdout_fd))])
    assert len(names) == 2
    job.signal_nowait(signal.SIGTERM)
    with trio.fail_after(10):
        assert (await job.wait()).code == -signal.SIGTERM
    await until(lambda: not left_of(names))
    job.signal_nowait(signal.SIGTERM)
    await job.kill_all()
    job.signal_nowait(signal.SIGKILL)
    job.close_fds()
    assert (await start(spawner, "true", uid=uid)).pid > 0  # the spawner took no harm


async def test_the_exit_is_noticed_though_a_grandchild_holds_the_output_open(spawner: Spawner, uid: int | None) -> None:
    job = await start(spawner, "sh", "-c", f"sleep {LIFE_S} & exit 3", uid=uid)
    with trio.fail_after(5):
        assert (await job.wait()).code == 3
    assert await job.census() == 1
    with pytest.raises(BlockingIOError):
        os.read(job.stdout_fd, 1)  # open, and silent
    await job.kill_all()
    assert await read_all(job.stdout_fd) == ""
    assert await job.census() == 0
    job.close_fds()


@pytest.mark.parametrize("has_own_user", [True, False])
async def test_a_tree_that_dodges_every_polite_signal_is_gone_with_its_daemons(
    spawner: Spawner, uids: UidPool, uid: int | None, has_own_user: bool
) -> None:
    other = None if has_own_user else await start(spawner, *SLEEP, uid=uid)  # then it has to be found, not just named
    job = await start_python(spawner, HOSTILE, uid=uid)
    pids = await pids_of(job)
    names = names_of(pids)
    assert len(names) == 4
    job.signal_nowait(signal.SIGTERM)
    with trio.fail_after(5):
        await job.kill_all()
        assert (await job.wait()).code == -signal.SIGKILL
    assert left_of(names) == []
    assert await job.census() == 0
    assert spawner._link is not None
    assert zombies_of(spawner._link.pid) == []
    if other is not None:
        assert other.exit is None
        assert await other.census() == 1
        await other.kill_all()
        other.close_fds()
    job.close_fds()


async def test_a_build_is_killed_beside_the_running_instance_of_the_same_user(
    spawner: Spawner, uid: int | None
) -> None:
    instance = await start_python(spawner, DAEMON_WITH_MARKER, uid=uid)
    daemon = names_of([int(await read_line(instance.stdout_fd))])
    build = await start(spawner, *SLEEP, uid=uid, kind="build")
    await build.kill_all()
    assert instance.exit is None
    assert live_of(daemon)
    await instance.kill_all()
    assert not left_of(daemon)
    for job in (instance, build):
        job.close_fds()


@pytest.mark.parametrize("has_own_user", [True, False])
async def test_a_fork_storm_is_ended_and_other_jobs_go_on_meanwhile(
    spawner: Spawner, uids: UidPool, uid: int | None, has_own_user: bool
) -> None:
    other = None if has_own_user else await start(spawner, *SLEEP, uid=uid)
    job = await start_python(spawner, FORK_STORM, uid=uid, rlimits={"NPROC": STORM_PROCESSES})
    with trio.fail_after(15):
        while await job.census() < STORM_PROCESSES * 0.9:
            await trio.sleep(0.02)
    codes = []

    async def neighbour(number: int) -> None:
        small = await start(spawner, "sh", "-c", f"exit {number}", uid=uids.claim())
        codes.append((await small.wait()).code)
        await small.kill_all()
        small.close_fds()

    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(job.kill_all)
            if uid is not None:  # a plain user's storm has used up what they all may have
                for number in range(5):
                    nursery.start_soon(neighbour, number)
    assert sorted(codes) == ([0, 1, 2, 3, 4] if uid is not None else [])
    assert await job.census() == 0
    if other is not None:
        assert other.exit is None
        await other.kill_all()
        other.close_fds()
    job.close_fds()


async def test_killing_twice_and_at_the_same_time_is_the_same_as_once(spawner: Spawner, uid: int | None) -> None:
    job = await start(spawner, *SLEEP, uid=uid)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(job.kill_all)
        await job.kill_all()
    assert job.exit is not None
    assert job.exit.code == -signal.SIGKILL
    job.close_fds()


async def test_a_user_can_be_reused_as_soon_as_its_job_is_being_killed(spawner: Spawner, uid: int | None) -> None:
    for _ in range(10):
        old = await start(spawner, *SLEEP, uid=uid)
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(old.kill_all)
                new = await start(spawner, "cat", uid=uid)  # asked for while the kill goes on
        os.write(new.stdin_fd, b"alive\n")
        assert await read_line(new.stdout_fd) == "alive"
        await new.kill_all()
        old.close_fds()
        new.close_fds()


async def test_an_orphan_of_a_living_job_stays_and_one_that_is_nobodys_is_killed(
    spawner: Spawner, uid: int | None
) -> None:
    # Two jobs of one user, so that the user tells nothing about whose an orphan is.
    kept = await start_python(spawner, DAEMON_WITH_MARKER, uid=uid)
    daemon = names_of([int(await read_line(kept.stdout_fd))])
    stray_job = await start_python(spawner, HOSTILE, uid=uid)
    *_, stray = await pids_of(stray_job)
    names = names_of([stray])
    await until(lambda: not left_of(names), 15)
    await until(lambda: spawner.statistics().orphans_killed == 1)
    assert live_of(daemon)
    assert kept.exit is None
    assert stray_job.exit is None
    for job in (kept, stray_job):
        await job.kill_all()
        job.close_fds()
    await until(lambda: spawner.statistics().orphans == 0)


@pytest.mark.long
async def test_what_an_ended_job_left_behind_is_killed_though_nobody_asks(spawner: Spawner, uid: int | None) -> None:
    job = await start(spawner, "sh", "-c", f"sleep {LIFE_S} & echo $!", uid=uid)
    names = names_of([int(await read_line(job.stdout_fd))])
    with trio.fail_after(30):
        await job.wait()
        await until(lambda: not left_of(names), 20)
    await until(lambda: not spawner._jobs)
    await job.kill_all()
    job.close_fds()


async def test_fifty_jobs_start_and_end_at_the_same_time_and_leave_nothing(
    spawner: Spawner, uids: UidPool, uid: int | None
) -> None:
    fds = len(os.listdir("/proc/self/fd"))
    users = [uids.claim() for _ in range(50)]

    async def live(user: int | None) -> None:
        job = await start(spawner, "sh", "-c", f"sleep {LIFE_S} & cat", uid=user)
        os.write(job.stdin_fd, b"here\n")
        assert await read_line(job.stdout_fd) == "here"
        await job.kill_all()
        assert job.exit is not None
        job.close_fds()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for user in users:
                nursery.start_soon(live, user)
    statistics = spawner.statistics()
    assert (statistics.jobs, statistics.spawned, statistics.orphans, statistics.restarts) == (0, 50, 0, 0)
    assert len(os.listdir("/proc/self/fd")) == fds
    assert spawner._link is not None
    assert zombies_of(spawner._link.pid) == []


async def test_jobs_that_end_or_fail_at_once_are_told_apart_and_never_hurt_the_spawner(
    spawner: Spawner, uids: UidPool
) -> None:
    outcomes: list[object] = []

    async def live(user: int | None, command: str) -> None:
        for _ in range(25):
            try:
                job = await start(spawner, command, uid=user)
            except SpawnFailed as failure:
                outcomes.append(failure.stage)
                continue
            outcomes.append((await job.wait()).code)
            await job.kill_all()
            job.close_fds()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for command in ("true", "no-such-command", "false", "/etc"):
                nursery.start_soon(live, uids.claim(), command)
    assert Counter(outcomes) == {0: 25, 1: 25, "exec": 50}
    assert (spawner.statistics().restarts, spawner.statistics().jobs) == (0, 0)


async def test_nothing_is_left_when_the_spawner_closes_with_jobs_running(
    marker: str, uids: UidPool, uid: int | None
) -> None:
    with trio.fail_after(20):
        async with open_spawner(marker=marker, uids=uids) as opened:
            job = await start_python(opened, HOSTILE, uid=uid)
            names = names_of(await pids_of(job))
            began = trio.current_time()
        assert trio.current_time() - began < 2.5
    assert left_of(names) == []
    assert job.exit is not None
    assert (await job.wait()).code == -signal.SIGKILL
    await job.kill_all()
    job.close_fds()


async def test_a_job_whose_standard_input_is_a_socket_answers_on_it(spawner: Spawner, uid: int | None) -> None:
    job = await start_python(spawner, ANSWER_ON_STDIN, uid=uid, stdin_socket=True)
    os.write(job.stdin_fd, b"in one packet")
    with trio.fail_after(10):
        await trio.lowlevel.wait_readable(job.stdin_fd)
    assert os.read(job.stdin_fd, 99) == b"IN ONE PACKET"
    await job.kill_all()
    job.close_fds()
