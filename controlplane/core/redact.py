"""Keep an instance's environment values out of everything that is stored or shown.

Pure. A value is found whole, line by line (output comes in lines, and keys in
PEM have many), and as JSON writes it. What is shorter than `MIN_LENGTH` is left
alone: replacing every "1" or "true" would ruin the log and hide nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping

MIN_LENGTH = 8


def redactor(env: Mapping[str, str]) -> Callable[[str], str]:
    """Return a function that replaces each secret value by `[redacted:NAME]`; longer values win over their parts."""
    names = {form: name for name, value in env.items() for form in _forms(value)}
    if not names:
        return lambda text: text
    pattern = re.compile("|".join(re.escape(form) for form in sorted(names, key=len, reverse=True)))
    return lambda text: pattern.sub(lambda found: f"[redacted:{names[found[0]]}]", text)


def _forms(value: str) -> Iterator[str]:
    """How a value may show up."""
    for part in {value, *value.split("\n")}:
        if len(part.strip()) >= MIN_LENGTH:
            yield from {part, part.strip(), _in_json(part, ascii_only=True), _in_json(part, ascii_only=False)}


def _in_json(text: str, *, ascii_only: bool) -> str:
    return json.dumps(text, ensure_ascii=ascii_only)[1:-1]
