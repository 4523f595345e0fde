"""The fleet: every instance in a live table, filtered, sorted, marked and acted upon."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from attrs import evolve
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from tui.board.board import FLEET
from tui.board.cells import ordered
from tui.board.filtering import HELP, parse
from tui.board.fleet_columns import FLEET_COLUMNS, columns_for
from tui.board.link import absence
from tui.board.rows import Row, frozen_history
from tui.screens.table import TableScreen
from tui.widgets.grid import Grid
from tui.widgets.tones import TONES

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from tui.board.board import Touched

SORT_EVERY_S = 1.0
"""Rows change places at most so often: a table that never stands still cannot be read."""
WELCOME = "No instances yet: press n to deploy one, or run `corral deploy` in a shell"


class FleetScreen(TableScreen[Row]):
    """The first screen."""

    crumbs = ("fleet",)
    place = "fleet"
    filter_words = HELP
    DEFAULT_CSS = """
    FleetScreen > #sieve { height: 1; padding: 0 1; color: $text-accent; display: none; }
    FleetScreen > #sieve.-on { display: block; }
    FleetScreen > #absence { height: 1fr; padding: 1 3; content-align: center middle; text-align: center; display: none; }
    FleetScreen.-absent > #absence { display: block; }
    FleetScreen.-absent > Grid { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("l", "app.instance('logs')", "Logs"),
        Binding("i", "app.instance('inspector')", "Inspect"),
        Binding("n", "app.go('deploy')", "New"),
        Binding("r", "app.verb('restart')", "Restart"),
        Binding("s", "app.verb('stop')", "Stop"),
        Binding("t", "app.verb('start')", "Start"),
        Binding("ctrl+d", "app.verb('delete')", "Delete"),
        Binding("w", "app.instance('wire')", "Wire", show=False),
        Binding("m", "app.instance('metrics')", "Metrics", show=False),
        Binding("e", "app.go('timeline')", "Timeline", show=False),
        Binding("p", "pause", "Pause", show=False),
        Binding("left", "sort_by(-1)", "Sort by the column before", show=False),
        Binding("right", "sort_by(1)", "Sort by the next column", show=False),
        Binding("O", "reverse", "Turn the order around", show=False),
        *(
            Binding(column.letter, f"sort('{column.key}')", f"Sort by {column.title.lower()}", show=False)
            for column in FLEET_COLUMNS
            if column.letter
        ),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._sort, self._descending = "name", False
        self._sorted_at = 0.0
        self._is_stale_order = False
        self._known: frozenset[str] = frozenset()
        """The instances that the table was made of."""
        self._held: tuple[float, list[Row]] | None = None
        """Since when the picture is held, and the rows as they were then."""

    def body(self) -> ComposeResult:
        yield Static(id="sieve")
        yield Static(id="absence")
        yield Grid(FLEET_COLUMNS, lambda row: row.id, empty=WELCOME, clock=self._now, markable=True)

    def selected(self) -> list[Row]:
        return self.grid.chosen()

    def acted(self) -> None:
        self.grid.action_unmark()

    def take_back(self) -> bool:
        if super().take_back():
            return True
        had_marks = bool(self.grid.marks)
        self.grid.action_unmark()
        return had_marks

    def board_changed(self, touched: Touched) -> None:
        board, now = self.plane.board, self.plane.clock()
        self._tell_absence(now)
        if self._held is not None:
            return
        self._is_stale_order = self._is_stale_order or self._sort != "name" or bool(self._filter)
        is_other = touched.fleet and board.rows.keys() != self._known
        if is_other or (self._is_stale_order and now - self._sorted_at >= SORT_EVERY_S):
            self.show_rows()
        else:
            self.grid.touch(touched.ids)

    def start_over(self) -> None:
        """Another control plane is shown from now on: nothing of the one before is left."""
        self._filter, self._held, self._known = "", None, frozenset()
        self.grid.action_unmark()
        self.show_rows()
        self.refresh_board(FLEET)

    # -- what is shown

    def _now(self) -> float:
        """The time of the picture: it stands still while it is held, and while the link is not live."""
        if self._held is not None:
            return self._held[0]
        link = self.plane.board.link
        return self.plane.clock() if link.is_live or not self.plane.board.has_picture else link.since

    def show_rows(self) -> None:
        """Filter and sort anew."""
        board, now, grid = self.plane.board, self._now(), self.grid
        there = list(board.rows.values()) if self._held is None else self._held[1]
        wanted = parse(self._filter)
        rows = [row for row in there if wanted(row)]
        column = next((c for c in FLEET_COLUMNS if c.key == self._sort), None)
        grid.columns = columns_for(len({row.owner for row in there}))
        grid.sorted_by, grid.descending = self._sort, self._descending
        grid.empty = "Nothing fits the filter: escape takes it back" if self._filter else WELCOME
        grid.show(ordered(rows, column, now, descending=self._descending), board.rows.keys())
        self._known = frozenset(board.rows)
        self._sorted_at, self._is_stale_order = now, False
        self._tell()

    def _tell(self) -> None:
        """Say what narrows the picture, and what is marked."""
        grid, parts = self.grid, []
        if self._filter:
            parts.append(f"/{self._filter}  {len(grid.rows)} of {len(self._known)}")
        if grid.marks:
            hidden = len(grid.marks.difference(row.id for row in grid.rows))
            parts.append(
                f"{len(grid.marks)} marked" + (f", {hidden} of them out of sight: left alone" if hidden else "")
            )
        if self._held is not None:
            parts.append("paused: p goes on")
        sieve = self.query_one("#sieve", Static)
        sieve.update(Content("   ".join(parts)))
        sieve.set_class(bool(parts), "-on")

    def _tell_absence(self, now: float) -> None:
        """Before there was any picture, say why there is none."""
        board = self.plane.board
        if board.has_picture and self.has_class("-absent"):
            self.call_after_refresh(self.focus_body)  # a table that was out of sight has lost the keyboard
        self.set_class(not board.has_picture, "-absent")
        if not board.has_picture:
            lines = absence(board.link, now, self.plane.context.url)
            said = Content("\n").join(Content.styled(text, TONES[tone]) for text, tone in lines)
            self.query_one("#absence", Static).update(said)

    # -- keys

    def action_sort(self, key: str) -> None:
        """Sort by a column; the same again turns the order around."""
        column = next(c for c in FLEET_COLUMNS if c.key == key)
        self._descending = not self._descending if key == self._sort else column.descending
        self._sort = key
        self.show_rows()

    def action_sort_by(self, step: int) -> None:
        """Sort by the next column in sight, or the one before."""
        shown = [column for column in self.grid.shown if column.order is not None]
        places = [place for place, column in enumerate(shown) if column.key == self._sort]
        place = places[0] + step if places else 0
        column = shown[place % len(shown)]
        self._sort, self._descending = column.key, column.descending
        self.show_rows()

    def action_reverse(self) -> None:
        self._descending = not self._descending
        self.show_rows()

    def action_pause(self) -> None:
        """Hold the picture, or let it go on."""
        if self._held is None:
            rows = [evolve(row, history=frozen_history(row)) for row in self.plane.board.rows.values()]
            self._held = self.plane.clock(), rows
        else:
            self._held = None
        self.show_rows()
        self.refresh_board(FLEET)

    def on_grid_chosen(self, message: Grid.Chosen) -> None:
        self.dashboard.open_instance(message.key)

    def on_grid_marked(self) -> None:
        self._tell()

    def on_grid_header_clicked(self, message: Grid.HeaderClicked) -> None:
        key = message.column.key.removesuffix("_spark")
        if any(column.key == key and column.order is not None for column in FLEET_COLUMNS):
            self.action_sort(key)
