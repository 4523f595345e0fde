"""JSON with comments and trailing commas, as `tsconfig.json` and `deno.jsonc` have it. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

_STRING = r'("(?:\\.|[^"\\])*")'
_COMMENT = re.compile(_STRING + r"|//[^\n]*|/\*.*?\*/", re.DOTALL)
_TRAILING_COMMA = re.compile(_STRING + r"|,(?=\s*[}\]])", re.DOTALL)


def loads(text: str) -> dict[str, Any]:
    """The object; empty if it is none, or cannot be read: whose file it is will say so better."""
    plain = _TRAILING_COMMA.sub(_kept, _COMMENT.sub(_kept, text))
    try:
        data = json.loads(plain)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _kept(match: re.Match[str]) -> str:
    return match[1] or ""
