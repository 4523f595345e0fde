"""Protocol versions as an enumerated set: which of them does what.

Pure. Versions look like dates but are names; nothing here compares them as
strings (MCP, versioning).
"""

from __future__ import annotations

from controlplane.protocol.handshake import LEGACY_VERSIONS, MODERN_VERSION

__all__ = ["LEGACY_VERSIONS", "MODERN_VERSION", "SUPPORTED", "is_legacy", "may_batch", "negotiate", "primes_streams"]

SUPPORTED = (MODERN_VERSION, *LEGACY_VERSIONS)
"""What the endpoint serves, newest first."""
_BATCHING = frozenset({"2025-03-26"})
"""Batches came with this version and went with the next."""
_PRIMED = frozenset({"2025-11-25"})


def negotiate(requested: str | None) -> str:
    """Choose the version that `initialize` is answered with: the client's own if Corral knows it, else the newest.

    Args:
        requested: `protocolVersion` as the client sent it, None where it sent no text. A modern version is none that
            `initialize` can agree on.

    Source: MCP 2025-11-25, lifecycle, version negotiation.
    """
    return requested if requested in LEGACY_VERSIONS else LEGACY_VERSIONS[0]


def is_legacy(version: str | None) -> bool:
    """Whether this version begins with `initialize`."""
    return version in LEGACY_VERSIONS


def may_batch(version: str | None) -> bool:
    """Whether a client of this version may send JSON-RPC batches (MCP 2025-03-26, transports)."""
    return version in _BATCHING


def primes_streams(version: str | None) -> bool:
    """Whether an event stream begins with an event of an id and no data, from which it can be resumed (SEP-1699).

    Clients of older versions try to parse that empty data.
    """
    return version in _PRIMED
