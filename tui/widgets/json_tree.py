"""A JSON document that folds, painted line by line as far as it is in sight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.board.cells import placed
from tui.inspector.jsontext import pretty
from tui.inspector.outline import Outline

if TYPE_CHECKING:
    from textual import events

    from tui.inspector.outline import Line

INDENT = 2
MAX_INDENT = 20
"""Levels that move a line to the right; deeper ones say their level instead."""


class JsonTree(ScrollView, can_focus=True):
    """`show` gives it a document. Enter or space folds, right and left as in any tree, `y` copies the value."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "tree--label", "tree--string", "tree--number", "tree--word", "tree--dim", "tree--cursor",
    }  # fmt: skip
    DEFAULT_CSS = """
    JsonTree {
        height: 1fr; width: 1fr; overflow-x: hidden; overflow-y: auto; scrollbar-size-vertical: 1;
        & > .tree--label { color: $text-primary; }
        & > .tree--string { color: $text-success; }
        & > .tree--number { color: $text-accent; }
        & > .tree--word { color: $text-secondary; text-style: bold; }
        & > .tree--dim { color: $text-muted; }
        & > .tree--cursor { background: $panel; }
        &:focus > .tree--cursor { background: $primary-muted; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup,ctrl+b", "page(-1)", "Page up", show=False),
        Binding("pagedown,ctrl+f", "page(1)", "Page down", show=False),
        Binding("home,g", "edge(-1)", "First", show=False),
        Binding("end,G", "edge(1)", "Last", show=False),
        Binding("enter,space", "flip", "Fold", show=False),
        Binding("right", "unfold", "Unfold", show=False),
        Binding("left", "fold", "Fold", show=False),
        Binding("y", "copy", "Copy the value"),
    ]

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002  (Textual's name)
        super().__init__(id=id)
        self.outline = Outline({})
        self._cursor = 0

    def show(self, document: Any) -> None:
        """Show a document from now on, from its top."""
        self.outline, self._cursor = Outline(document), 0
        self.scroll_to(y=0, animate=False, force=True)
        self._changed()

    def render_line(self, y: int) -> Strip:
        width, at = self.size.width, self.scroll_offset.y + y
        if at >= len(self.outline.lines):
            return Strip.blank(width, self.rich_style)
        line, ground = self.outline.lines[at], self.rich_style
        here = at == self._cursor
        if here:
            ground += self.get_component_rich_style("tree--cursor", partial=True)
        lead, label, text = _parts(line, here=here)
        style = self.get_component_rich_style(f"tree--{_tone(line)}", partial=True)
        name = self.get_component_rich_style("tree--label", partial=True)
        segments = [Segment(lead, ground), Segment(label, ground + name)]
        used = len(lead) + Strip(segments[1:]).cell_length
        segments.append(Segment(placed(text, max(0, width - used)), ground + style))
        return Strip(segments).adjust_cell_length(width, ground)

    def action_move(self, by: int) -> None:
        self._move_to(self._cursor + by)

    def action_page(self, by: int) -> None:
        self._move_to(self._cursor + by * max(1, self.size.height - 1))

    def action_edge(self, side: int) -> None:
        self._move_to(0 if side < 0 else len(self.outline.lines) - 1)

    def action_flip(self) -> None:
        self.outline.toggle(self._cursor)
        self._changed()

    def action_unfold(self) -> None:
        line = self.outline.lines[self._cursor]
        if line.sort == "more":
            self.outline.toggle(self._cursor)
        elif line.folds and not line.is_open:
            self.outline.unfold(self._cursor)
        else:
            self._move_to(self._cursor + 1)
        self._changed()

    def action_fold(self) -> None:
        if self.outline.lines[self._cursor].is_open:
            self.outline.fold(self._cursor)
        else:
            self._move_to(self.outline.parent(self._cursor))
        self._changed()

    def action_copy(self) -> None:
        value = self.outline.lines[self._cursor].value
        self.app.copy_to_clipboard(value if isinstance(value, str) else pretty(value))
        self.notify("the value is in the clipboard", markup=False)

    def on_click(self, event: events.Click) -> None:
        at = self.scroll_offset.y + event.y
        if at < len(self.outline.lines):
            self._move_to(at)
            self.action_flip()

    def on_resize(self) -> None:
        self._changed()

    def _changed(self) -> None:
        self.virtual_size = Size(self.size.width, len(self.outline.lines))
        self._move_to(self._cursor)

    def _move_to(self, at: int) -> None:
        self._cursor = max(0, min(at, len(self.outline.lines) - 1))
        top, room = self.scroll_offset.y, max(1, self.size.height)
        if self._cursor < top:
            self.scroll_to(y=self._cursor, animate=False, force=True)
        elif self._cursor >= top + room:
            self.scroll_to(y=self._cursor - room + 1, animate=False, force=True)
        self.refresh()


def _parts(line: Line, *, here: bool) -> tuple[str, str, str]:
    sign = ("▾ " if line.is_open else "▸ ") if line.folds else "  "
    level = f"{line.depth}› " if line.depth > MAX_INDENT else ""
    lead = (">" if here else " ") + " " * (INDENT * min(line.depth, MAX_INDENT)) + level + sign
    return lead, f"{line.label}: " if line.label else "", line.shown


def _tone(line: Line) -> str:
    if line.sort in ("string", "text"):
        return "string"
    if line.sort in ("boolean", "null"):
        return "word"
    return "number" if line.sort == "number" else "dim"
