"""Cutting a child's bytes into lines: what comes out depends on the bytes alone, never on the chunks."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.framing import LineSplitter, Oversized

LIMIT = 8


def lines_of(stream: bytes, limit: int = LIMIT) -> list[bytes | Oversized]:
    """What a stream holds, worked out the simplest way: with all of it in hand."""
    stripped = [line.removesuffix(b"\r") for line in stream.split(b"\n")]
    return [line if len(line) <= limit else Oversized(len(line)) for line in stripped if line]


def fed(chunks: list[bytes], limit: int = LIMIT) -> list[bytes | Oversized]:
    splitter = LineSplitter(limit)
    return [line for chunk in chunks for line in splitter.feed(chunk)] + splitter.close()


STREAMS = [
    ("one line", b"hello\n"),
    ("two lines", b"one\ntwo\n"),
    ("a line without its end", b"one\ntwo"),
    ("carriage returns", b"one\r\ntwo\r\n"),
    ("a carriage return inside a line", b"a\rb\n"),
    ("two carriage returns", b"ab\r\r\n"),
    ("a carriage return at the very end", b"ab\r"),
    ("empty lines", b"\n\r\n\n\na\n"),
    ("nothing", b""),
    ("a line at the limit", b"12345678\n"),
    ("a line at the limit, with a carriage return", b"12345678\r\n"),
    ("a line one over", b"123456789\n"),
    ("a line one over, with a carriage return", b"123456789\r\nok\n"),
    ("a line two over", b"1234567890\nok\n"),
    ("a long line between short ones", b"a\n" + b"x" * 40 + b"\nb\n"),
    ("a long line that never ends", b"a\n" + b"x" * 40),
    ("a long line of carriage returns", b"\r" * 20 + b"\nok\n"),
    ("bytes that are no text", b"\x00\xff\xfe\n\xc3\n"),
    ("other line separators are not ends", "a\u2028b\x0b\x0c\x85\n".encode()),
]


@pytest.mark.parametrize("stream", [row[1] for row in STREAMS], ids=[row[0] for row in STREAMS])
def test_a_stream_gives_the_same_lines_however_it_is_cut_in_two(stream: bytes) -> None:
    expected = lines_of(stream)

    for cut in range(len(stream) + 1):
        assert fed([stream[:cut], stream[cut:]]) == expected
    assert fed([bytes([byte]) for byte in stream]) == expected


@given(
    st.lists(st.binary(max_size=12) | st.sampled_from([b"\n", b"\r\n", b"\r", b"x" * LIMIT, b"x" * (LIMIT + 1)])),
    st.integers(1, 20),
)
def test_any_chunks_give_the_lines_of_their_sum(chunks: list[bytes], limit: int) -> None:
    assert fed(chunks, limit) == lines_of(b"".join(chunks), limit)


@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT, LIMIT + 1, LIMIT + 2, 100])
def test_whether_a_line_passes_depends_on_its_length_alone(size: int) -> None:
    line = b"x" * size
    expected = [line] if size <= LIMIT else [Oversized(size)]

    for cut in range(size + 2):
        splitter = LineSplitter(LIMIT)
        assert splitter.feed((line + b"\n")[:cut]) + splitter.feed((line + b"\n")[cut:]) == expected


def test_lines_come_out_as_soon_as_they_end() -> None:
    splitter = LineSplitter(LIMIT)

    assert splitter.feed(b"on") == []
    assert splitter.feed(b"e\ntw") == [b"one"]
    assert splitter.feed(b"o\n") == [b"two"]
    assert splitter.close() == []


def test_what_is_held_of_an_unfinished_line_is_told_and_is_nothing_once_it_is_too_long() -> None:
    splitter = LineSplitter(LIMIT)

    splitter.feed(b"abc")
    assert splitter.pending_bytes == 3
    splitter.feed(b"x" * (LIMIT - 2))  # one byte over, which a carriage return would be
    assert splitter.pending_bytes == LIMIT + 1
    splitter.feed(b"x")
    assert splitter.pending_bytes == 0
    assert splitter.feed(b"\nok\nab") == [Oversized(LIMIT + 2), b"ok"]
    assert splitter.pending_bytes == 2


def test_an_endless_line_costs_no_memory() -> None:
    splitter = LineSplitter(64 * 1024)
    chunk = b"x" * 4096

    tracemalloc.start()
    try:
        for _ in range(1_000):
            splitter.feed(chunk)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 3 * 64 * 1024
    assert splitter.feed(b"\n") == [Oversized(4096 * 1_000)]


def test_a_line_that_comes_in_crumbs_costs_no_more_than_its_bytes() -> None:
    """A hostile child writes two bytes at a time: an object for each crumb would be thirty times the line."""
    limit = 64 * 1024
    splitter = LineSplitter(limit)

    tracemalloc.start()
    try:
        for number in range(limit // 2):
            splitter.feed(b"%02x" % (number % 256))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert splitter.pending_bytes == limit
    assert held < 2 * limit
