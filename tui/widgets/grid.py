"""A table that paints only the lines in sight, straight from the rows it is shown.

Textual's own DataTable keeps a copy of every cell; with 500 rows that change each second, keeping the copies up to
date costs more than all the painting. Here the rows are whoever's they are, a line is made when it is painted, and
nothing of the others is. Cursor and marks are kept by key, so they stay on their row however rows are sorted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.board.cells import GAP, Cell, Column, fit, placed

if TYPE_CHECKING:
    from textual import events

R = TypeVar("R")
HEADER_LINES = 1
MARKED, UNMARKED, CURSOR = "▌", " ", "▸"
GUTTER = 2
"""Cells at the left for the mark and the cursor: neither is told by colour alone."""


class Grid(ScrollView, Generic[R], can_focus=True, inherit_bindings=False):
    """Rows of `R` in columns. `show` gives it rows in the order in which they are to stand."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "grid--header", "grid--cursor", "grid--marked", "grid--good", "grid--warn", "grid--bad", "grid--dim",
        "grid--accent", "grid--plot", "grid--strong", "grid--empty",
    }  # fmt: skip
    DEFAULT_CSS = """
    Grid {
        height: 1fr; width: 1fr; overflow-x: hidden; overflow-y: auto; scrollbar-size-vertical: 1;
        & > .grid--header { color: $text-muted; text-style: bold; }
        & > .grid--cursor { background: $panel; text-style: bold; }
        &:focus > .grid--cursor { background: $primary-muted; }
        & > .grid--marked { background: $secondary-muted; }
        & > .grid--good { color: $text-success; }
        & > .grid--warn { color: $text-warning; }
        & > .grid--bad { color: $text-error; }
        & > .grid--dim { color: $text-muted; }
        & > .grid--accent { color: $text-accent; }
        & > .grid--plot { color: $text-primary; }
        & > .grid--strong { text-style: bold; }
        & > .grid--empty { color: $text-muted; text-style: italic; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup,ctrl+b", "page(-1)", "Page up", show=False),
        Binding("pagedown,ctrl+f", "page(1)", "Page down", show=False),
        Binding("home,g", "edge(-1)", "First", show=False),
        Binding("end,G", "edge(1)", "Last", show=False),
        Binding("enter", "choose", "Open"),
        Binding("space", "mark", "Mark", show=False),
        Binding("ctrl+@,ctrl+space", "mark_range", "Mark range", key_display="^space", show=False),
        Binding("asterisk", "mark_all", "Mark all", key_display="*", show=False),
        Binding("ctrl+backslash", "unmark", "Clear marks", show=False),
    ]

    class Chosen(Message):
        """Enter or a double click on a row."""

        def __init__(self, grid: Grid[Any], key: str) -> None:
            super().__init__()
            self.grid, self.key = grid, key

        @property
        def control(self) -> Grid[Any]:
            return self.grid

    class Highlighted(Chosen):
        """The cursor is on another row."""

    class Marked(Message):
        """Other rows are marked than before."""

    class HeaderClicked(Message):
        """A click on a column's heading."""

        def __init__(self, grid: Grid[Any], column: Column[Any]) -> None:
            super().__init__()
            self.grid, self.column = grid, column

        @property
        def control(self) -> Grid[Any]:
            return self.grid

    def __init__(
        self,
        columns: Sequence[Column[R]],
        key: Callable[[R], str],
        *,
        empty: str = "Nothing here",
        clock: Callable[[], float] = time.time,
        markable: bool = False,
        id: str | None = None,  # noqa: A002  (Textual's name)
        classes: str | None = None,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self.columns = tuple(columns)
        self.empty = empty
        self.marks: set[str] = set()
        self.sorted_by, self.descending = "", False
        """Told by a sign in the heading; sorting itself is done by whoever shows the rows."""
        self._key, self._clock, self._markable = key, clock, markable
        self._rows: list[R] = []
        self._at: dict[str, int] = {}
        self._cursor, self._cursor_key = 0, ""
        self._range_from: str | None = None
        self._fitted: tuple[int, tuple[Column[R], ...], list[tuple[Column[R], int]]] = (-1, (), [])

    # -- rows

    @property
    def rows(self) -> Sequence[R]:
        return self._rows

    @property
    def shown(self) -> list[Column[R]]:
        """The columns that there is room for."""
        return [column for column, _ in self._sized(self.size.width)]

    @property
    def current(self) -> R | None:
        """The row under the cursor."""
        return self._rows[self._cursor] if self._rows else None

    @property
    def is_at_end(self) -> bool:
        """The cursor is on the last row, or there is none."""
        return self._cursor >= len(self._rows) - 1

    def chosen(self) -> list[R]:
        """The marked rows in this list, or the one under the cursor when none is."""
        marked = [row for row in self._rows if self._key(row) in self.marks]
        return marked or ([self.current] if self.current is not None else [])

    def show(self, rows: Sequence[R], there: Collection[str] | None = None) -> None:
        """Show these rows from now on. The cursor stays on its row, or near its place when that is gone.

        Args:
            rows: In the order in which they are to stand.
            there: Keys that keep their marks though they may not be among the rows, as a filter holds them back.
        """
        was_in_sight = self._is_in_sight(self._cursor)
        self._rows = list(rows)
        self._at = {self._key(row): place for place, row in enumerate(self._rows)}
        kept = self.marks.intersection(self._at.keys() if there is None else there)
        if kept != self.marks:
            self.marks = kept
            self.post_message(self.Marked())
        place = self._at.get(self._cursor_key)
        self._cursor = min(self._cursor, max(0, len(self._rows) - 1)) if place is None else place
        size = Size(self.size.width, len(self._rows) + HEADER_LINES)
        if size != self.virtual_size:
            self.virtual_size = size
        if self._rows:
            self._cursor_key = self._key(self._rows[self._cursor])
        if was_in_sight:  # who has scrolled away by the wheel is not pulled back
            self._follow_cursor()
        self.refresh()

    def touch(self, keys: Iterable[str]) -> None:
        """Paint these rows again, as far as they are in sight."""
        top, bottom = self.scroll_offset.y, self.scroll_offset.y + self.size.height - HEADER_LINES
        for key in keys:
            place = self._at.get(key)
            if place is not None and top <= place < bottom:
                self.refresh(Region(0, place - top + HEADER_LINES, self.size.width, 1))

    def move_to(self, key: str) -> bool:
        """Put the cursor on a row; False when it is not here."""
        place = self._at.get(key)
        if place is None:
            return False
        self._move_to(place)
        return True

    # -- painting

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y < HEADER_LINES:
            return self._header(width)
        place = self.scroll_offset.y + y - HEADER_LINES
        if not self._rows and y == HEADER_LINES + 1:
            style = self.get_component_rich_style("grid--empty")
            return Strip([Segment(placed(f"  {self.empty}", width), style)], width)
        if place >= len(self._rows):
            return Strip.blank(width, self.rich_style)
        return self._line(self._rows[place], place, width)

    def _header(self, width: int) -> Strip:
        style = self.get_component_rich_style("grid--header")
        text = " " * GUTTER
        for column, cells in self._sized(width):
            sign = ("▼" if self.descending else "▲") if column.key == self.sorted_by else ""
            title = sign + column.title if column.right else column.title + sign
            text += placed(title, cells, right=column.right) + " " * GAP
        return Strip([Segment(placed(text, width), style)], width)

    def _line(self, row: R, place: int, width: int) -> Strip:
        marked, here = self._key(row) in self.marks, place == self._cursor
        ground = self.rich_style
        if marked:
            ground += self.get_component_rich_style("grid--marked", partial=True)
        if here:
            ground += self.get_component_rich_style("grid--cursor", partial=True)
        gutter = (MARKED if marked else UNMARKED) + (CURSOR if here else " ")
        segments = [Segment(gutter, ground)]
        now, used = self._clock(), GUTTER
        for column, cells in self._sized(width):
            cell = column.cell(row, now)
            text = placed(cell.text, cells, right=column.right)
            segments += [Segment(text, ground + self._tone(cell)), Segment(" " * GAP, ground)]
            used += cells + GAP
        segments.append(Segment(" " * max(0, width - used), ground))
        return Strip(segments).adjust_cell_length(width, ground)

    def _tone(self, cell: Cell) -> Style:
        if not cell.tone:
            return Style.null()
        return self.get_component_rich_style(f"grid--{cell.tone}", partial=True)

    def _sized(self, width: int) -> list[tuple[Column[R], int]]:
        if self._fitted[:2] != (width, self.columns):
            self._fitted = (width, self.columns, fit(self.columns, width - GUTTER - GAP))
        return self._fitted[2]

    # -- moving

    def action_move(self, by: int) -> None:
        self._move_to(self._cursor + by)

    def action_page(self, by: int) -> None:
        self._move_to(self._cursor + by * max(1, self.size.height - HEADER_LINES - 1))

    def action_edge(self, side: int) -> None:
        self._move_to(0 if side < 0 else len(self._rows) - 1)

    def action_choose(self) -> None:
        if self.current is not None:
            self.post_message(self.Chosen(self, self._key(self.current)))

    def action_mark(self) -> None:
        """Mark the row, or take its mark away, and go on to the next."""
        if self._markable and self.current is not None:
            key = self._key(self.current)
            self.marks ^= {key}
            self._range_from = key
            self.post_message(self.Marked())
            self._move_to(self._cursor + 1)

    def action_mark_range(self) -> None:
        """Mark every row from the last mark to here."""
        start = self._at.get(self._range_from or "")
        if not self._markable or start is None:
            self.action_mark()
            return
        low, high = sorted((start, self._cursor))
        self.marks |= {self._key(row) for row in self._rows[low : high + 1]}
        self.post_message(self.Marked())
        self.refresh()

    def action_mark_all(self) -> None:
        """Mark every row that the filter lets through."""
        if self._markable:
            self.marks = set(self._at)
            self.post_message(self.Marked())
            self.refresh()

    def action_unmark(self) -> None:
        if self.marks:
            self.marks.clear()
            self._range_from = None
            self.post_message(self.Marked())
            self.refresh()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002  (Textual's)
        """Nothing is told of marks where there are none."""
        return self._markable or action not in {"mark", "mark_range", "mark_all", "unmark"}

    def on_click(self, event: events.Click) -> None:
        if event.y < HEADER_LINES:
            column = self._column_at(event.x)
            if column is not None:
                self.post_message(self.HeaderClicked(self, column))
            return
        place = self.scroll_offset.y + event.y - HEADER_LINES
        if place < len(self._rows):
            self._move_to(place)
            if event.ctrl:
                self.action_mark()
            elif event.chain > 1:
                self.action_choose()

    def _column_at(self, x: int) -> Column[R] | None:
        left = GUTTER
        for column, cells in self._sized(self.size.width):
            if left <= x < left + cells + GAP:
                return column
            left += cells + GAP
        return None

    def _move_to(self, place: int) -> None:
        if not self._rows:
            return
        before, top = self._cursor_key, self.scroll_offset.y
        self._cursor = max(0, min(place, len(self._rows) - 1))
        key = self._key(self._rows[self._cursor])
        if key != self._cursor_key:
            self._cursor_key = key
            self.post_message(self.Highlighted(self, key))
        self._follow_cursor()
        if self.scroll_offset.y == top:
            self.touch((before, key))  # a key that moves the cursor costs two lines, not a screen
        else:
            self.refresh()

    def _is_in_sight(self, place: int) -> bool:
        top = self.scroll_offset.y
        return top <= place < top + max(1, self.size.height - HEADER_LINES)

    def _follow_cursor(self) -> None:
        """Scroll so that the cursor is in sight; the first line is the header's."""
        room = max(1, self.size.height - HEADER_LINES)
        top = self.scroll_offset.y
        if self._cursor < top:
            self.scroll_to(y=self._cursor, animate=False, force=True)
        elif self._cursor >= top + room:
            self.scroll_to(y=self._cursor - room + 1, animate=False, force=True)

    def on_resize(self) -> None:
        self.virtual_size = Size(self.size.width, len(self._rows) + HEADER_LINES)
        self._follow_cursor()
