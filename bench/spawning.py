"""`python -m bench.spawning PROGRAM FOLDER COUNT`: from the request to a running process, through Corral's spawner.

A process of its own, because it is a control plane's part: Trio, one spawner, jobs confined as instances are. Beside
each, the same program started by `subprocess` with nothing around it. Prints one line of JSON, in milliseconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import trio

from controlplane.spawn.client import JobSpec, Spawner, open_spawner
from controlplane.spawn.uids import UidPool, open_uid_pool

RLIMITS = {"NOFILE": 1024, "FSIZE": 2 * 2**30, "DATA": 2**30}


async def main(program: str, folder: Path, count: int) -> None:
    """Spawn again and again, one process at a time."""
    through_corral, bare = [], []
    with open_uid_pool() as uids:
        async with open_spawner(marker=f"bench-{os.getpid()}", uids=uids) as spawner:
            spec = _spec(program, folder, spawner, uids)
            for _ in range(count):
                through_corral.append(await _spawn(spawner, spec))
                bare.append(_start(program))
    print(json.dumps({"corral": through_corral, "bare": bare}))


def _spec(program: str, folder: Path, spawner: Spawner, uids: UidPool) -> JobSpec:
    uid = uids.claim(None)
    for name in ("work", "tmp"):
        (folder / name).mkdir()
        if uid is not None:
            os.chown(folder / name, uid, uid)
    return JobSpec(
        argv=(program,),
        env={"PATH": os.defpath},
        cwd=str(folder / "work"),
        uid=uid,
        rlimits=RLIMITS,
        private_tmp=str(folder / "tmp") if spawner.features.private_tmp else None,
    )


async def _spawn(spawner: Spawner, spec: JobSpec) -> float:
    began = perf_counter()
    job = await spawner.spawn(spec)
    took = perf_counter() - began
    await job.kill_all()
    job.close_fds()
    return took * 1000


def _start(program: str) -> float:
    began = perf_counter()
    child = subprocess.Popen(
        [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/", env={}
    )
    took = perf_counter() - began
    child.kill()
    child.communicate()
    return took * 1000


if __name__ == "__main__":
    trio.run(main, sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
