"""DNS as a sandbox sees it. Pure: bytes in, bytes out.

Answers A with addresses, AAAA and HTTPS with none (there is no IPv6 and no second way), and refuses the rest.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Sequence
from enum import IntEnum

from attrs import field, frozen

MAX_PACKET_BYTES = 4096
"""A query is far shorter; what is cut off here is malformed."""
MAX_NAME_BYTES = 255
TTL_S = 30
"""Short: who looks a name up again gets its place in what is remembered back, after a restart of the process as well."""
HEADER = struct.Struct(">HHHHHH")
LABEL = re.compile(rb"[A-Za-z0-9_-]{1,63}")
IN = 1
A = 1
OPT = 41
WITHOUT_ANSWER = frozenset({28, 65})
"""AAAA and HTTPS: asked for besides A by programs that must hear "there is none", not an error."""

RESPONSE = 0x8000
OPCODE = 0x7800
RECURSION_DESIRED = 0x0100
RECURSION_AVAILABLE = 0x0080


class Code(IntEnum):
    """How a query is answered (RCODE)."""

    OK = 0
    MALFORMED = 1
    FAILED = 2
    NO_SUCH_NAME = 3
    NOT_IMPLEMENTED = 4
    REFUSED = 5


@frozen
class Query:
    """A question that can be answered."""

    number: int
    flags: int
    name: str
    """Lower case, without the last dot."""
    kind: int
    question: bytes = field(repr=False)
    """As it was asked: the answer repeats it."""

    @property
    def wants_address(self) -> bool:
        return self.kind == A


def parse(packet: bytes) -> Query | bytes | None:
    """Read a query strictly: a `Query`; or the whole answer, where it is an error at once; None: say nothing."""
    if len(packet) < HEADER.size:
        return None
    number, flags, questions, answers, authorities, additional = HEADER.unpack_from(packet)
    if flags & RESPONSE:
        return None
    if flags & OPCODE:
        return _error(number, flags, Code.NOT_IMPLEMENTED)
    name, end = _name(packet)
    if name is None or (questions, answers, authorities) != (1, 0, 0) or len(packet) < end + 4:
        return _error(number, flags, Code.MALFORMED)
    kind, network = struct.unpack_from(">HH", packet, end)
    question = packet[HEADER.size : end + 4]
    if not _is_rest_fine(packet[end + 4 :], additional):
        return _error(number, flags, Code.MALFORMED)
    query = Query(number, flags, name, kind, question)
    if network != IN or kind not in {A, *WITHOUT_ANSWER}:
        return answer(query, Code.REFUSED)
    return query


def answer(query: Query, code: Code, addresses: Sequence[str] = ()) -> bytes:
    """The packet that answers a query: with addresses, with none, or with an error."""
    header = HEADER.pack(query.number, _flags(query.flags, code), 1, len(addresses), 0, 0)
    record = struct.pack(">HHHIH", 0xC000 | HEADER.size, A, IN, TTL_S, 4)  # the name is that of the question
    return header + query.question + b"".join(record + ipaddress.IPv4Address(address).packed for address in addresses)


def _error(number: int, flags: int, code: Code) -> bytes:
    return HEADER.pack(number, _flags(flags, code), 0, 0, 0, 0)


def _flags(asked: int, code: Code) -> int:
    return RESPONSE | RECURSION_AVAILABLE | (asked & (OPCODE | RECURSION_DESIRED)) | code


def _name(packet: bytes) -> tuple[str | None, int]:
    """The name that is asked for, and where it ends; None if it is malformed or no host's name."""
    labels: list[bytes] = []
    position = HEADER.size
    while position < len(packet) and position - HEADER.size < MAX_NAME_BYTES:
        length = packet[position]
        position += 1
        if length == 0:
            return b".".join(labels).decode().lower() if labels else None, position
        label = packet[position : position + length]
        if not LABEL.fullmatch(label) or len(label) < length:  # a pointer (0xC0 and above) is too long as well
            break
        labels.append(label)
        position += length
    return None, position


def _is_rest_fine(rest: bytes, records: int) -> bool:
    """Nothing may follow but one OPT record (EDNS), whose wishes are not heard."""
    if records == 0:
        return not rest
    if records > 1 or len(rest) < 11:
        return False
    root, kind, _size, _flags, length = struct.unpack_from(">BHHIH", rest)
    return (root, kind, len(rest)) == (0, OPT, 11 + length)
