"""What waits for the other control planes, what is written to them, and how a loss is noticed."""

from __future__ import annotations

import pytest

from controlplane.core.relay import (
    LIVES_MAX,
    OUTBOX_MAX_BYTES,
    OUTBOX_MAX_EVENTS,
    Head,
    Hearing,
    Message,
    Outbox,
    Passing,
    opened,
    read,
    sealed,
    written,
)

BODY = b'{"type":"status","name":"caf\xc3\xa9"}'


def outbox() -> Outbox:
    return Outbox("a", "1")


def everything(box: Outbox) -> list[Message]:
    messages = [box.take(listens=False)]
    while len(box):
        messages.append(box.take(listens=False))
    return messages


def test_a_message_comes_as_it_was_written() -> None:
    box = outbox()
    box.put("alice", BODY, ring=True)
    box.put(None, BODY, ring=False)
    message = box.take(listens=True)

    assert message == Message(Head("a", "1", 1, True), (Passing(1, "alice", BODY), Passing(0, None, BODY)))
    assert read(written(message)) == message


def test_a_sealed_message_opens_with_its_key_as_it_was_and_in_no_other_way() -> None:
    message = sealed(b"moo", b"key")

    assert opened(message, b"key") == b"moo"
    assert opened(message, b"other key") is None
    for position in range(len(message)):
        forged = bytearray(message)
        forged[position] ^= 1
        assert opened(bytes(forged), b"key") is None
    for cut in range(len(message)):
        assert opened(message[:cut], b"key") is None
    assert opened(message + b"\n", b"key") is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"[]",
        b'{"node":"a","life":"1","last":"x","listens":true}',
        b'{"node":"a","life":"1","last":1,"listens":true}\nnonsense',
        b'{"node":"a","life":"1","last":1,"listens":true}\n[1,"alice"]',
        b'{"node":"a","life":"1","last":1,"listens":true}\n[1,"alice"]\t{"type":',
        b'{"node":"a","life":"1","last":1,"listens":true}\n[1,"alice"]\t[]',
        b'{"node":"a","life":"1","last":1,"listens":true}\n[1,"alice"]\t{}\r',
        b'{"node":"a","life":"1","last":1,"listens":true}\n[1,"alice"]\t{}\n',
        b'{"node":"a","life":"1","last":1,"listens":true}\n[1,"alice"]\t{"no":"type"}',
        b'{"node":"a","life":"1","last":1,"listens":true}\n[1,"alice"]\t{"type":"status","instance_id":"x"}',
        b'{"node":"a","life":"1","last":1,"listens":true}\n[1,"alice"]\t{"type":"x","y":'
        + b"[" * 9999
        + b"]" * 9999
        + b"}",
    ],
    ids=range(13),
)
def test_what_is_none_of_ours_is_nothing(data: bytes) -> None:
    assert read(data) is None


def test_nothing_is_missed_while_everything_comes() -> None:
    box, hearing = outbox(), Hearing(settled=True)

    for _ in range(3):
        box.put("alice", BODY, ring=True)
        box.put("alice", BODY, ring=False)
        assert hearing.missed(box.take(listens=False)) == 0
        assert hearing.missed(box.take(listens=False)) == 0


def test_a_message_that_never_came_is_noticed_at_the_next_word() -> None:
    box, hearing = outbox(), Hearing(settled=True)
    box.put("alice", BODY, ring=True)
    hearing.missed(box.take(listens=False))
    for _ in range(3):
        box.put("alice", BODY, ring=True)
    box.take(listens=False)

    assert hearing.missed(box.take(listens=False)) == 3
    assert hearing.missed(box.take(listens=False)) == 0


def test_what_was_told_before_one_came_up_was_not_missed() -> None:
    box = outbox()
    for _ in range(7):
        box.put("alice", BODY, ring=True)
    box.take(listens=False)

    assert Hearing().missed(box.take(listens=False)) == 0
    assert Hearing(settled=True).missed(box.take(listens=False)) == 7


def test_events_of_the_moment_are_not_missed() -> None:
    box, hearing = outbox(), Hearing(settled=True)
    box.put("alice", BODY, ring=False)
    box.take(listens=False)

    assert hearing.missed(box.take(listens=False)) == 0


def test_a_full_outbox_loses_its_oldest_and_the_others_know_how_many() -> None:
    box, hearing = outbox(), Hearing(settled=True)
    for _ in range(OUTBOX_MAX_EVENTS + 100):
        box.put("alice", b"{}", ring=True)

    messages = everything(box)

    assert sum(len(message.events) for message in messages) == OUTBOX_MAX_EVENTS
    assert [hearing.missed(message) for message in messages] == [100] + [0] * (len(messages) - 1)


def test_large_events_are_bounded_by_their_size() -> None:
    box = outbox()
    for _ in range(100):
        box.put("alice", b"x" * (OUTBOX_MAX_BYTES // 10), ring=True)

    assert len(box) == 10


def test_an_event_larger_than_everything_is_lost_and_counted() -> None:
    box, hearing = outbox(), Hearing(settled=True)
    box.put("alice", b"x" * (OUTBOX_MAX_BYTES + 1), ring=True)

    assert hearing.missed(box.take(listens=False)) == 1


def test_events_of_the_moment_leave_room_for_the_others() -> None:
    box = outbox()
    for _ in range(OUTBOX_MAX_EVENTS):
        box.put("alice", b"{}", ring=False)

    assert len(box) == OUTBOX_MAX_EVENTS // 2 + 1


def test_a_word_that_goes_ahead_counts_nothing_that_waits() -> None:
    box, hearing = outbox(), Hearing(settled=True)
    for _ in range(3):
        box.put("alice", BODY, ring=True)

    assert hearing.missed(Message(box.head(listens=False))) == 0
    assert hearing.missed(box.take(listens=False)) == 0


def test_strangers_cost_no_memory() -> None:
    hearing = Hearing()
    for number in range(10 * LIVES_MAX):
        hearing.missed(Message(Head("a", str(number), 5, False)))

    assert len(hearing._reached) == LIVES_MAX
