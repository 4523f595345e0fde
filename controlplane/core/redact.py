"""Keep secrets and an instance's environment values out of everything that is stored or shown.

Pure. A value is found whole, line by line (output comes in lines, and keys in
PEM have many), as JSON, URLs and Python write it, and in base64, also amid other
text (`Authorization: Basic …`). JSON has dialects: what one language writes as it is,
another escapes, and hexadecimal digits are of either case.

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
    ends: dict[str, list[str]] = {}
    for form in sorted(forms, key=len, reverse=True):
        ends.setdefault(form[:SECRET_MIN_LENGTH], []).append(re.escape(form[SECRET_MIN_LENGTH:]))
    # By their beginnings: what forms of one value have in common is compared once.
    longest_first = sorted(ends.items(), key=lambda item: len(item[0]), reverse=True)
    return re.compile("|".join(f"{re.escape(start)}(?:{'|'.join(rest)})" for start, rest in longest_first) or r"(?!)")


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
    """A text as it is, and as JSON, URLs and Python write it."""
    yield from {part, part.strip()}
    if not (part.isascii() and part.isalnum()):
        yield from {*_in_json(part), *_in_urls(part), *_in_python(part)}


def _in_json(text: str) -> Iterator[str]:
    """As the libraries of several languages do."""
    as_it_is = json.dumps(text, ensure_ascii=False)[1:-1]
    in_ascii = json.dumps(text)[1:-1]
    for written in (as_it_is, in_ascii):
        yield from (written, written.replace("/", r"\/"))  # the latter is PHP's
    yield from (as_it_is.translate(_FOR_HTML), as_it_is.translate(_GSON))
    yield from (in_ascii.translate(_FOR_HTML), in_ascii.translate(_FLASK))
    for written in (in_ascii, in_ascii.translate(_FOR_HTML), in_ascii.replace(r"\"", r"\u0022").translate(_DOTNET)):
        yield _JSON_ESCAPE.sub(_in_upper_case, written)


def _escapes(characters: str) -> dict[int, str]:
    return {ord(character): f"\\u{ord(character):04x}" for character in characters}


_FOR_HTML = _escapes("&<>\u2028\u2029")
"""Go's, and that of Rails."""
_FLASK = _escapes("&<>'")
_GSON = _escapes("&<>'=\u2028\u2029")
_DOTNET = _escapes("&<>'+`")
_JSON_ESCAPE = re.compile(r"\\(?:u[0-9a-f]{4}|.)")


def _in_upper_case(escape: re.Match[str]) -> str:
    return f"\\u{escape[0][2:].upper()}" if escape[0][1] == "u" else escape[0]


def _in_urls(text: str) -> Iterator[str]:
    """In percent escapes, which are of either case."""
    utf8 = text.encode("utf-8", "surrogatepass")
    for written in (quote_plus(utf8), *(quote(utf8, safe) for safe in _SAFE_IN_URLS)):
        yield from (written, _PERCENT.sub(lambda escape: escape[0].lower(), written))


_SAFE_IN_URLS = ("", "/", "!'()*", ";/?:@&=+$,#!'()*", "$&+,;=")
"""What is not escaped: two ways of Python's, JavaScript's `encodeURIComponent` and `encodeURI`, and Go's for a password."""
_PERCENT = re.compile("%..")


def _in_python(text: str) -> Iterator[str]:
    """What stands between the quotes of a `repr`; the quote itself is escaped where the text around has both kinds."""
    quotes = "\"'"
    utf8 = (quotes + text).encode("utf-8", "surrogatepass")
    for shown in (repr(quotes + text), ascii(quotes + text), repr(utf8)[1:]):
        written = shown[len(repr(quotes)) - 1 : -1]
        yield from (written, written.replace(r"\'", "'"))


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
