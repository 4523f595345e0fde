"""W3C Trace Context: who asked, as `traceparent` and `tracestate` say it. Pure.

What is malformed counts as absent, as the recommendation wants it: a wrong
field must never fail a request. A malformed `tracestate` costs itself only.
"""

from __future__ import annotations

import re

from attrs import frozen

SAMPLED = 1
KNOWN_FLAGS = 3
"""Sampled, and random trace id (level 2); the others are not passed on, as nobody knows what they promise."""
STATE_MAX_CHARS = 512
STATE_MAX_MEMBERS = 32
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_MEMBER = re.compile(r"[a-z0-9][a-z0-9_*/@-]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{1,256}")


@frozen(slots=True)
class TraceContext:
    """One span of a trace, as it is named to others. `is_remote`: it came in from outside."""

    trace_id: str
    """32 hexadecimal digits; `span_id` has 16."""
    span_id: str
    flags: int = 0
    state: str = ""
    is_remote: bool = False

    @property
    def is_sampled(self) -> bool:
        return bool(self.flags & SAMPLED)

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


def parse(traceparent: bytes | str | None, tracestate: bytes | str | None = None) -> TraceContext | None:
    """Read what a client sent; None for nothing and for what is malformed.

    Args:
        traceparent: Of one field; two that were joined by a comma are malformed.
        tracestate: Fields that came more than once may be joined by a comma.
    """
    if not traceparent:
        return None
    found = _PARENT.fullmatch(_text(traceparent).strip(" \t"))
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more is not None) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    state = _state(_text(tracestate)) if tracestate else ""
    return TraceContext(trace_id, span_id, int(flags, 16) & KNOWN_FLAGS, state, is_remote=True)


def _text(raw: bytes | str) -> str:
    return raw.decode("latin-1") if isinstance(raw, bytes) else raw


def _state(text: str) -> str:
    members = [member.strip(" \t") for member in text.split(",")]
    members = [member for member in members if member]
    keys = {member.partition("=")[0] for member in members}
    is_sound = (
        len(members) <= STATE_MAX_MEMBERS
        and len(keys) == len(members)
        and all(_MEMBER.fullmatch(member) for member in members)
    )
    state = ",".join(members)
    return state if is_sound and len(state) <= STATE_MAX_CHARS else ""
