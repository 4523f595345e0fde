"""Slots: how many there are of each kind, who gets the next, and what those hear who wait."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing
from attrs import define, field

from controlplane.core.queueing import Priority
from controlplane.supervise import scheduler as scheduler_module
from controlplane.supervise.scheduler import (
    MEMORY_LOOK_S,
    StartScheduler,
    StartSlot,
    available_memory_mb,
)

CALL, COMMAND, RESTART, BOOT = Priority
PLENTY, LITTLE = 8000.0, 100.0


@define
class Yard:
    """Some who want slots."""

    scheduler: StartScheduler
    nursery: trio.Nursery
    went: list[str] = field(factory=list)
    told: dict[str, list[str]] = field(factory=dict)
    slots: dict[str, StartSlot] = field(factory=dict)
    stages: dict[str, trio.CancelScope] = field(factory=dict)

    async def come(self, *names: str, priority: Priority = BOOT, build: bool = False) -> None:
        """Each waits for a slot, for the owner that its name begins with; returns once all of them do, or have it."""
        for name in names:
            heard = self.told.setdefault(name, [])
            self.slots[name] = self.scheduler.slot(name.rstrip("0123456789"), priority, heard.append)
            self.nursery.start_soon(self._wait, name, build)
            await trio.testing.wait_all_tasks_blocked()

    async def _wait(self, name: str, build: bool) -> None:
        with trio.CancelScope() as self.stages[name]:
            await (self.slots[name].acquire_build() if build else self.slots[name].acquire())
            self.went.append(name)

    async def release(self, *names: str) -> list[str]:
        """Who gets a slot for it."""
        before = len(self.went)
        for name in names:
            self.slots[name].release()
        await trio.testing.wait_all_tasks_blocked()
        return self.went[before:]


@pytest.fixture
def mock_clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=float("inf"))


@pytest.fixture
async def nursery() -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as opened:
        yield opened
        opened.cancel_scope.cancel()


async def test_there_are_as_many_as_were_asked_for_and_one_more_for_whom_somebody_waits(nursery: trio.Nursery) -> None:
    yard = Yard(StartScheduler(2), nursery)

    await yard.come("ada1", "ada2", "ada3")
    assert yard.went == ["ada1", "ada2"]
    await yard.come("ada4", "ada5", priority=COMMAND)
    assert yard.went == ["ada1", "ada2", "ada4"]
    assert yard.scheduler.waiting == 2

    assert await yard.release("ada4") == ["ada5"]
    assert await yard.release("ada1") == ["ada3"]
    assert await yard.release("ada2", "ada3", "ada5") == []
    assert yard.scheduler.waiting == 0


async def test_a_stream_of_commands_does_not_take_every_place(
    nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    yard = Yard(StartScheduler(1), nursery)
    await yard.come("bob0", "bob1", priority=COMMAND)
    await yard.come("ada1")
    mock_clock.jump(60)
    for number in range(2, 12):
        await yard.come(f"bob{number}", priority=COMMAND)
        await yard.release(f"bob{number - 2}")
        if "ada1" in yard.went:
            return
    raise AssertionError("the boot still waits")


async def test_builds_wait_for_builds_and_starts_go_past_them(nursery: trio.Nursery) -> None:
    yard = Yard(StartScheduler(2, 1), nursery)

    await yard.come("ada1", "ada2")
    for name in ("ada1", "ada2"):  # each finds that it has to build first
        yard.nursery.start_soon(yard.slots[name].acquire_build)
        await trio.testing.wait_all_tasks_blocked()
    assert yard.told["ada2"] == ["waiting for a build slot"]
    await yard.come("bob1", "bob2")
    assert yard.went == ["ada1", "ada2", "bob1", "bob2"]

    yard.nursery.start_soon(yard.slots["ada1"].acquire)  # it is built, and both starts are taken
    await trio.testing.wait_all_tasks_blocked()
    assert yard.slots["ada1"].position == 0
    assert yard.slots["ada2"].position is None


async def test_what_comes_back_from_a_build_goes_before_its_owners_later_ones(nursery: trio.Nursery) -> None:
    yard = Yard(StartScheduler(1, 1), nursery)
    await yard.come("ada1", build=True)
    await yard.come("bob1", "ada2", "ada3")

    yard.nursery.start_soon(yard._wait, "ada1", False)
    await trio.testing.wait_all_tasks_blocked()

    assert await yard.release("bob1") == ["ada1"]


async def test_one_that_is_called_goes_first_and_past_the_bound(nursery: trio.Nursery) -> None:
    yard = Yard(StartScheduler(1), nursery)
    await yard.come("ada1", "ada2", "ada3")

    yard.slots["ada3"].promote(CALL)
    yard.slots["ada3"].promote(RESTART)
    await trio.testing.wait_all_tasks_blocked()

    assert yard.went == ["ada1", "ada3"]


async def test_those_who_wait_hear_how_many_go_before_them_each_time_half_of_them_are_gone(
    nursery: trio.Nursery,
) -> None:
    yard = Yard(StartScheduler(1), nursery)
    names = [f"ada{number}" for number in range(11)]
    await yard.come(*names)
    assert yard.slots["ada10"].position == 9
    for name in names:
        await yard.release(name)

    assert yard.told["ada0"] == []
    assert yard.told["ada1"] == ["waiting for a start slot"]
    assert yard.told["ada10"] == [
        f"waiting for a start slot{words}"
        for words in (" (9 before it)", " (4 before it)", " (2 before it)", " (1 before it)", "")
    ]


async def test_who_gives_up_waiting_or_is_let_in_at_that_moment_leaves_nothing(nursery: trio.Nursery) -> None:
    yard = Yard(StartScheduler(1), nursery)
    await yard.come("ada1", "ada2", "ada3")

    yard.stages["ada2"].cancel()
    await trio.testing.wait_all_tasks_blocked()
    yard.stages["ada3"].cancel()
    yard.slots["ada1"].release()  # which lets the third in, too late
    await trio.testing.wait_all_tasks_blocked()

    await yard.come("ada4")
    assert yard.went == ["ada1", "ada4"]
    assert yard.scheduler.waiting == 0


async def test_must_wait_says_whether_one_would(nursery: trio.Nursery) -> None:
    scheduler = StartScheduler(1)
    yard = Yard(scheduler, nursery)
    assert not scheduler.slot("ada", BOOT).must_wait

    await yard.come("ada1")

    assert scheduler.slot("ada", BOOT).must_wait
    assert not scheduler.slot("ada", CALL).must_wait
    assert not yard.slots["ada1"].must_wait


# -- memory


async def test_while_memory_is_short_they_go_one_by_one(nursery: trio.Nursery) -> None:
    yard = Yard(StartScheduler(4, available_mb=lambda: LITTLE), nursery)

    await yard.come("ada1", "ada2", priority=CALL)

    assert yard.went == ["ada1"]
    assert yard.told["ada2"] == ["waiting for memory"]
    assert yard.scheduler.slot("ada", CALL).must_wait
    assert await yard.release("ada1") == ["ada2"]


async def test_a_build_counts_as_something_that_needs_memory(nursery: trio.Nursery) -> None:
    yard = Yard(StartScheduler(4, available_mb=lambda: LITTLE), nursery)

    await yard.come("ada1", build=True)
    await yard.come("ada2")

    assert yard.went == ["ada1"]


async def test_once_there_is_memory_again_they_go_on_by_themselves(
    nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    available = [LITTLE]
    looks: list[float] = []

    def look() -> float:
        looks.append(trio.current_time())
        return available[0]

    yard = Yard(StartScheduler(4, available_mb=look), nursery)
    await yard.come("ada1", "ada2", "ada3")
    looks.clear()
    for _ in range(10):
        mock_clock.jump(MEMORY_LOOK_S)
        await trio.testing.wait_all_tasks_blocked()
    assert yard.went == ["ada1"]
    assert len(looks) <= 20, "one of them looks for all"

    yard.stages["ada2"].cancel()  # the one that looked
    await trio.testing.wait_all_tasks_blocked()
    available[0] = PLENTY
    mock_clock.jump(MEMORY_LOOK_S)
    await trio.testing.wait_all_tasks_blocked()

    assert yard.went == ["ada1", "ada3"]


def test_the_kernel_says_how_much_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < available_memory_mb() < 1e9
    for words in ("", "MemAvailable:\n", "MemAvailable: many kB\n"):
        odd = tmp_path / "meminfo"
        odd.write_text(f"MemTotal: 8 kB\n{words}")
        monkeypatch.setattr(scheduler_module, "MEMINFO", odd)
        assert available_memory_mb() == float("inf")
    odd.write_text("MemTotal: 8 kB\nMemAvailable:   2048 kB\n")
    assert available_memory_mb() == 2.0
