"""Severities of log messages, and which of them a client asked for.

Pure. Legacy clients name a minimum for their session (`logging/setLevel`),
modern ones for a request (`io.modelcontextprotocol/logLevel`); a server knows
one minimum at most, so what clients get is decided here.
"""

from __future__ import annotations

from controlplane.core.rawjson import decode_or_none, members

LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
"""RFC 5424, section 6.2.1, least severe first."""
_RANKS = {level: rank for rank, level in enumerate(LEVELS)}


def passes(level: str | None, minimum: str | None) -> bool:
    """Whether a message of this level goes to a client that asked for this minimum.

    Args:
        level: The message's. One that is no level passes: better an odd line than a lost one.
        minimum: The client's. With none, or one that is no level, nothing passes: a modern client did not ask for
            messages; for a legacy one that never set a level the caller decides.
    """
    if minimum not in _RANKS:
        return False
    return _RANKS.get(level or "", len(LEVELS)) >= _RANKS[minimum]


def level_in(params: bytes | None) -> str | None:
    """The level in the raw parameters of `notifications/message` or `logging/setLevel`, None where there is none."""
    found = None if params is None else members(params)
    raw = None if found is None else found.get("level")
    level = None if raw is None else decode_or_none(bytes(raw))
    return level if isinstance(level, str) else None


def minimum_in(params: bytes | None) -> str:
    """The minimum that `logging/setLevel` asks for.

    Raises:
        ValueError: it names no level (JSON-RPC -32602); the text is a sentence.
    """
    level = level_in(params)
    if level not in _RANKS:
        raise ValueError(f"`level` must be one of {', '.join(LEVELS)}")
    return level
