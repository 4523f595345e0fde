"""Where one instance may connect to: decisions, with a reason that says what to do about it. Pure.

A look-up is judged by the name (`name_refusal`), and then by each address that it turns out to have (`address_refusal`
at any port). A connection is judged by the address it goes to and the names that this address was given for (`judge`);
what was judged is connected to, so a name cannot lead elsewhere a moment later.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from attrs import frozen

from controlplane.core.addresses import is_numeric, kind_of
from controlplane.core.hosts import LOOPBACK, HostPattern, parse_patterns

if TYPE_CHECKING:
    from controlplane.core.addresses import Kind

Mode = Literal["open", "allow", "none"]
ALLOW_HINT = "the operator can allow it with EGRESS_ALLOW_PRIVATE"
NOTHING = "network.mode is none: nothing can be reached"
ANYBODYS: tuple[Kind, ...] = ("public", "documentation")
"""What the world can reach, and what it cannot because nothing is there: a laboratory's own network may be."""
PLACES: dict[Kind, str] = {
    "private": "a private address",
    "metadata": "an address where clouds hand out a machine's credentials",
    "special": "an address of a special purpose, such as link-local",
}


MAX_NAMES_TOLD = 3
"""Of one address, in a reason."""


@frozen
class Verdict:
    """What becomes of a connection to an address.

    Args:
        host: What it counts as: a name that the address was given for, or the address.
        refusal: The reason; None: it may be made.
    """

    host: str
    refusal: str | None = None


@frozen(slots=False)
class Policy:
    """What one instance may reach.

    Args:
        mode: `open`: any public host; `allow`: only `hosts`; `none`: nothing.
        hosts: Patterns as in `core.hosts`, checked at the deploy.
        allow_private: Patterns with a port: what the operator lets instances reach besides public hosts.
    """

    mode: Mode = "open"
    hosts: tuple[str, ...] = ()
    allow_private: tuple[str, ...] = ()

    @cached_property
    def _hosts(self) -> tuple[HostPattern, ...]:
        return parse_patterns(self.hosts)

    @cached_property
    def _private(self) -> tuple[HostPattern, ...]:
        return parse_patterns(self.allow_private)

    @cached_property
    def loopback(self) -> tuple[tuple[str, int], ...]:
        """Addresses of 127.0.0.0/8, with their ports, that mean the host's own and not the sandbox's (`spawn.netns`)."""
        listed = dict.fromkeys(
            (pattern.host, pattern.port)
            for pattern in self._private
            if pattern.port is not None and not pattern.below and _is_loopback(pattern.host)
        )
        return tuple((host, port) for host, port in listed if port and self.refusal(host, port) is None)

    def name_refusal(self, name: str) -> str | None:
        """Why a name is not even looked up, at whatever port; None if it may be."""
        if self.mode == "none":
            return NOTHING
        return None if self._is_among_hosts(name, None) else f"{name} is not in network.hosts"

    def refusal(self, host: str, port: int) -> str | None:
        """Why a target is refused whatever addresses it has; None if those are to be judged.

        Args:
            host: A name or an address, as `core.hosts.normal` gives it.
            port: Of TCP.
        """
        if self.mode == "none":
            return NOTHING
        if not self._is_among_hosts(host, port):
            return f"{_target(host, port)} is not in network.hosts"
        return self.address_refusal(host, host, port) if is_numeric(host) else None

    def judge(self, address: str, port: int, names: Sequence[str] = (), *, is_own: bool = False) -> Verdict:
        """Whether a connection to an address may be made.

        Args:
            address: Of IPv4.
            port: Of TCP.
            names: What it was given for, in this sandbox, the last one first: any that may be connected to will do.
            is_own: As for `address_refusal`.
        """
        known_as = names or (address,)
        if self.mode == "none":
            return Verdict(known_as[0], NOTHING)
        hosts = [host for host in (*names, address) if self._is_among_hosts(host, port)]
        if not hosts:
            shown = " or ".join(_target(host, port) for host in known_as[:MAX_NAMES_TOLD])
            return Verdict(known_as[0], f"{shown} is not in network.hosts")
        refusals = {host: self.address_refusal(host, address, port, is_own=is_own) for host in hosts}
        passing = (host for host, reason in refusals.items() if reason is None)
        host = next(passing, hosts[0])
        return Verdict(host, refusals[host])

    def address_refusal(self, host: str, address: str, port: int | None, *, is_own: bool = False) -> str | None:
        """Why a target is refused for one of its addresses; which one is not told: whoever asks may not know this network.

        Args:
            host: As for `refusal`.
            address: Numeric, as a resolver gives it.
            port: Of TCP; None: it is refused only if no port of it may be reached.
            is_own: The address is one of this host, so that more may listen there than the world can reach.
        """
        kind = kind_of(address)
        if (kind in ANYBODYS and not is_own) or self.is_listed(host, address, port):
            return None
        place = "an address of Corral's own host" if is_own else PLACES[kind]
        return f"{_target(host, port)} is at {place}; {ALLOW_HINT}"

    def is_listed(self, host: str, address: str, port: int | None) -> bool:
        """Whether the operator lets instances reach it though it is not public.

        A name that is listed may lead to private addresses; to link-local ones and those of metadata, which whoever
        runs the name could point it to, only the address itself does.
        """
        by_name = kind_of(address) in (*ANYBODYS, "private") and self.lists(host, port)
        return by_name or self.lists(ipaddress.ip_address(address.partition("%")[0]).compressed, port)

    def lists(self, host: str, port: int | None) -> bool:
        """Whether the operator named this very host and port; None: any port."""
        return any(_matches(pattern, host, port) for pattern in self._private)

    def _is_among_hosts(self, host: str, port: int | None) -> bool:
        return self.mode == "open" or any(_matches(pattern, host, port) for pattern in self._hosts)


def _matches(pattern: HostPattern, host: str, port: int | None) -> bool:
    return pattern.matches(host, (pattern.port or 0) if port is None else port)


def _is_loopback(host: str) -> bool:
    return is_numeric(host) and host.startswith(LOOPBACK.partition(".")[0] + ".")


def _target(host: str, port: int | None) -> str:
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
