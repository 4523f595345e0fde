"""JSON as people read and write it: nothing that is in a document, or in a text, raises more than `NotJson`. Pure."""

from __future__ import annotations

import json
from typing import Any

from controlplane.wire.text import clean, clean_json

MAX_PRETTY_CHARS = 300_000
"""Of a document that is laid out to be read; laying out more would hold up the dashboard for seconds."""


class NotJson(ValueError):
    """A text is no JSON; the message says where and why."""


def parse(text: str) -> Any:
    """Return what a text stands for.

    Raises:
        NotJson: it stands for nothing, or is nested deeper than can be followed.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise NotJson(f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    except ValueError as error:
        raise NotJson(str(error)) from error
    except RecursionError as error:
        raise NotJson("nested too deeply") from error


def pretty(value: Any) -> str:
    """Return a document over several lines; on one line where it is nested too deeply for that.

    Characters that a terminal would obey stand as JSON escapes, which mean the same.
    """
    try:
        return clean_json(json.dumps(value, indent=2, ensure_ascii=False).encode())
    except UnicodeEncodeError:  # half a surrogate pair
        return json.dumps(value, indent=2)
    except (RecursionError, ValueError):
        return compact(value)


def pretty_lines(value: Any, most_chars: int = MAX_PRETTY_CHARS) -> tuple[str, ...]:
    """The lines of `pretty`, as many as fit into a bound; a last line says that there are more."""
    parts: list[str] = []
    chars = 0
    try:
        for part in json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(value):
            parts.append(part)
            chars += len(part)
            if chars > most_chars:
                break
    except (RecursionError, ValueError):
        parts = [compact(value)]
    text = "".join(parts)
    lines = [clean(line) for line in text[:most_chars].split("\n")]
    return (*lines, "… more: see the tree, or save it to a file") if len(text) > most_chars else tuple(lines)


def compact(value: Any) -> str:
    """Return a document on one line, in ASCII, so that it can stand on a command line as well."""
    try:
        return json.dumps(value)
    except (RecursionError, ValueError):
        return '"nested too deeply"'


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON: 1 is not true, and 1 is 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    try:
        return bool(one == other)
    except RecursionError:
        return False


def kind_of(value: Any) -> str:
    """Name what a value is, in JSON's words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    return _NAMES.get(type(value), "value")


_NAMES: dict[type, str] = {str: "string", list: "array", dict: "object"}


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON number")
