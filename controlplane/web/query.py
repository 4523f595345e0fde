"""Query strings, as strictly as bodies: closed set of names, typed values, all wrong places at once.

A route's parameters are an attrs class; the same class is documented in
OpenAPI. A list parameter may be repeated or written with commas; any other may
come once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin
from urllib.parse import parse_qsl

import attrs

from controlplane.errors import FieldError
from controlplane.wire.keywords import violations
from controlplane.wire.wrong import invalid_request, shortened, unknown_name

MAX_PAIRS = 100
"""Pairs in a query string: every parameter of any route, several times over."""

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(?:\.[0-9]{1,20})?(?:[eE][+-]?[0-9]{1,3})?")
_SPACE_FOR_PLUS = re.compile(r" (?=[0-9]{2}:[0-9]{2}$)")

T = TypeVar("T")


class _Unfit(Exception):
    """The text is not of the parameter's type; the message says what was expected."""


@attrs.frozen(kw_only=True)
class NoQuery:
    """For routes that take no parameters."""


def parse_query(raw: bytes, cls: type[T]) -> T:
    """Read a query string into `cls`.

    Args:
        raw: The query string as sent, without the question mark.
        cls: The route's parameter class.

    Raises:
        InvalidRequest: names every parameter that is unknown, repeated or not of its type.
    """
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PAIRS)
    except ValueError:  # UnicodeDecodeError is one as well
        raise invalid_request(
            [FieldError("?", "the query string is not UTF-8 in percent-encoding, or too long")]
        ) from None
    given: dict[str, list[str]] = {}
    for name, text in pairs:
        given.setdefault(name, []).append(text)
    known = _parameters(cls)
    errors = [
        FieldError(f"?{shortened(name)}", unknown_name("query parameter", name, known))
        for name in given
        if name not in known
    ]
    values: dict[str, Any] = {}
    for name, attribute in known.items():
        if name in given:
            value, wrong = _read(attribute, given[name])
            values[name] = value
            errors += [FieldError(f"?{name}", message) for message in wrong]
    if errors:
        raise invalid_request(errors)
    return cls(**values)


def _parameters(cls: type[Any]) -> dict[str, attrs.Attribute[Any]]:
    attrs.resolve_types(cls)
    return {attribute.name: attribute for attribute in attrs.fields(cls)}


def _read(attribute: attrs.Attribute[Any], texts: list[str]) -> tuple[Any, list[str]]:
    annotation = _stated(attribute.type)
    try:
        if get_origin(annotation) is list:
            (item,) = get_args(annotation)
            value: Any = [_coerce(part, item) for text in texts for part in text.split(",")]
        elif len(texts) > 1:
            raise _Unfit("may be given once only")
        else:
            value = _coerce(texts[0], annotation)
    except _Unfit as unfit:
        return None, [str(unfit)]
    return value, list(_broken(value, attribute))


def _broken(value: Any, attribute: attrs.Attribute[Any]) -> Iterator[str]:
    return (wrong.message for wrong in violations(value, attribute.metadata.get("schema", {})))


def _coerce(text: str, annotation: Any) -> Any:
    if "\0" in text:
        raise _Unfit("must not contain a NUL character")
    if get_origin(annotation) is Literal:
        return _word(text, get_args(annotation))
    if annotation is int:
        return int(_matching(text, _WHOLE, "a whole number"))
    if annotation is float:
        return float(_matching(text, _NUMBER, "a number"))
    if annotation is bool:
        return _word(text.lower(), ("true", "1", "false", "0")) in {"true", "1"}
    if annotation is datetime:
        return _moment(text)
    return text


def _matching(text: str, pattern: re.Pattern[str], expected: str) -> str:
    if not pattern.fullmatch(text):
        raise _Unfit(f"expected {expected}, got `{shortened(text)}`")
    return text


def _word(text: str, allowed: tuple[str, ...]) -> str:
    if text not in allowed:
        raise _Unfit(f"expected one of {', '.join(f'`{word}`' for word in allowed)}, got `{shortened(text)}`")
    return text


def _moment(text: str) -> datetime:
    """RFC 3339 with a zone. An unescaped `+` of the zone has become a space on the way; it is read as meant."""
    try:
        moment = datetime.fromisoformat(_SPACE_FOR_PLUS.sub("+", text))
        if moment.tzinfo is None:
            raise _Unfit("needs a time zone: write 2026-01-31T12:00:00Z")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _Unfit("expected a time like 2026-01-31T12:00:00Z") from None


def _stated(annotation: Any) -> Any:
    """The `X` of `X | None`: a parameter is absent, never null."""
    members = [member for member in get_args(annotation) if member is not NoneType]
    return members[0] if NoneType in get_args(annotation) else annotation
