"""Keep secrets and an instance's environment values out of everything that is stored or shown.

Pure. A value is found whole, line by line (output comes in lines, and keys in
PEM have many), as JSON and URLs write it, and in base64, also amid other text
(`Authorization: Basic …`).

An environment value shorter than `MIN_LENGTH` is left alone: replacing every "1"
or "true" would ruin the log and hide nothing. What somebody set as a secret is one
whatever it looks like: it is hidden from `SECRET_MIN_LENGTH` on, and shorter ones are
refused when they are set.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, quote_plus

from attrs import frozen

MIN_LENGTH = 8
"""Characters of an environment value, of a line of a longer value, and of an encoded form."""
SECRET_MIN_LENGTH = 4
"""Characters of a secret. Three are a word in any log: hiding them would show where they are, by what is missing."""


@frozen(eq=False)
class Redactor:
    """Replaces each secret value by `[redacted:NAME]`; longer values win over their parts."""

    longest: int
    """Characters of the longest form that is looked for: a piece of a text may end in so much of one, unseen."""
    _names: Mapping[str, str]
    _pattern: re.Pattern[str]
    _encoded: re.Pattern[str]
    _words: re.Pattern[str]
    """Where the encoded ones are looked for at all: most texts have no word that long, and looking costs ten times as much."""

    def __call__(self, text: str) -> str:
        if not self._names:
            return text
        told = self._pattern.sub(self._name, text)
        return self._words.sub(lambda word: self._encoded.sub(self._name, word[0]), told)

    def _name(self, found: re.Match[str]) -> str:
        return f"[redacted:{self._names[found[0]]}]"


def redactor(env: Mapping[str, str], secrets: Mapping[str, str] | None = None) -> Redactor:
    """Return what replaces each value of these variables, and each of these secrets by its own name.

    Args:
        env: Environment variables, with references to secrets filled in.
        secrets: What was set as a secret, by name.
    """
    known = secrets or {}
    written = {form: name for name, value in env.items() for form in _forms(value)}
    written |= {form: name for name, value in known.items() for form in _forms_of_secret(value)}
    long_enough = {name: value for name, value in env.items() if len(value.strip()) >= MIN_LENGTH}
    values = [*long_enough.items(), *known.items()]
    encoded = {form: name for name, value in values for form in _in_base64(value)}
    names = encoded | written
    shortest = min(map(len, encoded), default=0)
    words = re.compile(rf"[A-Za-z0-9+/_-]{{{shortest},}}" if encoded else r"(?!)")
    return Redactor(max(map(len, names), default=0), names, _any_of(written), _any_of(encoded), words)


def _any_of(forms: Iterable[str]) -> re.Pattern[str]:
    """Matches the longest of these at a place; none of them: nothing."""
    longest_first = sorted(forms, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _forms(value: str) -> Iterator[str]:
    """How a value may show up."""
    for part in {value, *value.split("\n")}:
        if len(part.strip()) >= MIN_LENGTH:
            yield from _written(part)


def _forms_of_secret(value: str) -> Iterator[str]:
    yield from _forms(value)
    if len(value.strip()) >= SECRET_MIN_LENGTH:
        yield from _written(value)


def _written(part: str) -> Iterator[str]:
    """A text as it is, and as JSON and URLs write it."""
    yield from {part, part.strip(), _in_json(part, ascii_only=True), _in_json(part, ascii_only=False)}
    if not part.isalnum():
        utf8 = part.encode("utf-8", "surrogatepass")
        yield from {quote(utf8, safe=""), quote_plus(utf8), quote(utf8)}


def _in_json(text: str, *, ascii_only: bool) -> str:
    return json.dumps(text, ensure_ascii=ascii_only)[1:-1]


def _in_base64(value: str) -> Iterator[str]:
    """The characters of base64 that depend on this value alone, for each place among the groups of three bytes."""
    content = value.encode("utf-8", "surrogatepass")
    for before in range(3):
        bits = before * 8
        first, last = -(-bits // 6), (bits + len(content) * 8) // 6
        encoded = base64.b64encode(bytes(before) + content).decode()[first:last]
        if len(encoded) >= MIN_LENGTH:
            yield from {encoded, encoded.translate(_URL_SAFE)}


_URL_SAFE = str.maketrans("+/", "-_")
