"""A table of a TOML file, set by insertion: the rest of the file, with its comments, stays as it is.

Pure: text in, text out. What comes out is read again and compared with what was meant, so that a file which is
written in a way that was not foreseen is refused and never damaged.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

_HEADER = re.compile(r"^[ \t]*\[(?!\[)(.+)\][ \t]*(?:#.*)?$")
_ANY_HEADER = re.compile(r"^[ \t]*\[.+\][ \t]*(?:#.*)?$")
_BARE = re.compile(r"[A-Za-z0-9_-]+")


class NotToml(ValueError):
    """The text is no TOML document, or not one that can be changed safely."""


def parse(text: str) -> dict[str, Any]:
    """Read a document.

    Raises:
        NotToml: it is none; the message says where.
    """
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise NotToml(str(error)) from error


def with_table(text: str, path: Sequence[str], value: Mapping[str, Any]) -> str:
    """Return the document with one table set; an earlier one of the same name is replaced with all that is below it.

    Args:
        text: The document.
        path: The table's name, by its parts.
        value: Its members: strings, numbers, lists, and tables of these.

    Raises:
        NotToml: the text is none, or the table stands in it in a way that is better changed by hand.
    """
    meant = _with(parse(text), path, value)
    eol = "\r\n" if "\r\n" in text else "\n"
    table = eol.join([f"[{'.'.join(_key(part) for part in path)}]", *(_line(*member) for member in value.items())])
    kept, place = _without(text.splitlines(keepends=True), tuple(path))
    head, tail = "".join(kept[:place]), "".join(kept[place:])
    gap = eol if head.strip() and not head.endswith((eol + eol, "\n\n")) else ""
    ending = "" if not head or head.endswith("\n") else eol
    after = eol if tail.strip() and not tail.startswith(("\n", "\r")) else ""
    written = head + ending + gap + table + eol + after + tail
    if parse(written) != meant:
        raise NotToml(f"{'.'.join(path)} stands in it in a way that only you can change safely")
    return written


def _with(document: dict[str, Any], path: Sequence[str], value: Mapping[str, Any]) -> dict[str, Any]:
    name, *rest = path
    below = document.get(name, {})
    if rest and not isinstance(below, dict):
        raise NotToml(f"{name} is no table")
    return {**document, name: _with(below, rest, value) if rest else dict(value)}


def _without(lines: list[str], path: tuple[str, ...]) -> tuple[list[str], int]:
    """Leave out the table's lines; also return where they stood, or the end."""
    kept: list[str] = []
    place, dropping = None, False
    for line in lines:
        if _ANY_HEADER.match(line.rstrip("\r\n")):
            dropping = _path_of(line)[: len(path)] == path
            if dropping and place is None:
                place = len(kept)
        if not dropping:
            kept.append(line)
        elif line.lstrip().startswith("#"):
            kept.append(line)  # what stands before the next table is likely to be about that one
    return kept, len(kept) if place is None else place


def _path_of(header: str) -> tuple[str, ...]:
    found = _HEADER.match(header.rstrip("\r\n"))
    parts: list[str] = []
    try:
        level: Any = tomllib.loads(f"[{found[1]}]") if found else {}
    except tomllib.TOMLDecodeError:  # a line of a text that only looks like one
        return ()
    while isinstance(level, dict) and level:
        name, level = next(iter(level.items()))
        parts.append(name)
    return tuple(parts)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else json.dumps(name)


def _line(name: str, value: Any) -> str:
    return f"{_key(name)} = {_inline(value)}"


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(_line(*member) for member in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_inline(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
