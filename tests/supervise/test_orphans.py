"""Whose a daemon is that has left its session and lost its parents: told by what it carries, from real processes."""

from __future__ import annotations

import json
import os
import secrets
from typing import TYPE_CHECKING

import pytest
import trio

from controlplane.spawn import proctree
from controlplane.spawn.client import Spawner, open_spawner
from controlplane.spawn.confinement import Confinement
from controlplane.spawn.proctree import Root
from controlplane.spawn.uids import open_uid_pool
from controlplane.supervise import orphans
from controlplane.supervise.census import Census
from controlplane.supervise.footprint import Index
from controlplane.supervise.orphans import Orphans
from controlplane.supervise.sampler import Sampler
from tests.needs import skip_unless
from tests.spawn.children import DAEMON_WITH_MARKER, read_line, start_python
from tests.supervise.test_watchdog import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from controlplane.spawn.job import Job
    from tests.supervise.conftest import Yard

HELD_MIB = 60
DAEMONS = 3
LEAVING = b"""
import json, os, sys, time

def leave():
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for fd in (0, 1, 2):
                os.close(fd)
            held = bytearray(b"x" * (60 << 20))
            os.write(writer, b"%d" % os.getpid())
            while True:
                pass
        os._exit(0)
    os.wait()
    return int(os.read(reader, 20))

for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    answer = {"jsonrpc": "2.0", "id": message["id"]}
    if message["method"] == "initialize":
        answer["result"] = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "leaving", "version": "1"}}
    elif message["method"] == "tools/call":
        answer["result"] = {"content": [{"type": "text", "text": str(leave())}]}
    else:
        answer["error"] = {"code": -32601, "message": "no such method"}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
async def spawner() -> AsyncIterator[Spawner]:
    with trio.fail_after(60), open_uid_pool() as uids:
        async with open_spawner(marker=secrets.token_hex(8), uids=uids) as opened:
            yield opened


@pytest.fixture
def uid() -> Iterator[int | None]:
    """One user for all jobs, which tells nothing then; None outside root."""
    with open_uid_pool() as uids:
        yield uids.claim()


@pytest.fixture(params=["process", "confined"])
def confinement(request: pytest.FixtureRequest) -> Confinement:
    if request.param == "confined":
        skip_unless("landlock")
    return Confinement(request.param)


async def left_behind(spawner: Spawner, uid: int | None, confinement: Confinement) -> tuple[Job, int]:
    """A job, and a daemon of it."""
    job = await start_python(spawner, DAEMON_WITH_MARKER, uid=uid, confinement=confinement)
    return job, int(await read_line(job.stdout_fd))


def root_of(job: Job, key: str) -> Root:
    return Root(key, job.pid, job.start_ticks, marker=job.id)


async def test_a_daemon_without_session_or_parent_is_counted_with_the_job_that_it_carries(
    spawner: Spawner, uid: int | None, confinement: Confinement
) -> None:
    one, daemon = await left_behind(spawner, uid, confinement)
    other, another = await left_behind(spawner, uid, confinement)
    roots = [root_of(one, "one"), root_of(other, "other")]
    procs = Census().take()
    assert procs[daemon].ppid == spawner.pid
    found = Orphans().of(procs, spawner.pid, roots)
    usages = proctree.trees(procs, roots, found)
    assert (usages["one"].processes, usages["other"].processes) == (2, 2)
    index = Index(procs, found)
    assert [index.members(root) for root in roots] == [{one.pid, daemon}, {other.pid, another}]
    for job in (one, other):
        job.close_fds()
        await job.kill_all()


async def test_what_a_process_carries_is_read_once(
    spawner: Spawner, uid: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, daemon = await left_behind(spawner, uid, Confinement())
    asked: list[int] = []

    def variable(pid: int, name: str) -> str | None:
        asked.append(pid)
        return proctree.variable(pid, name)

    monkeypatch.setattr(orphans, "variable", variable)
    seen, roots = Orphans(), [root_of(job, "a")]
    looks = [seen.of(Census().take(), spawner.pid, roots) for _ in range(3)]
    assert looks == [{daemon: job.id}] * 3
    assert (asked.count(daemon), asked.count(job.pid)) == (1, 0)
    job.close_fds()
    await job.kill_all()
    assert seen.of(Census().take(), spawner.pid, []) == {}


async def test_daemons_of_a_server_are_in_its_sample_whoever_it_runs_as(yard: Yard) -> None:
    runner = await yard.running(LEAVING)
    sampler = Sampler(yard.supervisor, 0.1)
    for _ in range(DAEMONS):
        member = await runner.call("tools/call", b'{"name":"leave","arguments":{}}', timeout_s=20)
        assert int(json.loads(b"{%b}" % member)["result"]["content"][0]["text"])
    await sampler.sample()
    await trio.to_thread.run_sync(burn, 0.5)
    await sampler.sample()
    sample = runner.last_sample
    assert sample is not None
    assert sample.processes == 1 + DAEMONS
    assert sample.memory_mb > DAEMONS * HELD_MIB * 0.9
    assert sample.cpu_percent > 20
    runner.want_stopped()
    await until(lambda: runner.pid is None, "its end")


def burn(seconds: float) -> None:
    """Use that much processor time."""
    began = os.times().user
    while os.times().user - began < seconds:
        pass
