"""Keep an instance's environment values out of everything that is stored or shown.

Pure. A value is found whole, line by line (output comes in lines, and keys in
PEM have many), and as JSON writes it. What is shorter than `MIN_LENGTH` is left
alone: replacing every "1" or "true" would ruin the log and hide nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from attrs import frozen

MIN_LENGTH = 8


@frozen(eq=False)
class Redactor:
    """Replaces each secret value by `[redacted:NAME]`; longer values win over their parts."""

    longest: int
    """Characters of the longest form that is looked for: a piece of a text may end in so much of one, unseen."""
    _names: Mapping[str, str]
    _pattern: re.Pattern[str]

    def __call__(self, text: str) -> str:
        if not self._names:
            return text
        return self._pattern.sub(lambda found: f"[redacted:{self._names[found[0]]}]", text)


def redactor(env: Mapping[str, str]) -> Redactor:
    """Return what replaces each value of these variables."""
    names = {form: name for name, value in env.items() for form in _forms(value)}
    longest_first = sorted(names, key=len, reverse=True)
    pattern = re.compile("|".join(re.escape(form) for form in longest_first))
    return Redactor(max(map(len, names), default=0), names, pattern)


def _forms(value: str) -> Iterator[str]:
    """How a value may show up."""
    for part in {value, *value.split("\n")}:
        if len(part.strip()) >= MIN_LENGTH:
            yield from {part, part.strip(), _in_json(part, ascii_only=True), _in_json(part, ascii_only=False)}


def _in_json(text: str, *, ascii_only: bool) -> str:
    return json.dumps(text, ensure_ascii=ascii_only)[1:-1]
