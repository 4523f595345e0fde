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
EVERY_S = 5.0
"""A counter is read this often of an instance that seems to rest; a difference loses nothing by being read late."""
RESTS_US = 10_000
"""Between two looks: below this, /proc shows what there is as well as the counter does."""


@frozen
class Seen:
    """What the counter of one instance's group said last."""

    group: str
    count: CpuCount
    ticks: int
    """What /proc showed of the instance's processes then."""
    at: float
    """Trio time."""
    rests: bool
    """Whether it had used next to nothing since the look before."""


def used_us(last: Seen | None, group: str, count: CpuCount) -> int:
    """What has come since; all of it where the group is another, which began at nothing."""
    is_same = last is not None and last.group == group and last.count.identity == count.identity
    before = last.count.used_us if last is not None and is_same else 0
    return max(0, count.used_us - before)


def is_due(last: Seen | None, group: str, ticks: int, now: float) -> bool:
    """Whether the counter is to be read: at once of what works, in its processes or in some that were soon over."""
    if last is None or last.group != group or last.ticks != ticks:
        return True
    return not last.rests or now - last.at >= EVERY_S


@define(eq=False)
class GroupCpu:
    """Of all instances, by key."""

    _seen: dict[str, Seen] = field(factory=dict, init=False)

    def keep(self, keys: Iterable[str]) -> None:
        """Forget the instances that there are no more; one that stands still may go on in the same group."""
        kept = set(keys)
        self._seen = {key: seen for key, seen in self._seen.items() if key in kept}

    def since(
        self, groups: Groups | None, names: Mapping[str, str], ticks: Mapping[str, int], now: float
    ) -> dict[str, float | None]:
        """Seconds since the last time of each whose group counts them; None where it is not read, as it seems to rest.

        Blocks for microseconds each: for a worker thread.

        Args:
            groups: Who can read them; None: there are none.
            names: Of the groups, by key.
            ticks: What /proc shows of each instance's processes.
            now: Trio time.
        """
        if groups is None:
            return {}
        found: dict[str, float | None] = {}
        for key, name in names.items():
            last, shown = self._seen.get(key), ticks.get(key, 0)
            if not is_due(last, name, shown, now):
                found[key] = None
                continue
            count = groups.cpu_count(name)
            if count is not None:
                used = used_us(last, name, count)
                self._seen[key] = Seen(name, count, shown, now, used < RESTS_US)
                found[key] = used / US_PER_S
            elif last is not None and last.group == name:  # it has just gone
                found[key] = 0.0
        return found
