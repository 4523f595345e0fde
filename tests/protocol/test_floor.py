"""Who may run calls that ask, and who gives way to whom."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from attrs import define, field

from controlplane.protocol.floor import FADE_S, GHOST_S, GHOSTS_MAX, REST_S, YIELD_AFTER_S, Floor, Turn

if TYPE_CHECKING:
    from trio.testing import MockClock

FIRST, SECOND, THIRD = "first", "second", "third"


@define(eq=False)
class Hall:
    """A floor, and those who asked for it: what each was told."""

    nursery: trio.Nursery
    floor: Floor = field(factory=Floor)
    turns: list[tuple[str, Turn]] = field(factory=list)

    async def ask(self, asker: str, deadline: float = inf, *, can_leave: bool = False) -> trio.CancelScope:
        scope = trio.CancelScope()

        async def take() -> None:
            with scope:
                turn = await self.floor.take(asker, deadline, can_leave=can_leave)
                self.turns.append((asker, turn))

        self.nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        return scope

    async def told(self) -> list[tuple[str, Turn]]:
        """What they were told since; at the same time means in any order."""
        await trio.testing.wait_all_tasks_blocked()
        turns, self.turns = self.turns, []
        return sorted(turns, key=lambda told: (told[0], told[1].value))


@pytest.fixture
def hall(nursery: trio.Nursery) -> Hall:
    return Hall(nursery)


async def test_one_asker_has_it_and_the_next_gets_it_after_all_of_its_calls(hall: Hall) -> None:
    await hall.ask(FIRST)
    await hall.ask(FIRST)
    await hall.ask(SECOND)
    await hall.ask(SECOND)
    assert await hall.told() == [(FIRST, Turn.GRANTED), (FIRST, Turn.GRANTED)]

    hall.floor.release(FIRST)
    assert await hall.told() == []
    hall.floor.release(FIRST)
    assert await hall.told() == [(SECOND, Turn.GRANTED), (SECOND, Turn.GRANTED)]


async def test_an_asker_does_not_keep_it_from_one_who_waits(hall: Hall) -> None:
    for asker in (FIRST, SECOND, FIRST):
        await hall.ask(asker)
    assert await hall.told() == [(FIRST, Turn.GRANTED)]

    hall.floor.release(FIRST)
    assert await hall.told() == [(SECOND, Turn.GRANTED)]
    hall.floor.release(SECOND)
    assert await hall.told() == [(FIRST, Turn.GRANTED)]


async def test_who_does_not_get_it_in_time_or_leaves_is_not_in_the_way(hall: Hall, autojump_clock: MockClock) -> None:
    await hall.ask(FIRST)
    await hall.ask(SECOND, trio.current_time() + 1)
    left = await hall.ask(SECOND)
    await hall.ask(THIRD)
    left.cancel()
    await trio.sleep(2)
    assert await hall.told() == [(FIRST, Turn.GRANTED), (SECOND, Turn.LATE)]

    hall.floor.release(FIRST)
    assert await hall.told() == [(THIRD, Turn.GRANTED)]


async def test_one_that_waits_for_its_client_gives_way_to_all_after_a_while(
    hall: Hall, autojump_clock: MockClock
) -> None:
    await hall.ask(FIRST)
    await hall.ask(SECOND)
    await hall.ask(THIRD, can_leave=True)
    hall.floor.waits(for_client=True)
    hall.floor.tick(trio.current_time())
    assert await hall.told() == [(FIRST, Turn.GRANTED)]

    await trio.sleep(YIELD_AFTER_S)
    hall.floor.tick(trio.current_time())
    assert await hall.told() == [(SECOND, Turn.GRANTED), (THIRD, Turn.ELSEWHERE)]
    await hall.ask(SECOND)
    await hall.ask(THIRD, can_leave=True)
    assert await hall.told() == [(SECOND, Turn.GRANTED), (THIRD, Turn.ELSEWHERE)]


async def test_beside_one_that_waits_for_its_client_there_is_one_other_at_a_time(
    hall: Hall, autojump_clock: MockClock
) -> None:
    for asker in (FIRST, SECOND, THIRD):
        await hall.ask(asker)
    hall.floor.waits(for_client=True)
    await trio.sleep(YIELD_AFTER_S)
    hall.floor.tick(trio.current_time())
    assert await hall.told() == [(FIRST, Turn.GRANTED), (SECOND, Turn.GRANTED)]

    hall.floor.release(SECOND)
    hall.floor.tick(trio.current_time())
    assert await hall.told() == [(THIRD, Turn.GRANTED)]


async def test_with_its_clients_answer_the_floor_is_one_askers_again_as_soon_as_the_others_are_done(
    hall: Hall, autojump_clock: MockClock
) -> None:
    await hall.ask(FIRST)
    hall.floor.waits(for_client=True)
    await trio.sleep(YIELD_AFTER_S)
    await hall.ask(SECOND)
    hall.floor.waits(for_client=False)
    await hall.ask(THIRD)
    assert await hall.told() == [(FIRST, Turn.GRANTED), (SECOND, Turn.GRANTED)]

    hall.floor.release(FIRST)
    assert await hall.told() == []
    hall.floor.release(SECOND)
    assert await hall.told() == [(THIRD, Turn.GRANTED)]


async def test_a_call_that_was_given_up_is_remembered_for_a_while(hall: Hall, autojump_clock: MockClock) -> None:
    await hall.ask(FIRST)
    await hall.ask(SECOND)
    hall.floor.release(FIRST, ghost=1)
    assert hall.floor.ghosts(trio.current_time()) == {FIRST}

    assert hall.floor.ghosts(trio.current_time() + GHOST_S) == set()


async def test_after_a_call_that_was_given_up_the_floor_rests_but_not_for_ever(
    hall: Hall, autojump_clock: MockClock
) -> None:
    for asker in (FIRST, SECOND):
        await hall.ask(asker)
    hall.floor.release(FIRST, ghost=1)
    assert await hall.told() == [(FIRST, Turn.GRANTED)]
    assert hall.floor.needs_clock
    assert not hall.floor.is_haunted(trio.current_time())

    await trio.sleep(REST_S)
    assert hall.floor.is_haunted(trio.current_time())
    hall.floor.tick(trio.current_time())

    assert await hall.told() == [(SECOND, Turn.GRANTED)]
    assert hall.floor.ghosts(trio.current_time()) == {FIRST}
    assert not hall.floor.needs_clock


async def test_its_own_asker_may_go_on_at_once_after_a_call_that_was_given_up(hall: Hall) -> None:
    await hall.ask(FIRST)
    hall.floor.release(FIRST, ghost=1)
    await hall.ask(FIRST)
    assert await hall.told() == [(FIRST, Turn.GRANTED), (FIRST, Turn.GRANTED)]


async def test_the_floor_rests_a_moment_longer_than_it_takes_the_server_to_know(
    hall: Hall, autojump_clock: MockClock
) -> None:
    for asker in (FIRST, SECOND):
        await hall.ask(asker)
    hall.floor.release(FIRST, ghost=1)
    hall.floor.fade(1)
    hall.floor.tick(trio.current_time())
    assert await hall.told() == [(FIRST, Turn.GRANTED)]

    await trio.sleep(FADE_S)
    hall.floor.tick(trio.current_time())

    assert await hall.told() == [(SECOND, Turn.GRANTED)]
    assert hall.floor.ghosts(trio.current_time()) == set()


async def test_a_call_that_was_given_up_is_over_when_it_is_answered_nevertheless(hall: Hall) -> None:
    await hall.ask(FIRST)
    hall.floor.release(FIRST, ghost=1)

    await hall.ask(SECOND)
    assert await hall.told() == [(FIRST, Turn.GRANTED)]

    hall.floor.lay(1)
    hall.floor.lay(2)

    assert hall.floor.ghosts(trio.current_time()) == set()
    assert await hall.told() == [(SECOND, Turn.GRANTED)]


async def test_what_was_given_up_is_remembered_within_bounds(hall: Hall) -> None:
    for number in range(GHOSTS_MAX + 5):
        await hall.floor.take(FIRST, inf)
        hall.floor.release(FIRST, ghost=number)
    assert hall.floor.ghosts(trio.current_time()) == {FIRST}

    for number in range(5, GHOSTS_MAX + 5):
        hall.floor.lay(number)

    assert hall.floor.ghosts(trio.current_time()) == set()


async def test_at_the_end_nobody_waits(hall: Hall) -> None:
    for asker in (FIRST, SECOND, THIRD):
        await hall.ask(asker, can_leave=True)

    hall.floor.close()

    assert {turn for _, turn in await hall.told()} == {Turn.GRANTED}
