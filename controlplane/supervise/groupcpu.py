"""The CPU time of instances as their control groups count it: of every process, however short its life was.

What /proc shows has lost a process that began and ended between two looks, and that nobody waited for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from attrs import define, field, frozen

if TYPE_CHECKING:
    from controlplane.spawn.cgroups import CpuCount
    from controlplane.supervise.watchdog import Groups

US_PER_S = 1_000_000


@frozen
class Seen:
    """What the counter of one instance's group said last."""

    group: str
    count: CpuCount


def used_us(last: Seen | None, now: Seen) -> int:
    """What has come since; all of it where the group is another, which began at nothing."""
    is_same = last is not None and last.group == now.group and last.count.identity == now.count.identity
    before = last.count.used_us if last is not None and is_same else 0
    return max(0, now.count.used_us - before)


@define(eq=False)
class GroupCpu:
    """Of all instances, by key."""

    _seen: dict[str, Seen] = field(factory=dict, init=False)

    def keep(self, keys: Iterable[str]) -> None:
        """Forget the instances that there are no more; one that stands still may go on in the same group."""
        kept = set(keys)
        self._seen = {key: seen for key, seen in self._seen.items() if key in kept}

    def since(self, groups: Groups | None, names: Mapping[str, str]) -> dict[str, float]:
        """Seconds since the last time of each whose group counts them. Blocks for microseconds each: for a worker thread.

        Args:
            groups: Who can read them; None: there are none.
            names: Of the groups, by key.
        """
        if groups is None:
            return {}
        found = {}
        for key, name in names.items():
            count, last = groups.cpu_count(name), self._seen.get(key)
            if count is not None:
                self._seen[key] = Seen(name, count)
                found[key] = used_us(last, self._seen[key]) / US_PER_S
            elif last is not None and last.group == name:  # it has just gone
                found[key] = 0.0
        return found
