"""The table of calls in flight: each ends exactly once, whatever comes first."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from attrs import define, field

from controlplane.errors import CallTimeout, CorralError, InstanceCrashed
from controlplane.protocol.pending import (
    CALLER_GONE,
    INBOX_MAX_BYTES,
    PATIENCE_S,
    TIMED_OUT,
    Asked,
    Call,
    Pending,
    Told,
)


@define
class Table:
    """A table, what it said of calls that ended unanswered, and how each call ended."""

    told: list[tuple[int, str]] = field(factory=list)
    ended: dict[int, Any] = field(factory=dict)
    pending: Pending = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.pending = Pending(lambda call, why: self.told.append((call.wire_id, why)))

    def add(self, wire_id: int, *, timeout_s: float = 10.0, **options: Any) -> Call:
        now = trio.current_time()
        call = Call("m", now, now + timeout_s, wire_id=wire_id, **options)
        self.pending.add(call)
        return call

    async def wait(self, call: Call) -> None:
        try:
            self.ended[call.wire_id] = await self.pending.wait(call)
        except CorralError as error:
            self.ended[call.wire_id] = error


@pytest.fixture
def table() -> Table:
    return Table()


async def test_each_call_gets_the_answer_with_its_id_in_any_order(table: Table, nursery: trio.Nursery) -> None:
    for wire_id in (17, 18, 19):
        nursery.start_soon(table.wait, table.add(wire_id))
    await trio.testing.wait_all_tasks_blocked()

    for wire_id in (18, 19, 17):
        call = table.pending.pop(wire_id)
        assert call is not None
        call.settle(b"%d" % wire_id)
    await trio.testing.wait_all_tasks_blocked()

    assert table.ended == {17: b"17", 18: b"18", 19: b"19"}
    assert (len(table.pending), table.told, table.pending.late) == (0, [], 0)


async def test_an_answer_may_come_before_anybody_waits(table: Table) -> None:
    call = table.add(17)
    call.settle(b"at once")

    await table.wait(call)

    assert table.ended == {17: b"at once"}


async def test_an_answer_to_nobody_is_counted(table: Table) -> None:
    assert table.pending.pop(99) is None
    assert table.pending.late == 1


async def test_what_a_slow_caller_is_told_is_bounded_in_bytes_and_what_it_is_asked_is_not_dropped(table: Table) -> None:
    call = table.add(17)
    for told in (Told("large", b"x" * INBOX_MAX_BYTES), Told("small", b"x"), Told("empty", None)):
        call.hear(told)
    call.hear(Asked(b"1", "roots/list", b"{}"))
    said = [(await table.pending.next(call)).method for _ in range(3)]  # type: ignore[union-attr]
    assert (said, call.dropped) == (["large", "empty", "roots/list"], 1)

    call.hear(Told("small", b"x"))
    assert await table.pending.next(call) == Told("small", b"x")


async def test_the_oldest_call_is_first(table: Table) -> None:
    assert table.pending.first() is None
    calls = [table.add(wire_id) for wire_id in (20, 17, 18)]

    assert table.pending.first() is calls[0]
    table.pending.pop(20)
    assert table.pending.first() is calls[1]
    assert [call.wire_id for call in table.pending] == [17, 18]
    assert table.pending.get(18) is calls[2]
    assert table.pending.get(20) is None


async def test_a_call_times_out_at_its_limit_and_not_before(
    table: Table, nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    nursery.start_soon(table.wait, table.add(17, timeout_s=2.5))
    nursery.start_soon(table.wait, table.add(18, timeout_s=5))
    await trio.testing.wait_all_tasks_blocked()
    began = trio.current_time()

    table.pending.expire(began + 2.49)
    assert len(table.pending) == 2
    table.pending.expire(began + 2.5)
    await trio.testing.wait_all_tasks_blocked()

    assert isinstance(table.ended[17], CallTimeout)
    assert str(table.ended[17]) == "no answer to m within 2.5 s"
    assert table.told == [(17, TIMED_OUT)]
    assert [call.wire_id for call in table.pending] == [18]
    table.pending.fail_all(lambda _: InstanceCrashed("over"))


async def test_a_caller_that_went_away_is_noticed_after_a_moment(
    table: Table, nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    asked: list[str] = []
    gone = False

    def is_gone() -> bool:
        asked.append("asked")
        return gone

    nursery.start_soon(table.wait, table.add(17, is_gone=is_gone))
    await trio.testing.wait_all_tasks_blocked()
    began = trio.current_time()
    table.pending.expire(began + PATIENCE_S)
    assert asked == []
    table.pending.expire(began + PATIENCE_S + 0.05)
    assert asked == ["asked"]
    assert len(table.pending) == 1

    gone = True
    table.pending.expire(began + PATIENCE_S + 0.1)
    await trio.testing.wait_all_tasks_blocked()

    assert isinstance(table.ended[17], CallTimeout)
    assert table.told == [(17, CALLER_GONE)]
    assert len(table.pending) == 0


async def test_a_cancelled_caller_gives_its_place_up_and_the_server_is_told(table: Table) -> None:
    call = table.add(17)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(table.wait, call)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert table.told == [(17, CALLER_GONE)]
    assert len(table.pending) == 0
    assert table.pending.pop(17) is None


async def test_a_caller_that_is_cancelled_before_it_waits_gives_its_place_up_too(table: Table) -> None:
    call = table.add(17)
    with trio.CancelScope() as scope:
        scope.cancel()
        await table.wait(call)

    assert table.told == [(17, CALLER_GONE)]
    assert len(table.pending) == 0


async def test_an_answer_wins_over_a_cancellation_that_comes_after_it(table: Table) -> None:
    call = table.add(17)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(table.wait, call)
        await trio.testing.wait_all_tasks_blocked()
        popped = table.pending.pop(17)
        assert popped is not None
        popped.settle(b"in time")
        nursery.cancel_scope.cancel()

    assert table.ended == {17: b"in time"}
    assert table.told == []


async def test_when_the_session_is_over_every_call_fails_at_once(table: Table, nursery: trio.Nursery) -> None:
    for wire_id in (17, 18):
        nursery.start_soon(table.wait, table.add(wire_id))
    await trio.testing.wait_all_tasks_blocked()

    table.pending.fail_all(lambda call: InstanceCrashed(f"call {call.wire_id} is lost"))
    await trio.testing.wait_all_tasks_blocked()

    assert {wire_id: str(error) for wire_id, error in table.ended.items()} == {
        17: "call 17 is lost",
        18: "call 18 is lost",
    }
    assert (len(table.pending), table.told) == (0, [])


# -- servers that answer in order


async def test_where_answers_come_in_order_a_deserted_call_keeps_its_place(
    table: Table, nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    table.pending.in_order = True
    gone = table.add(17, is_gone=lambda: True)
    nursery.start_soon(table.wait, gone)
    await trio.testing.wait_all_tasks_blocked()
    table.pending.expire(trio.current_time() + PATIENCE_S + 0.1)
    await trio.testing.wait_all_tasks_blocked()
    with trio.CancelScope() as scope:
        scope.cancel()
        await table.wait(table.add(18))

    assert isinstance(table.ended[17], CallTimeout)
    assert table.told == []
    assert [call.wire_id for call in table.pending] == [17, 18]
    for wire_id in (17, 18):
        call = table.pending.pop(wire_id)
        assert call is not None
        call.settle(b"to nobody")
    assert isinstance(table.ended[17], CallTimeout)


async def test_an_answer_that_is_owed_too_long_is_a_timeout_all_the_same(table: Table) -> None:
    table.pending.in_order = True
    table.pending.owe(17, until=trio.current_time() + 5)

    table.pending.expire(trio.current_time() + 5)

    assert table.told == [(17, TIMED_OUT)]
    assert len(table.pending) == 0
