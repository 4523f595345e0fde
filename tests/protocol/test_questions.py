"""Whose question it is that a server asks, and what becomes of it when that one goes."""

from __future__ import annotations

from math import inf

import pytest
from attrs import define, field

from controlplane.protocol.audience import Audience
from controlplane.protocol.pending import Asked, Call, Pending, Told
from controlplane.protocol.questions import HOLD_S, Questions

QUESTION = Asked(b'"q"', "elicitation/create", b"{}")


@define(eq=False)
class Member:
    """A client that can always be asked."""

    asked: list[Asked] = field(factory=list)

    @property
    def asker(self) -> object:
        return self

    def on_asked(self, asked: Asked) -> bool:
        self.asked.append(asked)
        return True

    def on_told(self, method: str, params: bytes | None) -> None: ...
    def on_withdrawn(self, asked_id: bytes, params: bytes | None) -> None: ...
    def on_end(self, reason: str) -> None: ...


@define(eq=False)
class Table:
    """Questions of one conversation, and the calls in flight on it."""

    forgotten: list[bytes] = field(factory=list)
    audience: Audience = field(factory=Audience)
    questions: Questions = field(init=False)
    pending: Pending = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.questions = Questions(self.audience, self.forgotten.append)
        self.pending = Pending(lambda _call, _why: None)

    def begin(self, asker: object, method: str = "tools/call") -> Call:
        call = Call(method, 0.0, inf, asker=asker, hears=True, wire_id=len(self.pending))
        call.on_end = lambda: self.questions.forget_call(call, self.pending)
        self.pending.add(call)
        return call

    def finish(self, call: Call) -> None:
        self.pending.pop(call.wire_id)
        call.settle(b'"result":{}')


@pytest.fixture
def table() -> Table:
    return Table()


def test_a_question_outlives_the_call_that_got_it_while_its_client_has_another_that_may_have_asked(
    table: Table,
) -> None:
    client = object()
    first, second = table.begin(client), table.begin(client)
    assert table.questions.put(QUESTION, table.pending)

    table.finish(first)

    assert first.inbox is not None
    assert [*first.inbox] == [QUESTION]
    assert table.forgotten == []
    assert table.questions.is_open(QUESTION.id)
    table.questions.withdraw(b'{"requestId":"q"}')
    assert second.inbox is not None
    assert [*second.inbox] == [Told("notifications/cancelled", b'{"requestId":"q"}')]


def test_a_question_ends_with_the_last_call_of_its_client_that_may_have_asked(table: Table) -> None:
    client = object()
    first, second, lists = table.begin(client), table.begin(client), table.begin(client, "tools/list")
    assert table.questions.put(QUESTION, table.pending)

    for call in (first, second):
        table.finish(call)

    assert table.forgotten == [QUESTION.id]
    assert not table.questions.take(QUESTION.id)
    assert lists.inbox is None


def test_a_question_is_not_left_to_another_client(table: Table) -> None:
    call = table.begin(object())
    assert table.questions.put(QUESTION, table.pending)
    table.begin(object())

    table.finish(call)

    assert table.forgotten == [QUESTION.id]


def test_a_question_that_two_may_have_asked_is_refused_after_a_while(table: Table) -> None:
    first, second = table.begin(object()), table.begin(object())
    assert table.questions.put(QUESTION, table.pending, (), 0.0)
    assert not table.questions.put(QUESTION, table.pending, (), 0.0)

    table.questions.review(table.pending, (), HOLD_S / 2)
    assert table.forgotten == []
    table.questions.review(table.pending, (), HOLD_S)

    assert table.forgotten == [QUESTION.id]
    assert (first.inbox, second.inbox) == (None, None)


def test_a_question_that_was_withdrawn_meanwhile_is_put_to_nobody(table: Table) -> None:
    first, second = table.begin(object()), table.begin(object())
    assert table.questions.put(QUESTION, table.pending, (), 0.0)

    table.questions.withdraw(b'{"requestId":"q"}')
    table.finish(first)
    table.questions.review(table.pending, (), 1.0)

    assert second.inbox is None
    assert table.forgotten == []


def test_outside_of_calls_a_client_is_asked_unless_somebody_elses_call_was_given_up(table: Table) -> None:
    member = Member()
    table.audience.join(member)

    assert not table.questions.put(QUESTION, table.pending, {"somebody else"}, 0.0)
    assert table.questions.put(QUESTION, table.pending, {member.asker}, 0.0)

    assert member.asked == [QUESTION]
