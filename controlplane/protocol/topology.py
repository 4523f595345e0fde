"""Which process of an instance serves which client: one process per era and set of client capabilities. Pure.

A server that knows both eras locks the one of its first frame, and a legacy
server acts on the capabilities it was told of once. So the process that
`execute` uses (the primary, told of no capabilities) serves whom it can, and
the others are started for the clients that need them.
"""

from __future__ import annotations

from enum import Enum

from controlplane.protocol.handshake import Era


class Place(Enum):
    """Where a client is served."""

    PRIMARY = "primary"
    SHARED = "shared"
    """A legacy process of all clients with the same capabilities."""
    PRIVATE = "private"
    """A legacy process of its own."""


def place_legacy(server: Era, *, asks: bool, private: bool, refuses_legacy: bool) -> Place:
    """Where a client of the legacy era is served.

    Args:
        server: The era that the primary is spoken to in.
        asks: Whether the client declared a capability, so that a server may ask it.
        private: Whether the instance gives each session a process of its own.
        refuses_legacy: Whether the server is known to refuse `initialize`.
    """
    if server is Era.BARE or (server is Era.MODERN and refuses_legacy):
        return Place.PRIMARY
    if private:
        return Place.PRIVATE
    return Place.PRIMARY if server is Era.LEGACY and not asks else Place.SHARED


def place_modern(server: Era, *, asks: bool) -> Place:
    """Where a request of the modern era is served; see `place_legacy`."""
    return Place.SHARED if server is Era.LEGACY and asks else Place.PRIMARY
