"""The fence: until when processes may live, kept by the spawner whatever becomes of its control plane."""

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

from controlplane.spawn.client import SpawnFailed
from controlplane.spawn.messages import fence_clock
from tests.spawn.children import (
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
)

if TYPE_CHECKING:
    from controlplane.spawn.client import Spawner
    from controlplane.spawn.uids import UidPool

ROOT = Path(__file__).parents[2]
PROMPT_S = 0.5
"""From the fence's fall to the end of every process, on a busy machine; half of the lease's margin."""

CONTROL_PLANE = f"""
import json, sys, trio
from controlplane.spawn.client import open_spawner
from controlplane.spawn.messages import fence_clock
from controlplane.spawn.uids import open_uid_pool
from tests.spawn.children import HOSTILE, pids_of, read_line, start, start_python

async def main():
    with open_uid_pool() as uids:
        async with open_spawner(marker=sys.argv[1], uids=uids) as spawner:
            job = await start_python(spawner, HOSTILE, uid=uids.claim())
            service = await start(spawner, "sleep", "{LIFE_S}", kind="service")
            pids = [*await pids_of(job), service.pid, spawner._link.pid]
            until = fence_clock() + 1.5
            spawner.set_fence(until)
            print(json.dumps([until, pids]), flush=True)
            await trio.sleep({LIFE_S})

trio.run(main)
"""


async def test_when_the_fence_falls_everything_but_services_is_killed(spawner: Spawner, uids: UidPool) -> None:
    job = await start_python(spawner, HOSTILE, uid=uids.claim())
    build = await start(spawner, "sleep", str(LIFE_S), uid=uids.claim(), kind="build")
    service = await start(spawner, "sleep", str(LIFE_S), kind="service")
    names = names_of([*await pids_of(job), build.pid])
    falls_at = fence_clock() + 0.5

    spawner.set_fence(falls_at)

    assert len(live_of(names)) == 5
    await until(lambda: not live_of(names), 10)
    assert fence_clock() >= falls_at, "not before its time"
    assert fence_clock() - falls_at < PROMPT_S
    assert (await job.wait()).code == -signal.SIGKILL
    assert live_of(names_of([service.pid])) == [service.pid]
    for each in (job, build, service):
        await each.kill_all()
        each.close_fds()
    assert left_of(names) == []


async def test_whoever_wants_to_know_that_it_fell_hears_of_it_before_anybody_hears_of_an_end(
    spawner: Spawner, uid: int | None
) -> None:
    heard: list[bool] = []
    job = await start(spawner, "sleep", str(LIFE_S), uid=uid)
    quick = await start(spawner, "true", kind="service")
    await quick.wait()
    spawner.on_fenced = lambda: heard.append(job.exit is None)
    assert heard == []

    spawner.set_fence(fence_clock())
    await job.wait()

    assert heard[0], "before its end was told"
    for each in (job, quick):
        await each.kill_all()
        each.close_fds()


async def test_past_the_fence_nothing_starts_but_services_until_it_is_set_anew(spawner: Spawner, uids: UidPool) -> None:
    spawner.set_fence(fence_clock())

    with pytest.raises(SpawnFailed, match="lease is over") as refused:
        await start(spawner, "cat", uid=uids.claim())
    assert refused.value.stage == "fence"
    service = await start(spawner, "cat", kind="service")

    spawner.set_fence(fence_clock() + LIFE_S)
    later = await start(spawner, "cat", uid=uids.claim())
    os.write(later.stdin_fd, b"on\n")
    assert await read_line(later.stdout_fd) == "on"
    for each in (service, later):
        await each.kill_all()
        each.close_fds()


async def test_a_fence_that_is_moved_on_in_time_ends_nothing(spawner: Spawner, uid: int | None) -> None:
    job = await start(spawner, "cat", uid=uid)
    end = fence_clock() + 1.0
    while fence_clock() < end:
        spawner.set_fence(fence_clock() + 0.5)
        await trio.sleep(0.1)
    spawner.set_fence(None)

    os.write(job.stdin_fd, b"on\n")
    assert await read_line(job.stdout_fd) == "on"
    await job.kill_all()
    job.close_fds()


async def test_a_spawner_that_takes_the_place_of_a_dead_one_keeps_the_fence(spawner: Spawner, uid: int | None) -> None:
    spawner.set_fence(fence_clock())
    assert spawner._link is not None
    os.kill(spawner._link.pid, signal.SIGKILL)
    await until(lambda: spawner.statistics().restarts == 1 and spawner.pid is not None)

    with pytest.raises(SpawnFailed, match="lease is over"):
        await start(spawner, "cat", uid=uid)


async def test_a_control_plane_that_is_frozen_keeps_no_process_past_its_fence(marker: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", CONTROL_PLANE, marker],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
    )
    assert process.stdout is not None
    try:
        falls_at, pids = json.loads(process.stdout.readline())
        *fenced, service, its_spawner = names_of(pids)
        process.send_signal(signal.SIGSTOP)
        assert live_of(fenced), "stopped before the fence fell"

        await until(lambda: not live_of(fenced), 10)

        assert 0 <= fence_clock() - falls_at < PROMPT_S
        assert len(live_of([service, its_spawner])) == 2
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    killed = time.monotonic()
    await until(lambda: not live_of([service, its_spawner]), 10)
    assert time.monotonic() - killed < 2.5
