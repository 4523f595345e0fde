"""The hot lane's parser: one plain shape of request, and nothing else."""

from __future__ import annotations

import random

import pytest

from controlplane.web.hot_head import HEAD_MAX_BYTES, NEED_MORE, NOT_PLAIN, PlainHead, parse_head

PLAIN = (
    b"POST /mcp/memory/execute HTTP/1.1\r\n"
    b"Host: localhost:8000\r\n"
    b"Content-Type: application/json\r\n"
    b"Authorization: Bearer abc\r\n"
    b"Content-Length: 12\r\n"
    b"\r\n"
)


def with_field(line: bytes) -> bytes:
    return PLAIN.replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n\r\n")


def test_a_plain_head_is_understood() -> None:
    head = parse_head(PLAIN + b'{"method":1}')

    assert isinstance(head, PlainHead)
    assert (head.route, head.ref, head.path) == ("execute", "memory", "/mcp/memory/execute")
    assert (head.length, head.close) == (12, False)
    assert head.raw == PLAIN
    assert head.fields == {
        b"host": b"localhost:8000",
        b"content-type": b"application/json",
        b"authorization": b"Bearer abc",
        b"content-length": b"12",
    }


def test_it_is_read_from_where_it_starts() -> None:
    head = parse_head(b"xxx" + PLAIN, 3)

    assert isinstance(head, PlainHead)
    assert head.raw == PLAIN


@pytest.mark.parametrize(
    ("target", "ref"),
    [
        (b"/mcp/11111111-2222-3333-4444-555555555555/execute", "11111111-2222-3333-4444-555555555555"),
        (b"/mcp/alice/memory/execute", "alice/memory"),
        (b"/mcp/a.b_c-d/execute", "a.b_c-d"),
    ],
)
def test_the_instance_may_be_named_in_each_way(target: bytes, ref: str) -> None:
    head = parse_head(PLAIN.replace(b"/mcp/memory/execute", target))

    assert isinstance(head, PlainHead)
    assert head.ref == ref


@pytest.mark.parametrize("accept", [b"application/json, text/event-stream", b"text/event-stream", b"text/html", b"x"])
def test_a_message_for_the_endpoint_is_plain_whatever_it_accepts(accept: bytes) -> None:
    head = parse_head(with_field(b"Accept: " + accept).replace(b"/execute", b""))

    assert isinstance(head, PlainHead)
    assert (head.route, head.ref, head.path) == ("mcp", "memory", "/mcp/memory")
    assert head.fields[b"accept"] == accept


@pytest.mark.parametrize(
    "line",
    [
        b"Accept: */*",
        b"Accept: application/json, text/plain, */*",
        b"User-Agent: curl/8",
        b"Connection: keep-alive",
        b"X-Empty:",
        b"X-Tab:\tvalue\t",
        b"X-Forwarded-For: 10.0.0.1",
        b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ],
)
def test_harmless_fields_stay_plain(line: bytes) -> None:
    assert isinstance(parse_head(with_field(line)), PlainHead)


def test_connection_close_is_plain_and_noted() -> None:
    head = parse_head(with_field(b"Connection: Close"))

    assert isinstance(head, PlainHead)
    assert head.close


NOT_FOR_THE_HOT_LANE = {
    "another method": PLAIN.replace(b"POST", b"PUT"),
    "a lower-case method": PLAIN.replace(b"POST", b"post"),
    "GET": PLAIN.replace(b"POST", b"GET"),
    "another path": PLAIN.replace(b"/mcp/memory/execute", b"/instances"),
    "a stream": PLAIN.replace(b"execute", b"stream"),
    "HTTP+SSE": PLAIN.replace(b"execute", b"sse"),
    "a message of HTTP+SSE": PLAIN.replace(b"execute", b"messages"),
    "the endpoint with a slash": PLAIN.replace(b"/execute", b"/"),
    "the endpoint with a query": PLAIN.replace(b"/execute ", b"?a=1 "),
    "a query": PLAIN.replace(b"execute ", b"execute?a=1 "),
    "a fragment": PLAIN.replace(b"execute ", b"execute#a "),
    "a percent escape": PLAIN.replace(b"memory", b"mem%6Fry"),
    "dot segments": PLAIN.replace(b"/mcp/memory", b"/mcp/../memory"),
    "too many segments": PLAIN.replace(b"memory", b"a/b/c"),
    "an empty name": PLAIN.replace(b"memory", b""),
    "a double slash": PLAIN.replace(b"/mcp/memory", b"//mcp/memory"),
    "a non-ASCII path": PLAIN.replace(b"memory", "mémoire".encode()),
    "absolute-form": PLAIN.replace(b"POST /mcp", b"POST http://localhost/mcp"),
    "HTTP/1.0": PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "HTTP/2.0": PLAIN.replace(b"HTTP/1.1", b"HTTP/2.0"),
    "two spaces": PLAIN.replace(b"POST /", b"POST  /"),
    "a tab in the request line": PLAIN.replace(b"POST /", b"POST\t/"),
    "an empty line first": b"\r\n" + PLAIN,
    "bare LF everywhere": PLAIN.replace(b"\r\n", b"\n"),
    "one bare LF": PLAIN.replace(b"8000\r\n", b"8000\n"),
    "a bare LF in a value": with_field(b"X: a\nTransfer-Encoding: chunked"),
    "a bare CR in a value": with_field(b"X: a\rb"),
    "a NUL": with_field(b"X: a\x00b"),
    "a control character": with_field(b"X: a\x0bb"),
    "obs-text": with_field(b"X: caf\xc3\xa9"),
    "obs-fold": with_field(b"X: a\r\n b"),
    "a space before the colon": with_field(b"X : a"),
    "a space before the name": with_field(b" X: a"),
    "no colon": with_field(b"X"),
    "an empty name of a field": with_field(b": a"),
    "an odd name": with_field(b"X(y): a"),
    "Transfer-Encoding": with_field(b"Transfer-Encoding: chunked"),
    "transfer-encoding, other case": with_field(b"tRANSFER-eNCODING: identity"),
    "Expect": with_field(b"Expect: 100-continue"),
    "Upgrade": with_field(b"Upgrade: websocket"),
    "Content-Encoding": with_field(b"Content-Encoding: gzip"),
    "TE": with_field(b"TE: trailers"),
    "Trailer": with_field(b"Trailer: X"),
    "Origin": with_field(b"Origin: http://localhost"),
    "another Connection": with_field(b"Connection: keep-alive, Upgrade"),
    "a second Host": with_field(b"Host: localhost:8000"),
    "a second Content-Length": with_field(b"Content-Length: 12"),
    "a second Authorization": with_field(b"authorization: Bearer other"),
    "any field twice": with_field(b"X: 1\r\nx: 1"),
    "no Host": PLAIN.replace(b"Host: localhost:8000\r\n", b""),
    "no Content-Length": PLAIN.replace(b"Content-Length: 12\r\n", b""),
    "a negative length": PLAIN.replace(b"Length: 12", b"Length: -1"),
    "a signed length": PLAIN.replace(b"Length: 12", b"Length: +12"),
    "a hexadecimal length": PLAIN.replace(b"Length: 12", b"Length: 0xc"),
    "a length with an underscore": PLAIN.replace(b"Length: 12", b"Length: 1_2"),
    "a list of lengths": PLAIN.replace(b"Length: 12", b"Length: 12, 12"),
    "an empty length": PLAIN.replace(b"Length: 12", b"Length:"),
    "a huge length": PLAIN.replace(b"Length: 12", b"Length: 99999999999999999999"),
    "an event stream": with_field(b"Accept: text/event-stream"),
    "an event stream rather than JSON": with_field(b"Accept: application/json;q=0.5, text/event-stream"),
    "an Accept that fits nothing": with_field(b"Accept: text/html"),
    "a head that is too long": with_field(b"X: " + b"a" * HEAD_MAX_BYTES),
    "a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n",
    "the HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("data", NOT_FOR_THE_HOT_LANE.values(), ids=NOT_FOR_THE_HOT_LANE.keys())
def test_whatever_is_not_plain_goes_to_the_other_door(data: bytes) -> None:
    assert parse_head(data) is NOT_PLAIN


def test_while_a_plain_head_is_incomplete_more_is_needed() -> None:
    for end in range(len(PLAIN)):
        assert parse_head(PLAIN[:end]) is NEED_MORE, PLAIN[:end]


@pytest.mark.parametrize(
    "start",
    [b"G", b"POST /instances", b"POST /mcp/x/execute HTTP/1.1\n", b"POST /mcp/x/execute HTTP/1.1\r\nHost: x\n\n"],
)
def test_a_start_that_cannot_become_plain_is_not_waited_for(start: bytes) -> None:
    assert parse_head(start) is NOT_PLAIN


def test_a_start_that_is_too_long_is_not_waited_for() -> None:
    assert parse_head(PLAIN[:-2] + b"X: " + b"a" * HEAD_MAX_BYTES) is NOT_PLAIN


def test_mutated_heads_are_either_plain_in_the_strict_sense_or_left_alone() -> None:
    """Whatever passes must say unmistakably where its body ends."""
    draw = random.Random(1)
    base = with_field(b"X-Request-Id: 1\r\nAccept: */*")
    for _ in range(20_000):
        data = bytearray(base)
        for _ in range(draw.randrange(1, 4)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        head = parse_head(bytes(data))
        if isinstance(head, PlainHead):
            text = head.raw.decode("ascii")
            assert text.count("\n") == text.count("\r") == text.count("\r\n")
            assert sum(line.lower().startswith("content-length:") for line in text.split("\r\n")) == 1
            assert head.fields[b"content-length"].isdigit()
            assert not head.fields.keys() & {b"transfer-encoding", b"expect", b"upgrade"}


def test_a_hostile_head_costs_no_more_than_its_length() -> None:
    """No backtracking: quadratic work on these would take minutes."""
    for filler in (b"a" * 16_000, b" " * 16_000, b"a " * 8_000, b"\t" * 16_000):
        for end in (b"", b"\x00\r\n\r\n", b"\r\n" * 100):
            parse_head(PLAIN[:-2] + b"X: " + filler + end)
        parse_head(b"POST /mcp/" + filler + b"/execute HTTP/1.1\r\n\r\n")
