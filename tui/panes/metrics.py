"""How much it used and how fast it answered, as plots over a time of one's choosing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from tui.board.pictures import pictures
from tui.board.rows import seconds_of
from tui.board.series import WINDOWS, Point, Series
from tui.client import Failure, path_of
from tui.panes.base import Pane
from tui.widgets.chart import Chart
from tui.working import set_to_work

if TYPE_CHECKING:
    from textual import events
    from textual.app import ComposeResult
    from textual.widget import Widget

    from tui.board.board import Touched
    from tui.board.pictures import PlotName

FIRST_WINDOW = 2
"""Its place: the quarter of an hour before."""
ROWS = 500
"""More than any window has steps."""
KEPT_MARKS = 200
"""Processes whose beginnings are marked: a crash loop has thousands."""
SETTLE_S = 6.0
"""After which the history is read once more: the newest samples take a few seconds to be kept."""
DRAW_EVERY_S, DRAW_RARELY_S = 1.0, 5.0
"""Plots are drawn anew at most, and at least, so often: each costs about 10 ms."""
LEAST_LINES, WIDE_CELLS = 8, 110
"""A plot's height, and the width from which two stand side by side."""


IDLE = "No samples in this time: it did not run"
EMPTY: Mapping[PlotName, str] = {"cpu": IDLE, "memory": IDLE, "latency": "No calls in this time", "calls": IDLE}
"""What stands in place of a plot without a line."""
UNREAD = "Not read yet"


class MetricsPane(Pane):
    """Kept samples by steps, and live ones from the board."""

    title: ClassVar[str] = "Metrics"
    DEFAULT_CSS = """
    MetricsPane { background: $surface; }
    MetricsPane > #windows { height: 1; padding: 0 1; }
    MetricsPane > #note { height: auto; padding: 0 1; color: $text-warning; display: none; }
    MetricsPane > #note.-told { display: block; }
    MetricsPane > #plots { height: 1fr; scrollbar-size-vertical: 1; }
    MetricsPane.-wide > #plots { layout: grid; grid-size: 2; grid-gutter: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("comma", "window(-1)", "Shorter", key_display=","),
        Binding("full_stop", "window(1)", "Longer", key_display="."),
        Binding("z", "zoom", "Zoom"),
        Binding("ctrl+r", "reload", "Read anew", show=False),
        Binding("k", "scroll(-1)", "Up", show=False),
        Binding("j", "scroll(1)", "Down", show=False),
    ]

    def __init__(self, instance_id: str) -> None:
        super().__init__(instance_id)
        self.series = Series(WINDOWS[FIRST_WINDOW])
        self.marks: list[float] = []
        self._limits: Mapping[str, object] = {}
        self._zoomed = False
        self._complaint = ""
        self._sampled: float | None = None
        self._counted = (0, 0)
        self._process: tuple[object, ...] = ()
        self._drawn = 0.0
        self._is_stale = True
        self._was_read = False
        self._due = asyncio.Event()

    def compose(self) -> ComposeResult:
        yield Static(id="windows", markup=False)
        yield Static(id="note", markup=False)
        with VerticalScroll(id="plots"):
            yield from (Chart(id=name) for name in EMPTY)

    def main_widget(self) -> Widget:
        return self.query_one("#plots")

    def on_resize(self, event: events.Resize) -> None:
        room, wide = event.size.height - 1, event.size.width >= WIDE_CELLS
        self.set_class(wide, "-wide")
        fitting = 4 if not wide and room >= 4 * LEAST_LINES * 1.5 else 2
        for chart in self.query(Chart):
            chart.styles.height = max(LEAST_LINES, room // fitting)

    # -- reading

    def opened(self) -> None:
        row = self.row
        self._sampled = row.sampled if row is not None else None
        self._counted = (row.calls, row.errors) if row is not None else (0, 0)
        self._due.set()
        set_to_work(self, self._keep_reading, group="view")

    async def _keep_reading(self) -> None:
        """Service loop while in view: read when asked to, and once more when the newest has been kept."""
        while True:
            await self._due.wait()
            self._due.clear()
            await self._read()
            try:
                await asyncio.wait_for(self._due.wait(), SETTLE_S)
            except TimeoutError:
                await self._read()

    async def _read(self) -> None:
        """Read the window's samples, when processes began, and the limits (which a deleted instance has no more)."""
        api, id_, window = self.plane.api, self.instance_id, self.series.window
        since = datetime.fromtimestamp(self.plane.clock() - window.seconds, UTC).isoformat().replace("+00:00", "Z")
        try:
            page = await api.get(path_of("instances", id_, "metrics"), since=since, step=window.step, limit=ROWS)
            processes = await api.get(path_of("instances", id_, "incarnations"), limit=KEPT_MARKS)
            samples, known = page["metrics"], processes["incarnations"]
        except Failure as failure:
            self._complaint = str(failure)
        else:
            self._complaint, self._was_read = "", True
            if window is self.series.window:
                self.series.take_history(samples)
            began = (seconds_of(process.get("started_at")) for process in known)
            self.marks = [at for at in began if at is not None]
            await self._read_limits()
        self._draw()

    async def _read_limits(self) -> None:
        try:
            document = await self.plane.api.get(path_of("instances", self.instance_id))
        except Failure:
            return
        self._limits = document.get("limits") or {}

    def board_changed(self, touched: Touched) -> None:
        if self.instance_id not in touched.ids and not touched.fleet:
            return
        self._take_sample()
        row, now = self.row, self.plane.clock()
        link = self.plane.board.link.state
        process = (link, row.pid, row.incarnation, row.revision) if row is not None else (link,)
        if process != self._process:
            self._process = process
            self._due.set()
        waited = now - self._drawn
        if waited >= DRAW_RARELY_S or (self._is_stale and waited >= max(DRAW_EVERY_S, self.series.window.step / 4)):
            self._draw()

    def _take_sample(self) -> None:
        """Take the row's newest sample, if it is new; its calls are what the row has counted since the one before."""
        row = self.row
        if row is None or row.sampled is None or row.sampled == self._sampled:
            return
        calls, errors = (max(0, now - then) for now, then in zip((row.calls, row.errors), self._counted, strict=True))
        self._sampled, self._counted = row.sampled, (row.calls, row.errors)
        self.series.take(
            Point(
                at=row.sampled,
                cpu=row.cpu or 0.0,
                memory=row.memory or 0.0,
                calls=calls,
                errors=errors,
                p50=row.p50,
                p95=row.p95,
            )
        )
        self._is_stale = True

    # -- painting

    def _draw(self) -> None:
        if not self.is_mounted or not self.in_view:
            return
        now = self.plane.clock()
        self._drawn, self._is_stale = now, False
        self.series.trim(now)
        drawn = pictures(self.series, self.marks, self._limits, now, row=self.row, zoomed=self._zoomed)
        for name, picture in drawn.items():
            self.query_one(f"#{name}", Chart).show(picture, EMPTY[name] if self._was_read else UNREAD)
        self._tell()

    def _tell(self) -> None:
        """Which window it is, and what the signs in the plots mean."""
        parts: list[Content | tuple[str, str] | str] = []
        for window in WINDOWS:
            here = window is self.series.window
            parts.append(
                (f"[{window.name}]" if here else f" {window.name} ", "bold $text-accent" if here else "$text-muted")
            )
        parts.append(("   │ a process began", "$text-warning"))
        parts.append(("   zoomed to the values (z)" if self._zoomed else "", "$text-muted"))
        self.query_one("#windows", Static).update(Content.assemble(*parts))
        note = self.query_one("#note", Static)
        note.update(Content(f"✗ {self._complaint} (ctrl+r tries again)"))
        note.set_class(bool(self._complaint), "-told")

    # -- keys

    def action_window(self, by: int) -> None:
        """Look back farther, or less far."""
        place = WINDOWS.index(self.series.window) + by
        if 0 <= place < len(WINDOWS):
            self.series = Series(WINDOWS[place])
            self._due.set()
            self._tell()

    def action_zoom(self) -> None:
        """Give the values the whole height, or show the limits above them."""
        self._zoomed = not self._zoomed
        self._draw()

    def action_scroll(self, by: int) -> None:
        self.query_one("#plots").scroll_relative(y=by, animate=False)

    def action_reload(self) -> None:
        self._due.set()
