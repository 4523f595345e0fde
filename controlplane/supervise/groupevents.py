"""When to read what a control group tells beside its CPU time: its kills for want of memory, and its processes.

With every pass near the memory limit, else every few seconds; a process that is new is looked at at once, since what
its group has counted before is none of its doing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from attrs import define, field

if TYPE_CHECKING:
    from controlplane.spawn.cgroups import GroupEvents
    from controlplane.supervise.footprint import Wanted
    from controlplane.supervise.watchdog import Groups

EVERY_S = 5.0
"""The files of a control group that is near no limit are read this often."""
NEAR = 0.7
"""Share of the memory limit from which they are read with every pass."""


@define(eq=False)
class EventsOfGroups:
    """Of all instances, by key."""

    _read: dict[str, tuple[int, float]] = field(factory=dict, init=False)
    """The process in charge when each was read last, and when that was."""

    def look(
        self,
        groups: Groups | None,
        names: Mapping[str, str],
        wanted: Iterable[Wanted],
        memory_bytes: Mapping[str, int],
        now: float,
    ) -> dict[str, GroupEvents]:
        """What is read in this pass. Blocks for some 50 µs each: for a worker thread.

        Args:
            groups: Who can read them; None: there are none.
            names: Of the groups, by key.
            wanted: Every instance that runs.
            memory_bytes: What each uses.
            now: Trio time.
        """
        if groups is None:
            return {}
        before, self._read = self._read, {}
        found = {}
        for one in wanted:
            key, pid = one.key, one.roots[0].pid
            pid_before, at = before.get(key, (0, 0.0))
            is_near = memory_bytes.get(key, 0) >= NEAR * one.memory_bytes
            if key not in names or (pid == pid_before and not is_near and now - at < EVERY_S):
                self._read[key] = (pid_before, at)
                continue
            self._read[key] = (pid, now)
            events = groups.events(names[key])
            if events is not None:
                found[key] = events
        return found
