"""Reading what a request carries, strictly."""

from __future__ import annotations

import pytest

from controlplane.errors import InvalidRequest, MalformedJson, NotAcceptable
from controlplane.web.request import Head, decode_json, decode_members, prefers_events, request_id_of

MALFORMED = {
    "empty": b"",
    "white space": b"  \n",
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "invalid UTF-8 in a value": b'{"a": {"b": "\xff\xfe"}}',
    "invalid UTF-8 in a name": b'{"\xff": 1}',
    "overlong UTF-8": b'{"a": "\xc0\x80"}',
    "surrogate in UTF-8": b'{"a": "\xed\xa0\x80"}',
    "NaN": b'{"a": {"b": NaN}}',
    "Infinity": b'{"a": -Infinity}',
    "leading zero": b'{"a": [01]}',
    "trailing comma": b'{"a": [1,]}',
    "trailing bytes": b"{} {}",
    "single quotes": b"{'a': 1}",
    "line break in a string": b'{"a": {"b": "x\ny"}}',
    "NUL in a string": b'{"a": "\x00"}',
    "half an object": b'{"a": ',
    "deep nesting": b'{"a": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "deep nesting, not closed": b'{"a": ' + b'{"a":' * 50_000,
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_not_json_is_malformed_whichever_way_it_is_read(body: bytes) -> None:
    with pytest.raises(MalformedJson):
        decode_members(body)
    with pytest.raises(MalformedJson):
        decode_json(body)


def test_of_duplicate_names_the_last_one_wins() -> None:
    assert decode_json(b'{"a": 1, "a": 2}') == {"a": 2}
    assert bytes(decode_members(b'{"a": 1, "a": 2}')["a"]) == b"2"


@pytest.mark.parametrize(
    "number", [b"1e999", b"-0", b"9223372036854775808", b"1.10", b"123456789012345678901234567890"]
)
def test_a_members_numbers_stay_as_they_were_written(number: bytes) -> None:
    assert bytes(decode_members(b'{"a": [' + number + b"]}")["a"]) == b"[" + number + b"]"


@pytest.mark.parametrize("body", [b"[]", b"1", b'"x"', b"null"])
def test_json_that_is_no_object_is_wrong_but_not_malformed(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_members(body)

    assert [wrong.pointer for wrong in caught.value.errors] == [""]


@pytest.mark.parametrize(
    ("accept", "events"),
    [
        (None, False),
        (b"", False),
        (b"*/*", False),
        (b"application/json", False),
        (b"application/json, text/plain, */*", False),
        (b"application/json, text/event-stream", False),
        (b"text/event-stream", True),
        (b"TEXT/Event-Stream; charset=utf-8", True),
        (b"text/event-stream, application/json;q=0.9", True),
        (b"text/event-stream;q=0.1, */*;q=0.05", True),
        (b"text/event-stream, */*", False),
        (b"application/json;q=nonsense, text/event-stream", True),
    ],
)
def test_an_accept_field_chooses_between_one_answer_and_events(accept: bytes | None, events: bool) -> None:
    assert prefers_events(accept) is events


@pytest.mark.parametrize("accept", [b"text/html", b"image/*", b"application/json;q=0", b"application/xml, text/plain"])
def test_an_accept_field_that_rules_both_out_is_not_acceptable(accept: bytes) -> None:
    with pytest.raises(NotAcceptable):
        prefers_events(accept)


@pytest.mark.parametrize("own", [b"abc-1.2_X", b"a" * 64])
def test_a_sane_request_id_of_the_client_is_kept(own: bytes) -> None:
    assert request_id_of(Head.of("GET", "/", b"", [(b"x-request-id", own)], "")) == own.decode()


@pytest.mark.parametrize("own", [b"", b"a" * 65, b"a b", b"a\tb", b"<script>", b"caf\xc3\xa9", b"a, b"])
def test_any_other_is_replaced_by_a_new_one(own: bytes) -> None:
    head = Head.of("GET", "/", b"", [(b"x-request-id", own)], "")

    assert request_id_of(head) != own.decode("latin-1")
    assert request_id_of(head) != request_id_of(head)


def test_a_field_that_came_twice_is_joined() -> None:
    assert Head.of("GET", "/", b"", [(b"a", b"1"), (b"a", b"2")], "").get(b"a") == b"1, 2"
