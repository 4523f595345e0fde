"""Settings files of editors, changed by insertion: comments, trailing commas, order and line ends stay as they are.

Pure: text in, text out. Knows where the members of a JSON document with comments stand (`JSONC`, as VS Code and Zed
write it), and refuses what is no such document; never writes a member anew that it was not asked to change.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from attrs import frozen

DEFAULT_INDENT = "  "
MAX_DEPTH = 100
"""Nesting of a settings file; a deeper one was not written by an editor."""

_BLANK = re.compile(r"(?:\s+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_SCALAR = re.compile(r'[^\s,\[\]{}:"/]+')
_BOM = "\ufeff"


class NotJsonc(ValueError):
    """The text is no JSON document, with or without comments; the message says where."""


@frozen
class Node:
    """A value, and where it stands: `text[start:end]`.

    Args:
        start: Where it begins.
        end: Where it ends.
        members: An object's members in their order; None for any other value.
        items: An array's items; None for any other value.
        comma: Whether a comma stands after the last member or item.
    """

    start: int
    end: int
    members: dict[str, tuple[int, Node]] | None = None
    items: list[Node] | None = None
    comma: bool = False

    @property
    def last(self) -> Node | None:
        """Its last member's value, or last item."""
        if self.members:
            return max((value for _, value in self.members.values()), key=lambda value: value.start)
        return self.items[-1] if self.items else None


def parse(text: str) -> Node:
    """Find every value of a document.

    Raises:
        NotJsonc: it is none.
    """
    at = _after_blank(text, 0)
    node = _value(text, at, 0)
    end = _after_blank(text, node.end)
    if end != len(text):
        raise _wrong(text, end, "the end was expected")
    return node


def _wrong(text: str, at: int, what: str) -> NotJsonc:
    line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    return NotJsonc(f"line {line} column {column}: {what}")


def _after_blank(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at


def _value(text: str, at: int, depth: int) -> Node:
    if depth > MAX_DEPTH:
        raise _wrong(text, at, "nested too deep")
    opening = text[at : at + 1]
    if opening == "{":
        return _object(text, at, depth)
    if opening == "[":
        return _array(text, at, depth)
    found = (_STRING if opening == '"' else _SCALAR).match(text, at)
    if found is None:
        raise _wrong(text, at, "a value was expected")
    _decoded(text, found)
    return Node(at, found.end())


def _decoded(text: str, found: re.Match[str]) -> Any:
    try:
        return json.loads(found[0], strict=False)
    except ValueError:
        raise _wrong(text, found.start(), f"{found[0][:20]} is no JSON value") from None


def _object(text: str, start: int, depth: int) -> Node:
    members: dict[str, tuple[int, Node]] = {}
    at, comma = _after_blank(text, start + 1), False
    while text[at : at + 1] != "}":
        if members and not comma:
            raise _wrong(text, at, "a comma or } was expected")
        key = _STRING.match(text, at)
        if key is None:
            raise _wrong(text, at, "a name in quotes was expected")
        colon = _after_blank(text, key.end())
        if text[colon : colon + 1] != ":":
            raise _wrong(text, colon, "a colon was expected")
        value = _value(text, _after_blank(text, colon + 1), depth + 1)
        members[_decoded(text, key)] = (at, value)
        at, comma = _past_comma(text, value.end)
    return Node(start, at + 1, members=members, comma=comma)


def _array(text: str, start: int, depth: int) -> Node:
    items: list[Node] = []
    at, comma = _after_blank(text, start + 1), False
    while text[at : at + 1] != "]":
        if items and not comma:
            raise _wrong(text, at, "a comma or ] was expected")
        items.append(_value(text, at, depth + 1))
        at, comma = _past_comma(text, items[-1].end)
    return Node(start, at + 1, items=items, comma=comma)


def _past_comma(text: str, at: int) -> tuple[int, bool]:
    at = _after_blank(text, at)
    if text[at : at + 1] != ",":
        return at, False
    return _after_blank(text, at + 1), True


def with_member(text: str, path: Sequence[str], value: Any) -> str:
    """Return the document with one member set, and the objects on the way to it made where they are missing.

    Args:
        text: The document; blank counts as `{}`.
        path: The names that lead to the member.
        value: What it shall be.

    Raises:
        NotJsonc: the text is no document, or what the path leads through is no object.
    """
    bom, text = (_BOM, text[1:]) if text.startswith(_BOM) else ("", text)
    text = text if text.strip() else "{}\n"
    node = parse(text)
    for depth, name in enumerate(path):
        if node.members is None:
            raise _wrong(text, node.start, f"an object was expected, to hold {name!r}")
        if name not in node.members:
            for missing in reversed(path[depth + 1 :]):
                value = {missing: value}
            return bom + _inserted(text, node, value, json.dumps(name, ensure_ascii=False) + ": ")
        node = node.members[name][1]
    return bom + text[: node.start] + _rendered(text, value, _margin(text, node.start)) + text[node.end :]


def with_item(text: str, path: Sequence[str], value: Any) -> str:
    """Return the document with one item more at the end of the array that the path leads to; made where it is missing.

    Raises:
        NotJsonc: the text is no document, or there is something else at the path.
    """
    bom, body = (_BOM, text[1:]) if text.startswith(_BOM) else ("", text)
    node: Node | None = parse(body) if body.strip() else None
    for name in path:
        node = node.members[name][1] if node and node.members and name in node.members else None
    if node is None:
        return with_member(text, path, [value])
    if node.items is None:
        raise _wrong(body, node.start, "an array was expected")
    return bom + _inserted(body, node, value, "")


def _inserted(text: str, node: Node, value: Any, name: str) -> str:
    """Put a member or an item behind the last one, on a line of its own; the comments between stay."""
    eol, close = _eol(text), node.end - 1
    margin, last = _margin(text, close), node.last
    indent = _indent_of(text, node, margin)
    kept = text[:close].rstrip()
    if last is not None and not node.comma:
        kept = text[: last.end] + "," + text[last.end : close].rstrip()
    addition = indent + name + _rendered(text, value, indent)
    return kept + eol + addition + ("," if node.comma else "") + eol + margin + text[close:]


def _indent_of(text: str, node: Node, margin: str) -> str:
    """Return the white space that the object's members stand behind."""
    starts = [at for at, _ in node.members.values()] if node.members else [item.start for item in node.items or ()]
    if starts:
        before = text[text.rfind("\n", 0, starts[-1]) + 1 : starts[-1]]
        if not before.strip():
            return before
    return margin + _unit(text)


def _unit(text: str) -> str:
    found = re.search(r'^([ \t]+)"', text, re.MULTILINE)
    return found[1] if found else DEFAULT_INDENT


def _margin(text: str, at: int) -> str:
    """Return the white space at the beginning of the line that a place is on."""
    line = text[text.rfind("\n", 0, at) + 1 :]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _eol(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _rendered(text: str, value: Any, margin: str) -> str:
    unit = _unit(text)
    lines = json.dumps(value, indent=unit, ensure_ascii=False).split("\n")
    return (_eol(text) + margin).join(lines)
