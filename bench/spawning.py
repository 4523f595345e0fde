"""`python -m bench.spawning PROGRAM FOLDER COUNT`: from the request to a running process, through Corral's spawner.

A process of its own, because it is a control plane's part: Trio, one spawner, jobs confined as instances are, at each
level that this host can give. In each round, the same program started by `subprocess` with nothing around it, and every
level in turn, so that what disturbs the machine disturbs all alike. Prints one line of JSON, in milliseconds.

"Runs" is when the program itself has said something: a spawner, or bubblewrap, may have come back before that.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter

import trio
from attrs import evolve

from controlplane.spawn.client import JobSpec, Spawner, open_spawner
from controlplane.spawn.confinement import GATED_NETWORK, HOST_NETWORK, NO_NETWORK, Bind, Confinement, Group
from controlplane.spawn.uids import UidPool, open_uid_pool

RLIMITS = {"NOFILE": 1024, "FSIZE": 2 * 2**30, "DATA": 2**30}
PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n'
"""Any line does: the server answers each."""
GROUP = Group("bench", memory_bytes=2**30, cpu_percent=80, processes=256)
KINDS = {
    "process": Confinement(),
    "confined": Confinement("confined", network=HOST_NETWORK),
    "namespaced": Confinement("namespaced", network=NO_NETWORK),
    "gated": Confinement("namespaced", network=GATED_NETWORK),
}
"""By row of the table; `gated` is what `namespaced` is by default: out through the egress process only."""
ANSWER_LIMIT_S = 10.0


async def main(program: str, folder: Path, count: int) -> None:
    """Start again and again, one process at a time."""
    with open_uid_pool() as uids:
        async with open_spawner(marker=f"bench-{os.getpid()}", uids=uids) as spawner:
            spawner.gatekeeper = Gates()
            specs = _specs(program, folder, spawner, uids)
            took: dict[str, list[float]] = {name: [] for name in ("plain", *specs)}
            for _ in range(count):
                took["plain"].append(await _timed(lambda: _plain(program)))
                for name, spec in specs.items():
                    took[name].append(await _timed(lambda spec=spec: _job(spawner, spec)))
    print(json.dumps(took))


class Gates:
    """Keeps the gate of jobs that nobody lets out: what starting costs is the job's own side of it."""

    def __init__(self) -> None:
        self._ends: dict[str, socket.socket] = {}

    def admit(self, key: str, _gate: object, /) -> int:
        self._ends[key], theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return theirs.detach()

    def drop(self, key: str, /) -> None:
        if key in self._ends:
            self._ends.pop(key).close()


def _specs(program: str, folder: Path, spawner: Spawner, uids: UidPool) -> dict[str, JobSpec]:
    """One job for each level that is there; in a control group, where there is one, as instances are."""
    uid = uids.claim(None)
    work, tmp = folder / "work", folder / "tmp"
    for made in (work, tmp):
        made.mkdir()
        if uid is not None:
            os.chown(made, uid, uid)
    binds = (Bind(str(work), str(work), writable=True), Bind(program, program))
    plain = JobSpec(
        argv=(program,),
        env={"PATH": os.defpath},
        cwd=str(work),
        uid=uid,
        rlimits=RLIMITS,
        private_tmp=str(tmp) if spawner.features.private_tmp else None,
    )
    group = GROUP if spawner.features.hierarchy is not None else None
    return {
        name: evolve(plain, confinement=how._replace(binds=() if name == "process" else binds, group=group))
        for name, how in KINDS.items()
        if spawner.features.can_give(how.level)
    }


async def _timed(start: Callable[[], Awaitable[Callable[[], Awaitable[None]]]]) -> float:
    """From the request to the program's first answer; milliseconds. What was started is ended after that."""
    began = perf_counter()
    end = await start()
    took = perf_counter() - began
    await end()
    return took * 1000


async def _job(spawner: Spawner, spec: JobSpec) -> Callable[[], Awaitable[None]]:
    job = await spawner.spawn(spec)
    await _answer(job.stdin_fd, job.stdout_fd)

    async def end() -> None:
        await job.kill_all()
        job.close_fds()

    return end


async def _plain(program: str) -> Callable[[], Awaitable[None]]:
    child = subprocess.Popen(
        [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/", env={}
    )
    assert child.stdin is not None
    assert child.stdout is not None
    await _answer(child.stdin.fileno(), child.stdout.fileno())

    async def end() -> None:
        child.kill()
        child.communicate()

    return end


async def _answer(stdin: int, stdout: int) -> None:
    os.write(stdin, PING)
    with trio.fail_after(ANSWER_LIMIT_S):
        await trio.lowlevel.wait_readable(stdout)
    if not os.read(stdout, 4096):
        raise SystemExit("the program ended without an answer")


if __name__ == "__main__":
    trio.run(main, sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
