"""What groups tell is read as seldom as will do: of what is near a limit, of what is new, and of each in its turn."""

from __future__ import annotations

from attrs import define, field

from controlplane.spawn.cgroups import CpuCount, GroupEvents, GroupLimits
from controlplane.spawn.proctree import Root
from controlplane.supervise.footprint import Wanted
from controlplane.supervise.groupevents import EVERY_S, NEAR, EventsOfGroups

LIMIT_BYTES = 1000
HELD = {"a": "a.1", "b": "b.1", "gone": "gone.1"}


@define
class Groups:
    """Which of them were read."""

    read: list[str] = field(factory=list)

    def events(self, name: str, /) -> GroupEvents | None:
        self.read.append(name)
        return None if name == "gone.1" else GroupEvents(0, 1)

    def cpu_count(self, _name: str, /) -> CpuCount | None:
        return None

    def make(self, _name: str, _limits: GroupLimits, /) -> None:
        raise AssertionError


def wanted(key: str, pid: int) -> Wanted:
    return Wanted(key, (Root(key, pid, 1),), "/", 100, LIMIT_BYTES, 1000)


def test_a_group_is_read_when_it_is_near_its_limit_when_its_process_is_new_and_in_its_turn() -> None:
    groups, looks = Groups(), EventsOfGroups()
    near = int(NEAR * LIMIT_BYTES)

    def read(now: float, pid: int = 7, **memory_bytes: int) -> list[str]:
        groups.read.clear()
        fleet = [wanted("a", pid), wanted("b", 8), wanted("gone", 9), wanted("bare", 10)]
        found = looks.look(groups, HELD, fleet, memory_bytes, now)
        assert [HELD[key] for key in found] == [name for name in groups.read if name != "gone.1"]
        return list(groups.read)

    assert read(0.0) == ["a.1", "b.1", "gone.1"]
    assert read(1.0) == []
    assert read(2.0, a=near - 1, b=near) == ["b.1"]
    assert read(3.0, pid=11) == ["a.1"]
    assert read(EVERY_S, pid=11) == ["gone.1"]
    assert read(2.0 + EVERY_S, pid=11) == ["b.1"]
    assert read(3.0 + EVERY_S, pid=11) == ["a.1"]


def test_without_groups_nothing_is_read() -> None:
    assert EventsOfGroups().look(None, HELD, [wanted("a", 7)], {}, 0.0) == {}
