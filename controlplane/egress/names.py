"""What one instance has been told of names: the gate sees addresses, and has to know what they were asked for as.

A name is answered with its real addresses: programs that judge an address before they connect to it (guards against
SSRF) see what they are to see. Only a name whose addresses mean nothing inside a sandbox gets a stand-in. Pure: the
clock is passed in.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Iterable

from attrs import define, field

STAND_INS = ipaddress.IPv4Network("198.18.0.0/15")
"""No server has an address of these (RFC 2544)."""
MAX_STAND_INS = 4096
"""Remembered per instance, those used last: 1 MB at the most."""
MAX_GIVEN = 4096
"""Pairs of a name and an address, remembered per instance, those looked up last: 5 MB at the most."""
MAX_NAMES_OF_ADDRESS = 16
"""Remembered of one address, those looked up last: each is judged at every connection."""
GIVEN_FOR_S = 3600.0
"""For how long an address counts as its name's: in a cloud it is somebody else's some day."""


@define(eq=False)
class Given:
    """Which real addresses were given for which names."""

    max_pairs: int = MAX_GIVEN
    _when: OrderedDict[tuple[str, str], tuple[float, tuple[str, ...]]] = field(
        factory=OrderedDict, init=False, repr=False
    )
    """By address and name, the last look-up at the end: its time, and all that it found."""
    _names: dict[str, dict[str, None]] = field(factory=dict, init=False, repr=False)
    """By address, the name looked up last at the end."""

    def give(self, name: str, addresses: Iterable[str], now: float, found: tuple[str, ...] = ()) -> None:
        """Remember what a look-up was answered with, and what it found besides that may be reached from outside."""
        for address in addresses:
            self._forget(address, name)
            self._when[address, name] = now, found
            names = self._names.setdefault(address, {})
            names[name] = None
            if len(names) > MAX_NAMES_OF_ADDRESS:
                self._forget(address, next(iter(names)))
        while len(self._when) > self.max_pairs:
            self._forget(*next(iter(self._when)))

    def names_of(self, address: str, now: float) -> tuple[str, ...]:
        """The names that an address was given for, the last one first."""
        names = reversed(self._names.get(address, {}))
        return tuple(name for name in names if now - self._when[address, name][0] <= GIVEN_FOR_S)

    def found_with(self, address: str, name: str) -> tuple[str, ...]:
        """What was found by the look-up of a name that an address was given for last; none, if it was not."""
        return self._when.get((address, name), (0.0, ()))[1]

    def _forget(self, address: str, name: str) -> None:
        if self._when.pop((address, name), None) is not None:
            names = self._names[address]
            del names[name]
            if not names:
                del self._names[address]


@define(eq=False)
class StandIns:
    """Which address stands for which name.

    They are given out in turn, so that one that a program still remembers is not somebody else's before 130,000 others
    have been.
    """

    max_names: int = MAX_STAND_INS
    _addresses: OrderedDict[str, str] = field(factory=OrderedDict, init=False, repr=False)
    _names: dict[str, str] = field(factory=dict, init=False, repr=False)
    _given: int = field(default=0, init=False)

    def address_of(self, name: str) -> str:
        """The address that stands for a name, a new one if it has none."""
        address = self._addresses.get(name)
        if address is None:
            self._given = self._given % (STAND_INS.num_addresses - 2) + 1  # neither the first nor the last
            address = str(STAND_INS[self._given])
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


def is_stand_in(address: str) -> bool:
    """Whether an address is one that stands for a name."""
    return ipaddress.ip_address(address) in STAND_INS


def means_the_same_inside(address: str) -> bool:
    """Whether a sandbox can be told an address: there is no IPv6 in it, and its loopback is its own."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return ip.version == 4 and not ip.is_loopback and not ip.is_unspecified and ip not in STAND_INS


def is_localhost(name: str) -> bool:
    """Whether a name means the asker's own host wherever it is asked (RFC 6761)."""
    return name == "localhost" or name.endswith(".localhost")
