"""JSON that passes through: looked into where needed, and otherwise the bytes that its author wrote.

Pure. Numbers of any size, unknown members and white space stay as they are.
Half a surrogate pair (`"\\ud83d"`) is valid JSON that the decoder refuses;
`JSON.stringify` and `json.dumps` write it, so it is looked through here.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

SECOND_LOOK_MAX_BYTES = 256 * 1024
"""Longer JSON that does not parse is not looked at again: this many bytes cost up to 40 ms, whenever a child likes."""
UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

_HALF_PAIR = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
_MARK = b"\xff"
"""Stands for the `\\u` of a surrogate: no UTF-8 text holds this byte, and the decoder lets it pass in raw values."""


def encode(value: Any) -> bytes:
    """Compact JSON."""
    return _encode(value)


def encode_text(text: str) -> bytes:
    """A JSON string, of half surrogate pairs too."""
    try:
        return _encode(text)
    except UnicodeEncodeError:
        return json.dumps(text).encode()


def decode_or_none(raw: bytes | None) -> Any:
    """Decode what another side wrote, for our own use; half a surrogate pair becomes U+FFFD.

    None when it cannot be decoded (no JSON, bad UTF-8, numbers or nesting without end).
    """
    if raw is None:
        return None
    try:
        return _decode(raw)
    except UNDECODABLE:
        return _decode_mended(raw)


def _decode_mended(raw: bytes) -> Any:
    if len(raw) > SECOND_LOOK_MAX_BYTES:
        return None
    try:
        return _decode(_HALF_PAIR.sub(lambda found: b"\\ufffd" if found[1] else found[0], raw))
    except UNDECODABLE:
        return None


def members(raw: bytes) -> dict[str, msgspec.Raw] | None:
    """An object's members, their values raw, so that they can be encoded again as they were; None for anything else."""
    try:
        return _decode_members(raw)
    except UNDECODABLE:
        masked = mask(raw)
    try:
        found = None if masked is None else _decode_members(masked)
    except UNDECODABLE:
        return None
    return found and {name: msgspec.Raw(unmask(bytes(value))) for name, value in found.items()}


def items(raw: bytes) -> list[bytes] | None:
    """A list's items, each raw; None for anything else."""
    try:
        return [bytes(item) for item in _decode_items(raw)]
    except UNDECODABLE:
        masked = mask(raw)
    try:
        return None if masked is None else [unmask(bytes(item)) for item in _decode_items(masked)]
    except UNDECODABLE:
        return None


def mask(raw: bytes) -> bytes | None:
    """Hide half surrogate pairs from the decoder (whole ones may be part of a member's name); None if there are none, or if it is no text, or too long to try again."""
    if len(raw) > SECOND_LOOK_MAX_BYTES or not is_utf8(raw):
        return None
    masked = _HALF_PAIR.sub(lambda found: _MARK + found[1][1:] if found[1] else found[0], raw)
    return None if masked == raw else masked


def unmask(raw: bytes) -> bytes:
    """Undo `mask`, in any part of what it returned."""
    return raw.replace(_MARK, b"\\u")


def is_utf8(raw: bytes) -> bool:
    """Whether this is text at all; the decoder does not look into what it leaves raw."""
    if raw.isascii():
        return True
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def one_line(raw: bytes) -> bytes:
    """Make raw JSON fit one line; a line break in valid JSON is only ever white space between tokens."""
    if b"\n" in raw or b"\r" in raw:
        return raw.replace(b"\n", b" ").replace(b"\r", b" ")
    return raw
