"""The fleet's timeline: what happened to every instance, oldest first, growing at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from tui.board.board import FLEET, Happening
from tui.board.fleet_history import earlier_happenings
from tui.board.reading import mapping
from tui.board.timeline_columns import TIMELINE_COLUMNS, fitting
from tui.client import Failure
from tui.screens.table import TableScreen
from tui.widgets.grid import Grid
from tui.working import set_to_work

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from tui.board.board import Touched
    from tui.board.rows import Row

PAGE = 200
"""Kept events of one look further back."""
MOST_EARLIER = 5_000
"""Of them in memory, about 5 MB; a person who wants more wants `corral events`."""


class TimelineScreen(TableScreen[Happening]):
    """Opened with `e` on the fleet. It follows its end until the cursor is moved away from there."""

    crumbs = ("fleet", "timeline")
    place = "timeline"
    DEFAULT_CSS = """
    TimelineScreen > #note { height: 1; padding: 0 1; color: $text-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("o", "older", "Older"),
        Binding("l", "app.instance('logs')", "Logs"),
        Binding("p", "pause", "Pause"),
        Binding("r", "app.verb('restart')", "Restart", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._note = "reading what was before …"
        self._is_paused = False
        self._documents: list[Any] = []
        self._cursor: str | None = None
        self._earlier: list[Happening] = []
        self._shown = -1

    def body(self) -> ComposeResult:
        yield Grid(TIMELINE_COLUMNS, lambda h: str(h.number), empty="Nothing happened yet", clock=self.plane.clock)
        yield Static(id="note")

    def selected(self) -> list[Row]:
        current = self.grid.current
        return self.plane.board.present([current.instance_id] if current is not None else [])

    def on_mount(self) -> None:
        super().on_mount()
        self._read()

    def board_changed(self, touched: Touched) -> None:
        if touched.fleet and not self._is_paused and self.plane.board.happened != self._shown:
            self.show_rows()

    def show_rows(self) -> None:
        board, grid = self.plane.board, self.grid
        was_at_end = grid.is_at_end
        grid.empty = "Nothing fits the filter: escape takes it back" if self._filter else "Nothing happened yet"
        grid.show(fitting([*self._earlier, *board.timeline], self._filter))
        if was_at_end:
            grid.action_edge(1)
        self._shown = board.happened
        lines = f"{len(grid.rows)} line{'s' * (len(grid.rows) != 1)}"
        parts = [f"/{self._filter}  {lines}"] if self._filter else [lines]
        parts += ["paused: p goes on"] if self._is_paused else []
        self.query_one("#note", Static).update(Content("   ".join([*parts, self._note])))

    def _read(self) -> None:
        set_to_work(self, self._read_earlier, group="view", exclusive=True)

    async def _read_earlier(self) -> None:
        """Read one page more of what was kept, newest first."""
        try:
            page = mapping(await self.plane.api.get("/events/history", limit=PAGE, cursor=self._cursor))
        except Failure as failure:
            self._note = f"what was before is not known (o tries again): {failure}"
        else:
            events, cursor = page.get("events"), page.get("next_cursor")
            self._documents += events if isinstance(events, list) else []
            self._cursor = cursor if isinstance(cursor, str) else None
            self._earlier = earlier_happenings(self._documents, list(self.plane.board.timeline))
            is_all = self._cursor is None or len(self._documents) >= MOST_EARLIER
            self._note = "that is all that is kept" if is_all else "o reads what was before"
        self.show_rows()

    # -- keys

    def action_older(self) -> None:
        if not self._documents or (self._cursor is not None and len(self._documents) < MOST_EARLIER):
            self._read()

    def action_pause(self) -> None:
        self._is_paused = not self._is_paused
        self.show_rows()
        self.refresh_board(FLEET)

    def on_grid_chosen(self) -> None:
        current = self.grid.current
        if current is not None and current.instance_id:
            self.dashboard.open_instance(current.instance_id, "events")
        elif current is not None:
            self.dashboard.action_go("host")
