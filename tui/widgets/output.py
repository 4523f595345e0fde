"""What a build prints: lines that are painted only while they are in sight, and followed while the end is."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.board.cells import placed

if TYPE_CHECKING:
    from collections.abc import Sequence


class Output(ScrollView, can_focus=True):
    """Clean lines, cut at the right edge. The end stays in sight unless somebody scrolled away from it."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"output--dim"}
    DEFAULT_CSS = """
    Output { height: 1fr; background: $surface; overflow-x: hidden; scrollbar-size-vertical: 1; }
    Output > .output--dim { color: $text-muted; text-style: italic; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("k", "scroll_up", "Up", show=False),
        Binding("j", "scroll_down", "Down", show=False),
        Binding("g", "scroll_home", "First line", show=False),
        Binding("G", "scroll_end", "Last line", show=False),
    ]

    def __init__(self, empty: str = "", *, id: str | None = None) -> None:  # noqa: A002  (Textual's name)
        super().__init__(id=id)
        self.empty = empty
        self._lines: Sequence[str] = ()

    def show(self, lines: Sequence[str]) -> None:
        """Show these lines from now on."""
        at_end = self.scroll_offset.y >= self.max_scroll_y
        self._lines = list(lines)
        self.virtual_size = Size(self.size.width, len(self._lines))
        if at_end:
            self.scroll_end(animate=False, immediate=True)
        self.refresh()

    def on_resize(self) -> None:
        self.virtual_size = Size(self.size.width, len(self._lines))

    def render_line(self, y: int) -> Strip:
        width, place = self.size.width, self.scroll_offset.y + y
        if not self._lines and y == 0 and self.empty:
            style = self.get_component_rich_style("output--dim")
            return Strip([Segment(placed(f" {self.empty}", width), style)], width)
        if place >= len(self._lines):
            return Strip.blank(width, self.rich_style)
        return Strip([Segment(placed(f" {self._lines[place]}", width), self.rich_style)], width)
