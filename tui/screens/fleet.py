"""The fleet: every instance in a live table, filtered, sorted, marked and acted upon."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from tui.board.board import FLEET
from tui.board.cells import ordered
from tui.board.filtering import parse
from tui.board.fleet_columns import FLEET_COLUMNS
from tui.screens.base import BoardScreen
from tui.widgets.grid import Grid

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.widget import Widget

    from tui.board.board import Touched
    from tui.board.rows import Row

SORT_EVERY_S = 1.0
"""Rows change places at most so often: a table that never stands still cannot be read."""
WELCOME = "No instances yet: press n to deploy one, or run `corral deploy` in a shell"


class FleetScreen(BoardScreen):
    """The first screen."""

    crumbs = ("fleet",)
    DEFAULT_CSS = """
    FleetScreen > #sieve { height: 1; padding: 0 1; color: $text-accent; display: none; }
    FleetScreen > #sieve.-on { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("l", "app.instance('logs')", "Logs"),
        Binding("i", "app.instance('inspector')", "Inspect"),
        Binding("w", "app.instance('wire')", "Wire", show=False),
        Binding("n", "app.go('deploy')", "New"),
        Binding("r", "app.verb('restart')", "Restart"),
        Binding("s", "app.verb('stop')", "Stop"),
        Binding("t", "app.verb('start')", "Start"),
        Binding("ctrl+d", "app.verb('delete')", "Delete"),
        Binding("a", "app.go('alerts')", "Alerts", show=False),
        Binding("p", "pause", "Pause", show=False),
        Binding("left", "sort_by(-1)", "Sort by the column before", show=False),
        Binding("right", "sort_by(1)", "Sort by the next column", show=False),
        Binding("O", "reverse", "Reverse the order", show=False),
        *(
            Binding(column.letter, f"sort('{column.key}')", f"Sort by {column.title or column.key}", show=False)
            for column in FLEET_COLUMNS
            if column.letter
        ),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._filter, self._paused = "", False
        self._sort, self._descending = "name", False
        self._sorted_at = 0.0
        self._dirty = False

    def body(self) -> ComposeResult:
        yield Static(id="sieve")
        yield Grid(FLEET_COLUMNS, lambda row: row.id, empty=WELCOME, clock=self.plane.clock, markable=True)

    @property
    def grid(self) -> Grid[Row]:
        return self.query_one(Grid)

    def main_widget(self) -> Widget:
        return self.grid

    @property
    def filter_text(self) -> str:
        return self._filter

    def selected(self) -> list[Row]:
        return self.grid.chosen()

    def board_changed(self, touched: Touched) -> None:
        if self._paused:
            return
        now = self.plane.clock()
        self._dirty = self._dirty or touched.fleet or self._sort != "name" or bool(self._filter)
        if touched.fleet or (self._dirty and now - self._sorted_at >= SORT_EVERY_S):
            self._arrange(now)
        else:
            self.grid.touch(touched.ids)

    def filter_changed(self, text: str) -> None:
        self._filter = text
        self._arrange(self.plane.clock())

    def _arrange(self, now: float) -> None:
        """Filter and sort anew."""
        wanted = parse(self._filter)
        rows = [row for row in self.plane.board.rows.values() if wanted(row)]
        column = next((c for c in FLEET_COLUMNS if c.key == self._sort), None)
        grid = self.grid
        grid.sorted_by, grid.descending = self._sort, self._descending
        grid.show(ordered(rows, column, now, descending=self._descending))
        grid.empty = "Nothing fits the filter" if self._filter else WELCOME
        self._sorted_at, self._dirty = now, False
        self._tell(len(rows))

    def _tell(self, shown: int) -> None:
        parts = []
        if self._filter:
            parts.append(f"/{self._filter}  {shown} of {len(self.plane.board.rows)}")
        if self._paused:
            parts.append("paused: p goes on")
        sieve = self.query_one("#sieve", Static)
        sieve.update(Content("   ".join(parts)))
        sieve.set_class(bool(parts), "-on")

    # -- keys

    def action_sort(self, key: str) -> None:
        """Sort by a column; the same again turns the order around."""
        column = next(c for c in FLEET_COLUMNS if c.key == key)
        self._descending = not self._descending if key == self._sort else column.descending
        self._sort = key
        self._arrange(self.plane.clock())

    def action_sort_by(self, step: int) -> None:
        keys = [column.key for column in FLEET_COLUMNS if column.order is not None]
        self._descending = False
        self._sort = keys[(keys.index(self._sort) + step) % len(keys)]
        self._arrange(self.plane.clock())

    def action_reverse(self) -> None:
        self._descending = not self._descending
        self._arrange(self.plane.clock())

    def action_pause(self) -> None:
        """Hold the picture, or let it go on."""
        self._paused = not self._paused
        self._tell(len(self.grid.rows))
        if not self._paused:
            self.board_changed(FLEET)

    def on_grid_chosen(self, message: Grid.Chosen) -> None:
        self.dashboard.open_instance(message.key)

    def on_grid_header_clicked(self, message: Grid.HeaderClicked) -> None:
        if message.column.order is not None:
            self.action_sort(message.column.key)
