"""Whose the processes are that have left their session and lost their parents, as far as they carry it.

A daemon that forks twice ends up a child of the spawner, in a session that nobody knows. What
every job's processes have in their environment (`CORRAL_JOB`) tells whose it is. One that
has cleared its environment is a stray, which the spawner kills.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from attrs import define, field

from controlplane.spawn.messages import JOB_VARIABLE
from controlplane.spawn.proctree import variable

if TYPE_CHECKING:
    from controlplane.spawn.proctree import Proc, Root


@define(eq=False)
class Orphans:
    """What each carries, read once of each: some 30 µs. Blocks: for one worker thread at a time."""

    _known: dict[tuple[int, int], str] = field(factory=dict, init=False)
    """By pid and start time. What could not be read is not kept: it may be about to become its program."""

    def of(self, procs: Mapping[int, Proc], reaper: int | None, roots: Iterable[Root]) -> dict[int, str]:
        """The markers of the spawner's live children that are nobody's leader, by pid.

        Args:
            procs: Those of one pass.
            reaper: The spawner's pid; None while there is none.
            roots: The leaders, which need not be asked.
        """
        leaders = {root.pid for root in roots}
        found: dict[tuple[int, int], str] = {}
        for pid, proc in procs.items():
            if proc.ppid != reaper or pid in leaders or not proc.is_live:
                continue
            one = (pid, proc.start_ticks)
            marker = self._known.get(one) or variable(pid, JOB_VARIABLE)
            if marker:
                found[one] = marker
        self._known = found
        return {pid: marker for (pid, _start), marker in found.items()}
