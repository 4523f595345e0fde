"""A JSON document as lines that fold: the lines that are unfolded, and nothing else, however large the document. Pure.

What has many members is unfolded a piece at a time, so that no key costs more than a piece.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal

from attrs import define, field

from controlplane.wire.text import clean
from tui.inspector.jsontext import compact, kind_of

PIECE = 100
"""Members of an object or a list, or lines of a text, that are shown at once."""
PREVIEW_CHARS = 160
TEXT_CHARS = 100
"""Of a line of a long text; a longer line goes on in the next."""
OPEN_AT_FIRST = 40
"""A document is unfolded until it has so many lines."""
MAX_LINES = 20_000
"""Unfolded lines; more cannot be read, and fold first what is open."""

Sort = Literal["object", "array", "string", "text", "number", "boolean", "null", "more"]


@define(eq=False)
class Line:
    """One line. `value` is what folds out below it; of a `more` line, what it is a part of, from `start` on."""

    depth: int
    label: str
    sort: Sort
    value: Any
    shown: str = ""
    is_open: bool = False
    start: int = 0

    @property
    def folds(self) -> bool:
        if self.sort in ("object", "array"):
            return bool(self.value)
        return self.sort == "string" and (len(self.value) > TEXT_CHARS or "\n" in self.value)


@define(eq=False)
class Outline:
    """A document and what of it is unfolded."""

    document: Any
    lines: list[Line] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.lines = [_line(0, "", self.document)]
        self.unfold(0)
        at = 1
        while at < len(self.lines) < OPEN_AT_FIRST:  # breadth does not matter: what comes first is seen first
            if self.lines[at].sort in ("object", "array"):
                before = len(self.lines)
                self.unfold(at)
                if len(self.lines) > OPEN_AT_FIRST * 2:
                    self.fold(at)
                    break
                assert len(self.lines) >= before
            at += 1

    def toggle(self, at: int) -> None:
        """Fold or unfold a line, or show the next piece."""
        line = self.lines[at]
        if line.sort == "more":
            if len(self.lines) < MAX_LINES:
                self.lines[at : at + 1] = _piece(line.value, line.depth, line.start)
        elif line.is_open:
            self.fold(at)
        else:
            self.unfold(at)

    def unfold(self, at: int) -> None:
        """Show the first piece of what is below a line."""
        line = self.lines[at]
        if line.folds and not line.is_open and len(self.lines) < MAX_LINES:
            line.is_open = True
            self.lines[at + 1 : at + 1] = _piece(line.value, line.depth + 1, 0)

    def fold(self, at: int) -> None:
        """Show nothing of what is below a line."""
        line = self.lines[at]
        end = at + 1
        while end < len(self.lines) and self.lines[end].depth > line.depth:
            end += 1
        del self.lines[at + 1 : end]
        line.is_open = False

    def parent(self, at: int) -> int:
        """The line that a line is below of; the first one is below none."""
        depth = self.lines[at].depth
        return next((above for above in range(at - 1, -1, -1) if self.lines[above].depth < depth), 0)


def _piece(value: Any, depth: int, start: int) -> list[Line]:
    """The next members of a value, and a line that stands for those that are left."""
    lines = list(islice(_members(value, depth), start, start + PIECE))
    total = len(_text_lines(value)) if isinstance(value, str) else len(value)
    left = total - start - len(lines)
    if left > 0:
        lines.append(Line(depth, "", "more", value, f"… {left} more", start=start + PIECE))
    return lines


def _members(value: Any, depth: int) -> Iterator[Line]:
    if isinstance(value, dict):
        return (_line(depth, clean(name[:PREVIEW_CHARS]), inner) for name, inner in value.items())
    if isinstance(value, list):
        return (_line(depth, str(at), inner) for at, inner in enumerate(value))
    return (Line(depth, "", "text", line, clean(line)) for line in _text_lines(value))


def _text_lines(text: str) -> list[str]:
    found: list[str] = []
    for line in text.split("\n"):
        found += [line[at : at + TEXT_CHARS] for at in range(0, max(1, len(line)), TEXT_CHARS)]
    return found


def _line(depth: int, label: str, value: Any) -> Line:
    kind = kind_of(value)
    if kind == "object":
        return Line(depth, label, "object", value, f"{{{len(value)}}}" if value else "{}")
    if kind == "array":
        return Line(depth, label, "array", value, f"[{len(value)}]" if value else "[]")
    if kind == "string":
        short = clean(
            compact(value[:PREVIEW_CHARS]) if not value[:PREVIEW_CHARS].isprintable() else f'"{value[:PREVIEW_CHARS]}"'
        )
        return Line(depth, label, "string", value, short + ("…" if len(value) > PREVIEW_CHARS else ""))
    sort: Sort = "number" if kind in ("integer", "number") else "boolean" if kind == "boolean" else "null"
    return Line(depth, label, sort, value, compact(value))
