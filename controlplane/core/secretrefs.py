"""References to secrets in the values of environment variables: `${secret:NAME}`.

Pure. A reference may stand anywhere in a value, as often as wanted
(`postgres://ada:${secret:DB_PASSWORD}@db/x`). `$${secret:` stands for the
characters `${secret:` themselves. Every other `$` is a character like any:
servers have templates of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

NAME_PATTERN = "^[A-Za-z_][A-Za-z0-9_]{0,127}$"
"""As of environment variables: a secret is mostly called like the one it is for."""
NAME_MAX_CHARS = 128
NAME_EXPECTS = f"a letter or `_`, then letters, digits or `_`, at most {NAME_MAX_CHARS}"

_NAME = re.compile(NAME_PATTERN.removesuffix("$") + r"\Z")
_OPENING = "${secret:"
_PLACE = re.compile(r"(?P<escaped>\$)?\$\{secret:(?:(?P<name>[^${}\s]*)(?P<end>\}))?")


class BadReference(ValueError):
    """A reference that cannot be read; the message says what is wrong, and holds nothing of the value around it."""


def is_name(text: str) -> bool:
    """Whether a secret can be called so."""
    return _NAME.match(text) is not None


def names_in(value: str) -> frozenset[str]:
    """The secrets that a value names.

    Raises:
        BadReference
    """
    if _OPENING not in value:
        return frozenset()
    return frozenset(_name_of(found) for found in _PLACE.finditer(value) if found["escaped"] is None)


def names_in_env(env: Mapping[str, str]) -> frozenset[str]:
    """The secrets that an accepted environment names; what cannot be read names none."""
    found: set[str] = set()
    for value in env.values():
        try:
            found |= names_in(value)
        except BadReference:  # from before references were looked at
            continue
    return frozenset(found)


def filled_in(value: str, secrets: Mapping[str, str]) -> str:
    """The value with each reference replaced by what it names.

    Raises:
        BadReference
        KeyError: `secrets` lacks one, which is its argument.
    """
    if _OPENING not in value:
        return value
    return _PLACE.sub(lambda found: _OPENING + _rest(found) if found["escaped"] else secrets[_name_of(found)], value)


def mentions(text: str) -> bool:
    """Whether a text that may hold no reference holds one, or something meant to be one."""
    return any(found["escaped"] is None for found in _PLACE.finditer(text))


def _rest(found: re.Match[str]) -> str:
    """What stood behind an escaped opening: it is text."""
    return (found["name"] or "") + (found["end"] or "")


def _name_of(found: re.Match[str]) -> str:
    name = found["name"]
    if found["end"] is None or name is None:
        raise BadReference(
            "`${secret:` has no end: write `${secret:NAME}`, or `$${secret:` for these characters themselves"
        )
    if not is_name(name):
        raise BadReference(f"`${{secret:…}}` names no secret: a name is {NAME_EXPECTS}")
    return name
