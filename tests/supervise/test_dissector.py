"""Messages told apart, and answers put to their requests, from lines alone."""

from __future__ import annotations

import pytest

from controlplane.supervise.dissector import REMEMBERED, Dissected, Dissector


def test_an_answer_says_what_it_answers_and_after_how_long() -> None:
    dissector = Dissector()

    asked = dissector.read("to_server", b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{}}', 10.0)
    told = dissector.read("from_server", b'{"jsonrpc":"2.0","method":"notifications/progress"}', 10.1)
    answered = dissector.read("from_server", b'{"jsonrpc":"2.0","id":7,"result":{}}', 10.25)

    assert asked == Dissected("request", "tools/call", b"7")
    assert told == Dissected("notification", "notifications/progress")
    assert answered == Dissected("response", "tools/call", b"7", 250.0)


def test_both_sides_ask_and_their_ids_are_apart() -> None:
    dissector = Dissector()
    dissector.read("to_server", b'{"id":1,"method":"tools/call"}', 0.0)
    dissector.read("from_server", b'{"id":1,"method":"roots/list"}', 1.0)

    ours = dissector.read("to_server", b'{"id":1,"result":{}}', 3.0)
    theirs = dissector.read("from_server", b'{"id":1,"error":{"code":1,"message":""}}', 4.0)

    assert ours == Dissected("response", "roots/list", b"1", 2000.0)
    assert theirs == Dissected("error", "tools/call", b"1", 4000.0)


@pytest.mark.parametrize("echoed", [b'"7"', b"7.0", b"7"])
def test_an_id_is_known_again_however_it_is_echoed(echoed: bytes) -> None:
    dissector = Dissector()
    dissector.remember("to_server", b"7", "ping", 0.0)

    seen = dissector.read("from_server", b'{"id":%b,"result":{}}' % echoed, 0.0)

    assert (seen.method, seen.id) == ("ping", echoed)


def test_without_ids_answers_come_in_order() -> None:
    dissector = Dissector()
    dissector.read("to_server", b'{"id":1,"method":"a"}', 0.0)
    dissector.read("to_server", b'{"id":2,"method":"b"}', 0.0)

    found = [dissector.read("from_server", b'{"result":1}', 0.0).method for _ in range(3)]

    assert found == ["a", "b", None]


@pytest.mark.parametrize(
    "line", [b"hello", b"\xff\xfe", b"{]", b"", b'{"level":"info"}', b'{"id":3}', b"[" * 100_000, b"{" * 9]
)
def test_what_is_no_message_is_noise(line: bytes) -> None:
    assert Dissector().read("from_server", line, 0.0) == Dissected("noise")


def test_a_garbled_answer_names_the_call_that_it_ends() -> None:
    dissector = Dissector()
    dissector.remember("to_server", b"3", "tools/list", 1.0)

    seen = dissector.read("from_server", b'{"jsonrpc":"2.0","id":3,"result":NaN}', 2.0)

    assert seen == Dissected("noise", "tools/list", b"3", 1000.0)


def test_requests_that_are_never_answered_are_forgotten_the_oldest_first() -> None:
    dissector = Dissector()
    for number in range(REMEMBERED + 1):
        dissector.remember("from_server", b'"id-%d"' % number, "ask", 0.0)

    first = dissector.read("to_server", b'{"id":"id-0","result":{}}', 0.0)
    second = dissector.read("to_server", b'{"id":"id-1","result":{}}', 0.0)

    assert (first.method, second.method) == (None, "ask")
