"""DNS as a sandbox sees it: every name that may be looked up gets an address of its own that only the gate understands.

The addresses are of 198.18.0.0/15, which no server has (RFC 2544). They are given out in turn, so that one that a
program still remembers is not somebody else's before 130,000 others have been. Pure: bytes in, bytes out.

Answers A with one address, AAAA and HTTPS with none (there is no IPv6 and no second way), and refuses the rest.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections import OrderedDict
from enum import IntEnum

from attrs import define, field, frozen

from controlplane.core.hosts import LOOPBACK

FAKE = ipaddress.IPv4Network("198.18.0.0/15")
MAX_NAMES = 4096
"""Remembered per instance, those used last: 1 MB at the most."""
MAX_PACKET_BYTES = 4096
"""A query is far shorter; what is cut off here is malformed."""
MAX_NAME_BYTES = 255
TTL_S = 60
"""Below the time that any name is remembered for, in all but a flood of names."""
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


def answer(query: Query, code: Code, address: str | None = None) -> bytes:
    """The packet that answers a query: with one address, with none, or with an error."""
    header = HEADER.pack(query.number, _flags(query.flags, code), 1, 1 if address else 0, 0, 0)
    if address is None:
        return header + query.question
    record = struct.pack(">HHHIH", 0xC000 | HEADER.size, A, IN, TTL_S, 4)  # the name is that of the question
    return header + query.question + record + ipaddress.IPv4Address(address).packed


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


@define(eq=False)
class Names:
    """Which address stands for which name, for one instance."""

    max_names: int = MAX_NAMES
    _addresses: OrderedDict[str, str] = field(factory=OrderedDict, init=False, repr=False)
    _names: dict[str, str] = field(factory=dict, init=False, repr=False)
    _given: int = field(default=0, init=False)

    def address_of(self, name: str) -> str:
        """The address that stands for a name, a new one if it has none."""
        if is_localhost(name):
            return LOOPBACK
        address = self._addresses.get(name)
        if address is None:
            self._given = self._given % (FAKE.num_addresses - 2) + 1  # neither the first nor the last
            address = str(FAKE[self._given])
            self._addresses[name] = address
            self._names[address] = name
            if len(self._addresses) > self.max_names:
                _oldest, forgotten = self._addresses.popitem(last=False)
                del self._names[forgotten]
        self._addresses.move_to_end(name)
        return address

    def name_of(self, address: str) -> str | None:
        """The name that an address stands for; None once it is forgotten, and if it never stood for one."""
        name = self._names.get(address)
        if name is not None:
            self._addresses.move_to_end(name)
        return name


def is_fake(address: str) -> bool:
    """Whether an address is one that stands for a name."""
    return ipaddress.IPv4Address(address) in FAKE


def is_localhost(name: str) -> bool:
    """Whether a name means the asker's own host wherever it is asked (RFC 6761)."""
    return name == "localhost" or name.endswith(".localhost")
