"""Text to be read: lines that are wrapped to the width and painted as far as they are in sight, however many."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from attrs import frozen
from rich.cells import cell_len, chop_cells
from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

MAX_LINES = 100_000
"""Wrapped lines; nobody reads on, and a file holds the rest."""

LONG_CHARS = 20_000
"""A line of wide characters that is longer is broken by their number, as if all of them were wide."""


@frozen
class Passage:
    """Clean lines under one heading (empty: none)."""

    title: str
    lines: tuple[str, ...]


class Reading(ScrollView, can_focus=True):
    """Passages one after the other."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"reading--title"}
    DEFAULT_CSS = """
    Reading {
        height: 1fr; width: 1fr; overflow-x: hidden; overflow-y: auto; scrollbar-size-vertical: 1; padding: 0 1;
        & > .reading--title { color: $text-accent; text-style: bold; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll_up", "Up", show=False),
        Binding("down,j", "scroll_down", "Down", show=False),
        Binding("pageup,ctrl+b", "page_up", "Page up", show=False),
        Binding("pagedown,ctrl+f,space", "page_down", "Page down", show=False),
        Binding("home,g", "scroll_home", "First", show=False),
        Binding("end,G", "scroll_end", "Last", show=False),
    ]

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002  (Textual's name)
        super().__init__(id=id)
        self._passages: tuple[Passage, ...] = ()
        self._wrapped: list[tuple[bool, str]] = []
        self._width = 0

    def show(self, passages: Iterable[Passage]) -> None:
        """Show these from now on, from the top."""
        self._passages, self._width = tuple(passages), 0
        self.scroll_to(y=0, animate=False, force=True)
        self._wrap()

    def render_line(self, y: int) -> Strip:
        width, at = self.size.width, self.scroll_offset.y + y
        if at >= len(self._wrapped):
            return Strip.blank(width, self.rich_style)
        is_title, text = self._wrapped[at]
        style = self.rich_style
        if is_title:
            style += self.get_component_rich_style("reading--title", partial=True)
        return Strip([Segment(text, style)]).adjust_cell_length(width, self.rich_style)

    def on_resize(self) -> None:
        self._wrap()

    def _wrap(self) -> None:
        width = self.size.width
        if width and width != self._width:
            self._width = width
            self._wrapped = _wrapped(self._passages, width)
        self.virtual_size = Size(width, len(self._wrapped))
        self.refresh()


def _wrapped(passages: Iterable[Passage], width: int) -> list[tuple[bool, str]]:
    found: list[tuple[bool, str]] = []
    for passage in passages:
        if passage.title:
            found += [(True, part) for part in folded(passage.title, width)]
        for line in passage.lines:
            found += [(False, part) for part in folded(line, width)]
            if len(found) > MAX_LINES:
                return [*found[:MAX_LINES], (True, "… more: save it to a file")]
    return found


def folded(line: str, width: int) -> list[str]:
    """Break a clean line where it is full, at a blank if there is one near."""
    if len(line) * 2 <= width or (len(line) <= width and cell_len(line) <= width):
        return [line]
    if not line.isascii() and len(line) > LONG_CHARS:  # measuring each character would take seconds
        half = max(1, width // 2)
        return [line[at : at + half] for at in range(0, len(line), half)]
    if not line.isascii():
        return chop_cells(line, width)
    found: list[str] = []
    at = 0
    while len(line) - at > width:
        blank = line.rfind(" ", at + width * 2 // 3, at + width + 1)
        end = blank if blank > at else at + width
        found.append(line[at:end])
        at = end + 1 if blank > at else end
    found.append(line[at:])
    return found
