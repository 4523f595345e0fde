"""Text and JSON as Postgres takes them; pure.

A server may legally print what Postgres refuses: NUL in text (SQLSTATE 22021),
`\\u0000` (22P05) and lone surrogates (22P02) in jsonb, NaN, endless nesting (54001),
numbers of any length. Such characters become visible escapes, so that a line is
kept, readable, and marked; the wire always carries the original.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import msgspec

LINE_MAX_BYTES = 16 * 1024
"""A longer log line is cut: nobody reads it, and one line must not fill the journal."""
JSON_MAX_BYTES = 256 * 1024
"""Larger JSON is replaced by a note of its size."""
JSON_MAX_DEPTH = 64
"""Far from Postgres's own limit (its stack), further than any event needs."""
INTEGER_MAX_BITS = 4096
"""Above it, numbers are written as text: turning them into decimal is quadratic."""

_REFUSED = re.compile("[\x00\ud800-\udfff]")


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def clean_text(text: str) -> tuple[str, bool]:
    """Replace what Postgres refuses by visible escapes; says whether anything was."""
    if _REFUSED.search(text) is None:
        return text, False
    return _REFUSED.sub(_escape, text), True


def is_clean(text: str) -> bool:
    """Whether Postgres takes this text as it stands."""
    return _REFUSED.search(text) is None


def cut_line(text: str, max_bytes: int = LINE_MAX_BYTES) -> str:
    """Cut a line to `max_bytes` of UTF-8, with a mark that says how long it was."""
    if len(text) * 4 <= max_bytes:
        return text
    encoded = text.encode("utf-8", "surrogatepass")
    if len(encoded) <= max_bytes:
        return text
    mark = f" … [cut: the line had {len(encoded)} bytes]"
    kept = encoded[: max_bytes - len(mark.encode())]
    return _whole_characters(kept).decode("utf-8", "surrogatepass") + mark


def _whole_characters(encoded: bytes) -> bytes:
    """Drop the bytes of a character that was cut in half at the end (at most 3)."""
    for back in range(1, min(4, len(encoded)) + 1):
        byte = encoded[-back]
        if byte & 0xC0 == 0x80:
            continue
        width = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
        return encoded if width == back else encoded[:-back]
    return encoded


def clean_json(value: Any, depth: int = 0) -> Any:
    """A JSON value that Postgres's jsonb takes; what it would refuse becomes readable text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return clean_text(value)[0]
    if isinstance(value, int):
        return value if value.bit_length() <= INTEGER_MAX_BITS else hex(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth >= JSON_MAX_DEPTH:
        return "[nested too deeply]"
    if isinstance(value, Mapping):
        return {clean_text(str(key))[0]: clean_json(member, depth + 1) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean_json(member, depth + 1) for member in value]
    return clean_text(str(value))[0]


def json_text(value: Any, max_bytes: int = JSON_MAX_BYTES) -> str:
    """JSON text for a jsonb column, cleaned and bounded."""
    encoded = _encode(clean_json(value))
    if len(encoded) > max_bytes:
        encoded = _encode({"cut": f"{len(encoded)} bytes of JSON are more than is kept ({max_bytes})"})
    return encoded.decode()


def _encode(value: Any) -> bytes:
    return msgspec.json.encode(value)
