"""DNS as a sandbox sees it, byte by byte."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from controlplane.egress.dns import Code, Query, answer, parse

A, AAAA, MX, HTTPS, OPT = 1, 28, 15, 65, 41


def name_of(*labels: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"


def packet(
    name: bytes,
    kind: int = A,
    *,
    flags: int = 0x0100,
    counts: tuple[int, ...] = (1, 0, 0, 0),
    network: int = 1,
    rest: bytes = b"",
) -> bytes:
    return struct.pack(">HHHHHH", 7, flags, *counts) + name + struct.pack(">HH", kind, network) + rest


EXAMPLE = name_of("Api", "example", "COM")
EDNS = b"\0" + struct.pack(">HHIH", OPT, 1232, 0, 0)


def code_of(reply: object) -> Code:
    assert isinstance(reply, bytes)
    return Code(struct.unpack_from(">H", reply, 2)[0] & 0xF)


def test_a_query_is_answered_with_addresses_and_its_own_question() -> None:
    query = parse(packet(EXAMPLE))
    assert isinstance(query, Query)
    assert (query.name, query.wants_address) == ("api.example.com", True)

    reply = answer(query, Code.OK, ("93.184.216.34", "198.18.0.1"))
    assert reply == (
        struct.pack(">HHHHHH", 7, 0x8180, 1, 2, 0, 0)
        + EXAMPLE
        + struct.pack(">HH", 1, 1)
        + b"\xc0\x0c\0\1\0\1\0\0\0\x1e\0\4\x5d\xb8\xd8\x22"
        + b"\xc0\x0c\0\1\0\1\0\0\0\x1e\0\4\xc6\x12\0\1"
    )


@pytest.mark.parametrize("kind", [AAAA, HTTPS])
def test_there_is_no_ipv6_and_no_second_way_and_that_is_no_error(kind: int) -> None:
    query = parse(packet(EXAMPLE, kind))
    assert isinstance(query, Query)
    assert not query.wants_address

    reply = answer(query, Code.OK)
    assert code_of(reply) == Code.OK
    assert struct.unpack_from(">HH", reply, 4) == (1, 0)


def test_edns_is_heard_and_not_answered() -> None:
    assert isinstance(parse(packet(EXAMPLE, counts=(1, 0, 0, 1), rest=EDNS)), Query)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        (packet(EXAMPLE, MX), Code.REFUSED),
        (packet(EXAMPLE, 255), Code.REFUSED),
        (packet(EXAMPLE, network=3), Code.REFUSED),
        (packet(EXAMPLE, flags=0x2800), Code.NOT_IMPLEMENTED),
        (packet(b"\0"), Code.MALFORMED),
        (packet(name_of("a b", "com")), Code.MALFORMED),
        (packet(b"\xc0\x0c"), Code.MALFORMED),
        (packet(b"\x40" + b"a" * 64 + b"\0"), Code.MALFORMED),
        (packet(name_of(*["a" * 60] * 5)), Code.MALFORMED),
        (packet(EXAMPLE, counts=(0, 0, 0, 0)), Code.MALFORMED),
        (packet(EXAMPLE, counts=(2, 0, 0, 0)), Code.MALFORMED),
        (packet(EXAMPLE, counts=(1, 1, 0, 0)), Code.MALFORMED),
        (packet(EXAMPLE, counts=(1, 0, 0, 1)), Code.MALFORMED),
        (packet(EXAMPLE, counts=(1, 0, 0, 2), rest=EDNS * 2), Code.MALFORMED),
        (packet(EXAMPLE, rest=b"x"), Code.MALFORMED),
        (packet(EXAMPLE)[:-1], Code.MALFORMED),
        (packet(EXAMPLE)[:14], Code.MALFORMED),
    ],
)
def test_what_is_no_query_for_an_address_is_refused_at_once(query: bytes, code: Code) -> None:
    assert code_of(parse(query)) == code


@pytest.mark.parametrize("junk", [b"", b"x" * 11, packet(EXAMPLE, flags=0x8000)])
def test_what_is_too_short_or_an_answer_itself_gets_none(junk: bytes) -> None:
    assert parse(junk) is None


@given(st.binary(max_size=600) | st.builds(lambda tail: packet(EXAMPLE)[:12] + tail, st.binary(max_size=300)))
@example(packet(b"\x3f" + b"a" * 10))
def test_no_junk_raises(junk: bytes) -> None:
    found = parse(junk)
    if isinstance(found, Query):
        assert len(answer(found, Code.OK, ["198.18.0.1"] * 8)) <= 700
