"""The JSON Schema keywords that requests are held to, as one pure function.

Only what the API's own classes use: bounds of numbers, lengths, patterns, and
the same for a list's items and an object's names and values. Types are the
converter's business; a keyword that does not fit a value's type says nothing,
as in JSON Schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from controlplane.errors import FieldError


def pointer_token(key: str | int) -> str:
    """Escape one reference token of a JSON Pointer (RFC 6901 section 3)."""
    return str(key).replace("~", "~0").replace("/", "~1")


def violations(value: Any, schema: Mapping[str, Any]) -> Iterator[FieldError]:
    """Every place where `value` breaks `schema`; pointers are relative to `value`.

    Args:
        value: Decoded JSON.
        schema: JSON Schema keywords; unknown ones are ignored.
    """
    if isinstance(value, str):
        yield from _here(_text(value, schema))
    elif isinstance(value, bool):
        return
    elif isinstance(value, (int, float)):
        yield from _here(_number(value, schema))
    elif isinstance(value, list):
        yield from _items(value, schema)
    elif isinstance(value, Mapping):
        yield from _members(value, schema)


def too_many(value: Any, schema: Mapping[str, Any]) -> str | None:
    """The one check worth making before a collection's members are looked at: its size."""
    if isinstance(value, list):
        return _at_most(len(value), schema.get("maxItems"), "item")
    if isinstance(value, Mapping):
        return _at_most(len(value), schema.get("maxProperties"), "member")
    return None


def _here(messages: Iterator[str]) -> Iterator[FieldError]:
    return (FieldError("", message) for message in messages)


def _at_most(count: int, ceiling: int | None, noun: str) -> str | None:
    if ceiling is None or count <= ceiling:
        return None
    return f"has {count:,} {noun}s, at most {ceiling:,} are allowed"


def _text(value: str, schema: Mapping[str, Any]) -> Iterator[str]:
    shortest = schema.get("minLength", 0)
    if len(value) < shortest:
        yield "must not be empty" if shortest == 1 else f"must have at least {shortest:,} characters"
    elif (too_long := _at_most(len(value), schema.get("maxLength"), "character")) is not None:
        yield too_long
    elif "pattern" in schema and not _compiled(schema["pattern"]).fullmatch(value):
        yield f"expected {schema.get('x_expects') or 'text that matches ' + schema['pattern']}"


@lru_cache(maxsize=64)  # there are about ten patterns in the whole API
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _number(value: float, schema: Mapping[str, Any]) -> Iterator[str]:
    if "minimum" in schema and value < schema["minimum"]:
        yield f"must be at least {schema['minimum']:,}"
    if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
        yield f"must be greater than {schema['exclusiveMinimum']:,}"
    if "maximum" in schema and value > schema["maximum"]:
        yield f"must be at most {schema['maximum']:,}"


def _items(value: list[Any], schema: Mapping[str, Any]) -> Iterator[FieldError]:
    if (crowded := too_many(value, schema)) is not None:
        yield FieldError("", crowded)
        return
    if not value and schema.get("minItems"):
        yield FieldError("", "must not be empty")
    if (inner := schema.get("items")) is not None:
        for index, item in enumerate(value):
            yield from _under(index, item, inner)


def _members(value: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[FieldError]:
    if (crowded := too_many(value, schema)) is not None:
        yield FieldError("", crowded)
        return
    names, inner = schema.get("propertyNames"), schema.get("additionalProperties")
    for key, member in value.items():
        if names is not None:
            yield from (
                FieldError(f"/{pointer_token(key)}", f"name: {wrong.message}") for wrong in violations(key, names)
            )
        if isinstance(inner, Mapping):
            yield from _under(key, member, inner)


def _under(key: str | int, value: Any, schema: Mapping[str, Any]) -> Iterator[FieldError]:
    return (FieldError(f"/{pointer_token(key)}{wrong.pointer}", wrong.message) for wrong in violations(value, schema))
