"""After a spawner's own death: kill and reap what it left, which is now the control plane's.

Its jobs' leaders die with it (PR_SET_PDEATHSIG); everything else reparents to
the control plane, a subreaper too. Reaps only those, each by its pid: a
`waitpid(-1)` would take the status of a child that somebody else waits for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress

from controlplane.spawn.messages import JOB_VARIABLE, OWNER_VARIABLE
from controlplane.spawn.proctree import Proc, Root, assign, variable
from controlplane.spawn.sweep import kill_until_none, with_descendants


def bury(marker: str, roots: Iterable[Root], since_ticks: int) -> int:
    """Kill every process that a dead spawner has left, and reap those that became ours. Blocks.

    Args:
        marker: The owner id.
        roots: Its jobs.
        since_ticks: When the spawner started: no process that is older was below it.

    Returns:
        How many processes were killed.

    Raises:
        LeftOvers: some cannot be killed.
    """
    roots = list(roots)

    def left(procs: Mapping[int, Proc]) -> set[int]:
        found = _inherited(procs, marker, roots, since_ticks)
        for pid in found:
            if not procs[pid].is_live and procs[pid].ppid == os.getpid():
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
        return found

    return kill_until_none(left)


def _inherited(procs: Mapping[int, Proc], marker: str, roots: list[Root], since_ticks: int) -> set[int]:
    """Of this process's descendants, those that came from the spawner.

    What carries no marker and is in no job's session is told from a child that
    this process started itself by its session: ours are never given another one.
    """
    me = os.getpid()
    my_session = os.getsid(0)
    members, strays = assign(procs, me, roots, lambda pid: variable(pid, JOB_VARIABLE))
    # An orphan that ended a moment ago shows no environment, and `assign` leaves it out.
    zombies = [pid for pid, proc in procs.items() if proc.ppid == me and not proc.is_live]
    tops = [
        pid
        for pid in (*strays, *zombies)
        if procs[pid].ppid == me
        and procs[pid].start_ticks >= since_ticks
        and (procs[pid].sid != my_session or variable(pid, OWNER_VARIABLE) == marker)
    ]
    return with_descendants(procs, [*tops, *(pid for pids in members.values() for pid in pids)])
