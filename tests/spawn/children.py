"""Child programs for the spawner's tests, and how to watch them.

Each program has a ceiling of its own (`LIFE_S`, and RLIMIT_NPROC where it
forks), so that a failed test leaves nothing for long.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from controlplane.spawn import proctree
from controlplane.spawn.client import Job, JobSpec, Spawner

LIFE_S = 40
"""After this every child program ends by itself."""
PATH = "/usr/local/bin:/usr/bin:/bin"


def _others_may_run(program: str) -> bool:
    path = Path(program).resolve()
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))


def find_python() -> str:
    """A Python that any user may run; the one of the tests may be in somebody's home."""
    found = (shutil.which(name, path=PATH) for name in ("python3", "python3.13", "python3.12", "python3.11"))
    return next(filter(_others_may_run, filter(None, (*found, sys.executable))), sys.executable)


PYTHON = find_python()

HOSTILE = f"""
import json, os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pids = [os.getpid()]
r, w = os.pipe()
def child(body):
    pid = os.fork()
    if pid == 0:
        body(); time.sleep({LIFE_S}); os._exit(0)
    pids.append(pid)
def daemon():
    os.setsid()
    if os.fork() == 0:
        os.write(w, b"%d\\n" % os.getpid())
        os.closerange(0, 10)
        os.execve("/bin/sleep", ["sleep", "{LIFE_S}"], {{}})
    os._exit(0)
child(lambda: None)
child(os.setsid)
child(daemon); os.waitpid(pids.pop(), 0)
pids.append(int(os.read(r, 20)))
print(json.dumps(pids), flush=True)
time.sleep({LIFE_S})
"""
"""Ignores SIGTERM; has a child, a child in a session of its own, and a daemon, forked twice, with no environment."""

DAEMON_WITH_MARKER = f"""
import os, time
r, w = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(w, b"%d" % os.getpid()); time.sleep({LIFE_S})
    os._exit(0)
os.wait()
print(int(os.read(r, 20)), flush=True)
time.sleep({LIFE_S})
"""

FORK_STORM = """
import os, time
end = time.time() + 15
print("storm", flush=True)
while time.time() < end:
    try:
        if os.fork() == 0 and os.getpid() % 2:
            os.setsid()
    except OSError:
        time.sleep(0.01)
"""
STORM_PROCESSES = 250


async def start(spawner: Spawner, *argv: str, uid: int | None = None, **options: Any) -> Job:
    """Start a job with the little environment that a test needs."""
    options.setdefault("env", {"PATH": PATH})
    return await spawner.spawn(JobSpec(argv=argv, uid=uid, cwd=options.pop("cwd", "/"), **options))


async def start_python(spawner: Spawner, program: str, *arguments: str, uid: int | None = None, **options: Any) -> Job:
    return await start(spawner, PYTHON, "-c", program, *arguments, uid=uid, **options)


async def read_line(fd: int) -> str:
    """One line from a job's output."""
    data = bytearray()
    with trio.fail_after(20):
        while not data.endswith(b"\n"):
            try:
                byte = os.read(fd, 1)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(fd)
                continue
            assert byte, f"end of file after {bytes(data)!r}"
            data += byte
    return data.decode().rstrip("\n")


async def read_all(fd: int) -> str:
    """A job's output to its end."""
    data = bytearray()
    with trio.fail_after(20):
        while True:
            try:
                part = os.read(fd, 65536)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(fd)
                continue
            if not part:
                return data.decode()
            data += part


async def output_of(spawner: Spawner, *argv: str, uid: int | None = None, **options: Any) -> str:
    """Run a job to its end; its standard output."""
    job = await start(spawner, *argv, uid=uid, **options)
    output, errors = await read_all(job.stdout_fd), await read_all(job.stderr_fd)
    with trio.fail_after(20):
        end = await job.wait()
    await job.kill_all()
    job.close_fds()
    assert end.code == 0, errors
    return output


async def pids_of(job: Job) -> list[int]:
    return list(json.loads(await read_line(job.stdout_fd)))


async def until(condition: Callable[[], object], timeout_s: float = 10) -> None:
    """Poll, bounded: what is waited for is told by no event of ours."""
    with trio.fail_after(timeout_s):
        while not condition():
            await trio.sleep(0.005)


def names_of(pids: list[int]) -> list[tuple[int, int]]:
    """Pids with their start times, so that a reused pid is not taken for the old one."""
    found = [(pid, proctree.look(pid)) for pid in pids]
    return [(pid, proc.start_ticks) for pid, proc in found if proc is not None]


def left_of(names: list[tuple[int, int]]) -> list[int]:
    """Those that are still in the process table, zombies included."""
    found = [(pid, start, proctree.look(pid)) for pid, start in names]
    return [pid for pid, start, proc in found if proc is not None and proc.start_ticks == start]


def live_of(names: list[tuple[int, int]]) -> list[int]:
    return [pid for pid in left_of(names) if (proc := proctree.look(pid)) is not None and proc.is_live]


def zombies_of(parent: int) -> list[int]:
    return [pid for pid, proc in proctree.scan().items() if proc.ppid == parent and not proc.is_live]
