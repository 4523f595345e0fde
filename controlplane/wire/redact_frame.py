"""A JSON-RPC message as it may be shown to people who watch it pass.

Pure. Secrets are looked for in what the strings of the message say, not in how
they are written: `\\u002B` is a plus sign, and `\\/` a slash, whoever escapes
them. A text that is JSON itself, as in many tool results, is looked through
alike. Numbers, the order of members and white space stay as they are.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from controlplane.core.rawjson import decode_or_none, encode_text
from controlplane.core.redact import SECRET_MIN_LENGTH
from controlplane.wire.redact import HIDDEN, MAX_NAME_CHARS, may_hold_secret, names_secret, redact_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from controlplane.core.redact import Redactor

FRAME_MAX_CHARS = 64 * 1024
"""Of one message. More is for a debugger; a screen and a queue of 2 MiB have use for less."""
TOKEN_MAX_CHARS = 16 * 1024
"""A longer token of a known shape, cut in two, might not be known by its first half."""
ESCAPED_CHARS = 6
"""What one character of a secret may take as JSON: `\\u0041`."""
BYTES_PER_CHAR = 4
NESTING_MAX = 3
"""JSON in a string in JSON in a string: deeper than this it is looked at as text."""

_LITERAL = re.compile(
    r'"(?P<text>[^"\\]*+(?:\\.[^"\\]*+)*+)(?P<rest>"?(?P<names>(?<=")\s*+:\s*+(?="))?)', re.DOTALL
)  # possessive: one scan of the text, however hostile
_ESCAPE = re.compile(r'(?P<valid>\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))|\\')
_NO_SECRETS = frozenset({"progressToken"})
"""Members that are called so for another reason."""


def shown_frame(raw: bytes, hide_values: Redactor, *, is_message: bool) -> tuple[str, bool]:
    """The text of a message without its secrets, and whether it was cut.

    Args:
        raw: Any bytes, without a newline.
        hide_values: Hides the values of the environment variables.
        is_message: Whether it is valid JSON; else it is judged as text as well.
    """
    # Redacted first and cut then, or the start of a secret would stay. At the end of a piece of a longer message, so
    # much is dropped as a secret that it cuts in two may have.
    blind = max(hide_values.longest * ESCAPED_CHARS, TOKEN_MAX_CHARS)
    room = FRAME_MAX_CHARS + blind
    text = raw[: room * BYTES_PER_CHAR].decode("utf-8", "backslashreplace")
    is_whole = len(text) <= room and len(raw) <= room * BYTES_PER_CHAR
    shown = redact_frame(text[:room], hide_values, is_message=is_message)
    if not is_whole:
        shown = shown[:-blind]
    return shown[:FRAME_MAX_CHARS], not is_whole or len(shown) > FRAME_MAX_CHARS


def redact_frame(text: str, hide_values: Callable[[str], str], *, is_message: bool) -> str:
    """The same for the whole of a text, or for its beginning."""
    shown = _in_literals(text, hide_values, NESTING_MAX)
    return hide_values(shown) if is_message else redact_text(shown, hide_values)


def _in_literals(text: str, hide_values: Callable[[str], str], depth: int) -> str:
    """Redact each string of a JSON text; what comes after the name of a secret is hidden whole."""
    is_secret = False
    # Without escapes, what holds for the whole holds for each string; and values are looked for in the whole as well.
    is_plain = "\\u00" not in text and "\\/" not in text and not may_hold_secret(text)

    def shown(found: re.Match[str]) -> str:
        nonlocal is_secret
        written, rest = found["text"], found["rest"]
        if is_secret and found["names"] is None:
            is_secret = False
            return f'"{HIDDEN}{rest}' if written else found[0]
        is_name = (
            found["names"] is not None and len(written) <= MAX_NAME_CHARS
        )  # or the cache would keep whole messages
        is_secret = is_name and _names_secret(written)
        if len(written) < SECRET_MIN_LENGTH or (is_plain and "\\" not in written):
            return found[0]
        said = _said(written)
        told = _redacted(said, hide_values, depth)
        return found[0] if told == said else f"{encode_text(told).decode()[:-1]}{rest}"

    return _LITERAL.sub(shown, text)


def _redacted(said: str, hide_values: Callable[[str], str], depth: int) -> str:
    if depth and said.lstrip()[:1] in ("{", "[") and decode_or_none(said.encode("utf-8", "replace")) is not None:
        return hide_values(_in_literals(said, hide_values, depth - 1))
    return redact_text(said, hide_values)


def _said(written: str) -> str:
    """What a string says, with the backslashes of what is no escape in JSON, or was cut in the middle of one."""
    if "\\" not in written:
        return written
    try:
        said: str = json.loads(f'"{written}"', strict=False)
    except ValueError:
        said = json.loads(f'"{_ESCAPE.sub(_mended, written)}"', strict=False)
    return said


def _mended(found: re.Match[str]) -> str:
    return found[0] if found["valid"] else "\\\\"


@lru_cache(maxsize=1024)
def _names_secret(name: str) -> bool:
    return name not in _NO_SECRETS and names_secret(name)
