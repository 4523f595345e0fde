"""JSON as editors write it, with comments and trailing commas. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

_JSONC = re.compile(r'("(?:[^"\\\n]|\\.)*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_TRAILING_COMMA = re.compile(r'("(?:[^"\\\n]|\\.)*")|,(?=\s*[}\]])')


def plain_json(text: str) -> str:
    """Return the document without comments and trailing commas; each becomes blanks, so that places stay right."""
    text = _JSONC.sub(lambda match: match[1] or re.sub(r"[^\n]", " ", match[0]), text)
    return _TRAILING_COMMA.sub(lambda match: match[1] or " ", text)


def read_jsonc(text: str) -> Any:
    """Parse a document.

    Raises:
        ValueError: it is none; the message says where.
    """
    try:
        return json.loads(plain_json(text))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
