"""Foreign text made harmless for a terminal: what a server, a person or a program wrote is shown, never obeyed.

Pure. Control characters would be obeyed by a terminal (CWE-150), direction-changing and invisible ones would lie to
its reader; each becomes a visible escape.
"""

from __future__ import annotations

import json
import re

_INVISIBLE = "\u115f\u1160\u180e\u3164\uffa0\ufffc\U000e0000-\U000e007f"
"""Fillers, and the tag block: a whole alphabet that models read and nobody sees."""
_UNSAFE = re.compile(
    f"[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb{_INVISIBLE}\ud800-\udfff]"
)
"""C0 and C1 controls, invisible and direction-changing characters, lone surrogates."""
_UNSAFE_IN_JSON = re.compile(
    f"[\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb{_INVISIBLE}]"
)
"""Of these, the ones that may stand raw in a JSON document: escaped there, they mean the same."""
_COLOUR_SEQUENCE = re.compile("\x1b\\[[0-9;:]{0,64}m")


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def clean(value: object) -> str:
    """Return one line of foreign text with every character that a terminal would obey made visible."""
    return _UNSAFE.sub(_escape, str(value).replace("\t", "    "))


def clean_lines(value: object) -> list[str]:
    """Return the lines of foreign text, each clean; a program's colours are dropped."""
    text = _COLOUR_SEQUENCE.sub("", str(value))
    return [clean(line) for line in re.split(r"\r\n|\n|\r", text.rstrip("\r\n"))]


def clean_json(body: bytes) -> str:
    """Return a JSON document as it came, but for characters a terminal would obey, which become JSON escapes."""
    text = body.decode("utf-8", "replace").strip()
    return _UNSAFE_IN_JSON.sub(lambda match: json.dumps(match[0])[1:-1], text)
