"""What is wrong with a value by its schema, as far as that can be told here without asking the server. Pure.

Only the server decides; a complaint here is advice. A pattern is only tried when it cannot take long: Python's
matching has no bound, and the pattern is a stranger's.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from tui.inspector.jsontext import compact, kind_of, same

PATTERN_CHARS = 200
"""Longer patterns, and patterns on longer texts, are left to the server."""
MAX_REPEATS = 3
"""Unbounded repetitions in one pattern: with k of them, matching n characters may take n^k steps."""
_NESTED = re.compile(r"\)[*+?{]|\\[1-9]|\(\?P=")
_REPEAT = re.compile(r"[*+]|\{\d*,")


def complaint(schema: Mapping[str, Any], value: Any) -> str:
    """Say what is wrong with a value; empty: nothing that is seen from here."""
    if "enum" in schema and isinstance(schema["enum"], list) and not any(same(value, one) for one in schema["enum"]):
        return "is none of the choices"
    kind = kind_of(value)
    if not _fits(schema.get("type"), kind, value):
        return f"expected {_named(schema['type'])}, got {kind}"
    if kind in ("integer", "number"):
        return _number(schema, value)
    if kind == "string":
        return _text(schema, value)
    return _items(schema, value) if kind == "array" else ""


def _fits(wanted: Any, kind: str, value: Any) -> bool:
    names = [wanted] if isinstance(wanted, str) else wanted if isinstance(wanted, list) else []
    known = {"null", "boolean", "integer", "number", "string", "array", "object"}
    if not names or not all(isinstance(name, str) and name in known for name in names):
        return True
    whole = kind == "number" and value == value // 1 and "integer" in names
    return kind in names or whole or (kind == "integer" and "number" in names)


def _named(wanted: Any) -> str:
    return " or ".join(wanted) if isinstance(wanted, list) else str(wanted)


def _number(schema: Mapping[str, Any], value: Any) -> str:
    rules: tuple[tuple[str, Callable[[Any, Any], bool], str], ...] = (
        ("minimum", lambda v, b: v >= b, "must be at least"),
        ("maximum", lambda v, b: v <= b, "must be at most"),
        ("exclusiveMinimum", lambda v, b: v > b, "must be more than"),
        ("exclusiveMaximum", lambda v, b: v < b, "must be less than"),
    )
    for name, holds, words in rules:
        bound = schema.get(name)
        if kind_of(bound) in ("integer", "number") and not holds(value, bound):
            return f"{words} {bound}"
    step = schema.get("multipleOf")
    if isinstance(step, int) and not isinstance(step, bool) and step > 0 and value % step:
        return f"must be a multiple of {step}"
    return ""


def _text(schema: Mapping[str, Any], value: str) -> str:
    low, high = schema.get("minLength"), schema.get("maxLength")
    if isinstance(low, int) and len(value) < low:
        return f"has {len(value)} characters, at least {low} are wanted"
    if isinstance(high, int) and len(value) > high:
        return f"has {len(value)} characters, at most {high} are wanted"
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and can_try(pattern, value) and re.search(pattern, value) is None:
        return f"does not match {compact(pattern)}"
    shape = schema.get("format")
    check = _FORMATS.get(shape) if isinstance(shape, str) else None
    return f"is no {shape}" if check is not None and not _passes(check, value) else ""


def can_try(pattern: str, text: str) -> bool:
    """Whether a pattern may be tried on a text: it is one, and matching ends soon whatever the text is."""
    if len(pattern) > PATTERN_CHARS or len(text) > PATTERN_CHARS or _NESTED.search(pattern):
        return False
    if len(_REPEAT.findall(pattern)) > MAX_REPEATS:
        return False
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        return False
    return True


def _items(schema: Mapping[str, Any], value: list[Any]) -> str:
    low, high = schema.get("minItems"), schema.get("maxItems")
    if isinstance(low, int) and len(value) < low:
        return f"has {len(value)} items, at least {low} are wanted"
    if isinstance(high, int) and len(value) > high:
        return f"has {len(value)} items, at most {high} are wanted"
    if schema.get("uniqueItems") is True and len({compact(item) for item in value}) < len(value):
        return "must not hold an item twice"
    return ""


def _passes(check: Callable[[str], Any], value: str) -> bool:
    try:
        return check(value) is not False
    except ValueError:
        return False


_FORMATS: Mapping[str, Callable[[str], Any]] = {
    "date": date.fromisoformat,
    "date-time": datetime.fromisoformat,
    "email": lambda text: re.fullmatch(r"[^@\s]+@[^@\s]+", text) is not None,
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
    "uri": lambda text: bool(urlsplit(text).scheme),
    "uuid": UUID,
}
