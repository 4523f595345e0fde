"""What is wrong with a request, where, and how that is said to a person. Pure.

Errors are found relative to a value and carried up, a step of a JSON Pointer
at a time, until they are relative to the body.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import attrs
from cattrs import ClassValidationError, ForbiddenExtraKeysError

from controlplane.errors import FieldError, InvalidRequest
from controlplane.wire.keywords import pointer_token

MAX_ERRORS = 100
"""Wrong places reported at once: enough for any honest body, small beside a hostile one."""
MAX_NAME_CHARS = 64
"""Characters of an unknown field's name that are compared and repeated in an answer."""


class Wrong(Exception):
    """A value of the wrong shape; pointers are relative to the value."""

    def __init__(self, errors: Iterable[FieldError]) -> None:
        super().__init__()
        self.errors = tuple(islice(errors, MAX_ERRORS))


def invalid_request(errors: Iterable[FieldError]) -> InvalidRequest:
    """The one form in which wrong places are reported, whoever found them."""
    found = tuple(islice(errors, MAX_ERRORS))
    first = f"{found[0].pointer or 'the body'}: {found[0].message}"
    count = f"{MAX_ERRORS} places or more are" if len(found) == MAX_ERRORS else f"{len(found)} places are"
    detail = first if len(found) == 1 else f"{count} wrong; the first is {first}"
    return InvalidRequest(detail, errors=found)


def places(error: BaseException) -> Iterator[FieldError]:
    """Every wrong place that an exception of a structure hook tells of; any other exception is raised again."""
    match error:
        case Wrong():
            yield from error.errors
        case ClassValidationError():
            attributed, bare = error.group_exceptions()
            for inner, note in attributed:
                yield from under(note.name, places(inner))
            for extra in bare:
                yield from _unknown(extra)
        case KeyError():
            yield FieldError("", "is required")
        case _:
            raise error


def under(key: str | int, errors: Iterable[FieldError]) -> Iterator[FieldError]:
    """The same errors, seen from the object or list that holds the value under `key`."""
    return (FieldError(f"/{pointer_token(key)}{wrong.pointer}", wrong.message) for wrong in errors)


def _unknown(error: Exception) -> Iterator[FieldError]:
    if not isinstance(error, ForbiddenExtraKeysError):
        raise error
    known = [attribute.name for attribute in attrs.fields(error.cl)]
    for name in sorted(islice(error.extra_fields, MAX_ERRORS)):
        yield FieldError(f"/{pointer_token(shortened(name))}", unknown_name("field", name, known))


def shortened(name: str) -> str:
    """A client's own word, bounded, for an answer."""
    return name if len(name) <= MAX_NAME_CHARS else f"{name[:MAX_NAME_CHARS]}…"


def unknown_name(noun: str, name: str, known: Iterable[str]) -> str:
    """Say that `name` is not known, and which known one it looks like."""
    word = shortened(name)
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"unknown {noun} `{word}`" + (f"; did you mean `{close[0]}`?" if close else "")


def kind(value: Any) -> str:
    """The JSON name of a decoded value's type, with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
    return "an object"


def refuse(expected: str, value: Any) -> Wrong:
    """The error for a value of another type."""
    return Wrong([FieldError("", f"expected {expected}, got {kind(value)}")])
