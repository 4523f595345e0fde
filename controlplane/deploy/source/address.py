"""Which hosts may be fetched from, and at which addresses: public ones, unless the operator says otherwise.

A name is resolved once, all that it leads to is judged, and what was judged is what is connected to (`Route`), so that
a name cannot lead elsewhere a moment later. Behind an egress proxy (HTTPS_PROXY) names are the proxy's to resolve and
to judge: this host may not even be able to.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio
from attrs import field, frozen

from controlplane.core.addresses import is_numeric, kind_of
from controlplane.core.proxies import proxy_to, variable
from controlplane.errors import SourceRejected

RESOLVE_LIMIT_S = 10.0
"""A resolver that works answers within one; the system's own gives up after 5 s per server."""
MAX_ADDRESSES = 8
"""Of one name, that are tried. All are judged."""
ALLOW_HINT = "sources come from public addresses; the operator can allow private ones with SOURCE_ALLOW_PRIVATE=true"

Resolver = Callable[..., Awaitable[list[Any]]]
"""As `trio.socket.getaddrinfo`."""


@frozen(kw_only=True)
class Egress:
    """How this control plane reaches other hosts.

    Args:
        allow_private: Whether private and loopback addresses may be fetched from.
        environ: Variables of the control plane: HTTPS_PROXY (ALL_PROXY), NO_PROXY, and SSL_CERT_FILE.
        resolver: Stands in for the system's.
    """

    allow_private: bool = False
    environ: Mapping[str, str] = field(factory=dict, repr=False)
    resolver: Resolver = field(default=trio.socket.getaddrinfo, repr=False)

    def variable(self, *names: str) -> str | None:
        """The first of these variables that says something."""
        return variable(self.environ, *names)

    def proxy_to(self, host: str, port: int) -> str | None:
        """The proxy that leads to a host, if any."""
        return proxy_to(self.environ, host, port)


@frozen(kw_only=True)
class Route:
    """The way to one host: addresses that were judged, or a proxy that judges."""

    addresses: tuple[str, ...] = ()
    proxy: str | None = field(default=None, repr=False)


def is_allowed(address: str, *, allow_private: bool = False) -> bool:
    """Whether an address (numeric, as a resolver gives it) may be fetched from. Pure."""
    kind = kind_of(address)
    return kind == "public" or (kind == "private" and allow_private)


async def resolve(
    host: str, port: int, *, allow_private: bool, resolver: Resolver = trio.socket.getaddrinfo
) -> tuple[str, ...]:
    """Every address of a host, all of which may be fetched from; up to `MAX_ADDRESSES`, the resolver's order kept.

    Raises:
        SourceRejected: one may not, or there is none.
    """
    try:
        with trio.fail_after(RESOLVE_LIMIT_S):
            found = await resolver(host, port, type=socket.SOCK_STREAM)
    except trio.TooSlowError:
        raise SourceRejected(f"the host {host} could not be looked up within {RESOLVE_LIMIT_S:g} s") from None
    except (OSError, UnicodeError):
        raise SourceRejected(
            f"the host {host} cannot be found", hint="check the address for a slip of the pen"
        ) from None
    addresses = tuple(dict.fromkeys(entry[4][0] for entry in found))
    if not addresses:
        raise SourceRejected(f"the host {host} has no address")
    if not all(is_allowed(address, allow_private=allow_private) for address in addresses):
        # which address it is, is not told: whoever asks may not know this network
        raise SourceRejected(f"the host {host} is not at an address that may be fetched from", hint=ALLOW_HINT)
    return addresses[:MAX_ADDRESSES]


async def route_to(host: str, port: int, egress: Egress) -> Route:
    """The way to a host.

    Raises:
        SourceRejected: it may not be fetched from.
    """
    proxy = egress.proxy_to(host, port)
    if proxy is None:
        addresses = await resolve(host, port, allow_private=egress.allow_private, resolver=egress.resolver)
        return Route(addresses=addresses)
    if not proxy.lower().startswith(("http://", "https://")):
        raise SourceRejected(
            "nothing can be fetched: the proxy of this control plane is of a kind that it cannot use",
            hint="the operator sets HTTPS_PROXY to an http:// address",
        )
    if is_numeric(host) and not is_allowed(host, allow_private=egress.allow_private):
        raise SourceRejected(f"the host {host} is not an address that may be fetched from", hint=ALLOW_HINT)
    return Route(proxy=proxy)
