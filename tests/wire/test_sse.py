"""The SSE reading side against the rules of the WHATWG HTML standard, section 9.2.6."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.wire.sse import SseEvent, SseParser, SseTooLong

TABLE = [
    ("one line of data", b"data: hello\n\n", [SseEvent("hello")]),
    ("only the first space is dropped", b"data:  two\n\ndata:none\n\n", [SseEvent(" two"), SseEvent("none")]),
    ("several data lines are joined", b"data: a\ndata\ndata: b\n\n", [SseEvent("a\n\nb")]),
    ("a data field without value is an event", b"data\n\n", [SseEvent("")]),
    ("no data, no event", b"event: x\nid: 1\n\n", []),
    ("comments say nothing", b": keep-alive\n\n:\ndata: x\n: y\n\n", [SseEvent("x")]),
    ("unknown fields say nothing", b"foo: bar\nDATA: no\ndata: x\n\n", [SseEvent("x")]),
    ("the type holds for one event", b"event: t\ndata: 1\n\ndata: 2\n\n", [SseEvent("1", "t"), SseEvent("2")]),
    ("the id holds until another", b"id: 7\ndata: 1\n\ndata: 2\n\n", [SseEvent("1", id="7"), SseEvent("2", id="7")]),
    ("an empty id resets it", b"id: 7\ndata: 1\n\nid\ndata: 2\n\n", [SseEvent("1", id="7"), SseEvent("2")]),
    (
        "an id with NUL is ignored",
        b"id: 7\ndata: 1\n\nid: 8\0\ndata: 2\n\n",
        [SseEvent("1", id="7"), SseEvent("2", id="7")],
    ),
    ("carriage returns end lines", b"data: a\r\rdata: b\r\r", [SseEvent("a"), SseEvent("b")]),
    ("mixed line ends", b"data: a\r\ndata: b\rdata: c\n\r\n", [SseEvent("a\nb\nc")]),
    ("a byte order mark is dropped once", b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", [SseEvent("a")]),
    ("an unfinished event is dropped", b"data: a\n\ndata: b\n", [SseEvent("a")]),
    ("bad UTF-8 is replaced", b"data: \xff\xc3\xa9\n\n", [SseEvent("\ufffd\u00e9")]),
    ("other line separators are text", "data: a\u2028b\x0bc\x85d\n\n".encode(), [SseEvent("a\u2028b\x0bc\x85d")]),
]


@pytest.mark.parametrize(("stream", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_a_stream_gives_the_events_of_the_standard_however_it_is_cut(stream: bytes, expected: list[SseEvent]):
    assert SseParser().feed(stream) == expected
    parser = SseParser()
    assert [event for byte in stream for event in parser.feed(bytes([byte]))] == expected


@given(
    st.lists(
        st.sampled_from([b"data: x", b"data", b"id: 1", b"event: e", b"\r", b"\n", b"\r\n", b":", b"\xe2\x82\xac"])
    ),
    st.data(),
)
def test_cutting_a_stream_in_two_changes_nothing(pieces: list[bytes], data: st.DataObject):
    stream = b"".join(pieces)
    cut = data.draw(st.integers(0, len(stream)))
    parser = SseParser()
    assert parser.feed(stream[:cut]) + parser.feed(stream[cut:]) == SseParser().feed(stream)


def test_a_carriage_return_dispatches_at_once_and_its_line_feed_is_not_a_blank_line():
    parser = SseParser()
    assert parser.feed(b"data: a\r\n\r") == [SseEvent("a")]
    assert parser.feed(b"\ndata: b\r") == []
    assert parser.feed(b"\n") == []
    assert parser.feed(b"\r") == [SseEvent("b")]


def test_retry_is_digits_only():
    parser = SseParser()
    parser.feed(b"retry: 1500\nretry: soon\nretry: -1\nretry: \xd9\xa3\nretry:\n")
    assert parser.retry_ms == 1500


def test_half_an_event_does_not_move_the_last_event_id():
    parser = SseParser(last_event_id="e-1")
    parser.feed(b"id: e-2\ndata: 1\n\nid: e-3\ndata: 2\n")
    assert parser.last_event_id == "e-2"
    assert SseParser(last_event_id="e-1").feed(b"data: 1\n\n") == [SseEvent("1", id="e-1")]


@pytest.mark.parametrize(
    "stream", [b"data: " + b"x" * 100, b"data: 123456789\n" * 8, b"data\n" * 20, b":" + b"-" * 100]
)
def test_a_line_or_event_past_its_bound_is_refused(stream: bytes):
    parser = SseParser(max_event_bytes=64)
    chunks = [stream[start : start + 10] for start in range(0, len(stream), 10)]
    with pytest.raises(SseTooLong, match="longer than 64 bytes"):
        [parser.feed(chunk) for chunk in chunks]


def test_many_events_within_the_bound_are_read():
    parser = SseParser(max_event_bytes=64)
    assert len(parser.feed(b"data: 1234567890\n\n" * 1000)) == 1000
