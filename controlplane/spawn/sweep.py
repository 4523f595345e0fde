"""Kill what an earlier life of this control plane left behind, and nothing else.

A process is ours if `CORRAL_OWNER` in its environment is this home's owner id,
or if it is a spawner started for that owner; then whatever descends from it is,
too. Each is named by pid and start time and killed through a pidfd, so that a
reused pid is never signalled. The caller holds the home's lock: there is no
other control plane of the same owner.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from controlplane.spawn import linux
from controlplane.spawn.messages import OWNER_VARIABLE
from controlplane.spawn.proctree import Proc, scan, signal_all, variable

LIMIT_S = 5.0
"""For all of it; what is left then is reported."""
PAUSE_S = 0.01
"""Between two passes, for the killed to end."""
STOP_ROUNDS = 10
"""Rounds of stopping before killing anyway."""
CLEAN_PASSES = 2
"""A fork during a pass can be missed by it."""
SPAWNER = Path(__file__).with_name("spawner.py").name


class LeftOvers(Exception):
    """Processes that could not be killed in time.

    Args:
        pids: Those that are left; not all of them when there are many.
    """

    def __init__(self, pids: list[int]) -> None:
        super().__init__(f"{len(pids)} processes cannot be killed: {', '.join(map(str, pids[:10]))}")
        self.pids = pids


def sweep(marker: str) -> int:
    """Kill every process of an earlier life. Blocks for a few milliseconds when there is none.

    Args:
        marker: The owner id, as in `CORRAL_OWNER`.

    Returns:
        How many processes were killed.

    Raises:
        LeftOvers: some are still there after `LIMIT_S`.
    """
    spared = _ancestors(scan())

    def is_ours(pid: int) -> bool:
        return pid not in spared and (variable(pid, OWNER_VARIABLE) == marker or _is_spawner_of(pid, marker))

    return kill_until_none(lambda procs: with_descendants(procs, filter(is_ours, procs)) - spared)


def kill_until_none(find: Callable[[Mapping[int, Proc]], set[int]], *, limit_s: float = LIMIT_S) -> int:
    """Stop and kill the live processes that `find` names, until it finds none. Blocks.

    They are stopped until no new one appears and then killed, so that a fork
    storm stands still first. Zombies count as gone; reaping is their parent's.

    Raises:
        LeftOvers: some are still there after `limit_s`.
    """
    deadline = time.monotonic() + limit_s
    killed: set[tuple[int, int]] = set()
    clean = 0
    with linux.hurrying():
        while clean < CLEAN_PASSES:
            procs, left = _stand_still(find)
            signal_all(procs, left, signal.SIGKILL)
            killed |= {(pid, procs[pid].start_ticks) for pid in left}
            clean = 0 if left else clean + 1
            if left and time.monotonic() > deadline:
                raise LeftOvers(sorted(left))
            time.sleep(PAUSE_S)
    return len(killed)


def _stand_still(find: Callable[[Mapping[int, Proc]], set[int]]) -> tuple[Mapping[int, Proc], set[int]]:
    """Stop what is found until nothing new is."""
    stopped: set[int] = set()
    for _ in range(STOP_ROUNDS):
        procs = scan()
        left = {pid for pid in find(procs) if procs[pid].is_live}
        if left <= stopped:
            break
        signal_all(procs, left - stopped, signal.SIGSTOP)
        stopped |= left
    return procs, left


def with_descendants(procs: Mapping[int, Proc], pids: Iterable[int]) -> set[int]:
    """Those processes and all below them."""
    below: dict[int, list[int]] = {}
    for pid, proc in procs.items():
        below.setdefault(proc.ppid, []).append(pid)
    found: set[int] = set()
    todo = list(pids)
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo += below.get(pid, ())
    return found


def _ancestors(procs: Mapping[int, Proc]) -> set[int]:
    """This process and those it runs under: Corral may have been started from inside another Corral."""
    found: set[int] = set()
    pid = os.getpid()
    while pid in procs and pid not in found:
        found.add(pid)
        pid = procs[pid].ppid
    return found


def _is_spawner_of(pid: int, marker: str) -> bool:
    """A spawner lets nobody read its environment, but its command line names its owner."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return marker.encode() in words and any(Path(os.fsdecode(word)).name == SPAWNER for word in words)
