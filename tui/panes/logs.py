"""Its log: followed across processes and connections, by level, stream, process and time, searched, marked, saved."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import evolve
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from controlplane.wire.text import clean
from controlplane.wire.units import duration
from tui.board import incarnations as processes
from tui.board.loglines import LEVELS, STREAMS, WINDOWS_S, LogBuffer, LogLine, Sieve, after, moment
from tui.board.logview import STAMPS, lead_cells, lead_width, line_tone, saved
from tui.client import Failure, path_of
from tui.following import Broken, follow
from tui.panes.base import Pane
from tui.saving import save
from tui.widgets.lines import Lines
from tui.working import set_to_work

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.events import Resize
    from textual.timer import Timer
    from textual.widget import Widget
    from textual.worker import Worker

    from tui.board.board import Touched

BACKLOG = 1_000
"""Lines to begin with, and of each page that scrolling up reads."""
FILL_MOST = 10_000
"""Lines read from the store after a break: the most that one answer of the API has."""
BEFORE_BREAK_S = 1.0
"""Read again before the newest line: what is known is told apart, what came late is not lost."""
PAINT_S = 0.1
WIDE = 100
"""Cells from which a level is a word, not its first letter."""
ASK_AGAIN_S = 0.4
"""After the last change of a filter, until the server is asked for lines that fit it."""


class LogsPane(Pane):
    """The log of all processes, or of one."""

    title: ClassVar[str] = "Logs"
    filter_words: ClassVar[str] = "text  (n N go to it, & shows only its lines)"
    SCOPED_CSS = False
    DEFAULT_CSS = """
    LogsPane #log-about { height: 1; padding: 0 1; background: $surface; color: $text-muted; }
    Screen.-full Masthead, Screen.-full #status, Screen.-full Tabs, Screen.-full Footer { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f", "follow", "Follow"),
        Binding("v", "level", "Level"),
        Binding("o", "stream", "Stream"),
        Binding("b", "window", "Since"),
        Binding("p", "crashed", "Crashed one's"),
        Binding("left_parenthesis", "process(-1)", "Process before", show=False, key_display="("),
        Binding("right_parenthesis", "process(1)", "Next process", show=False, key_display=")"),
        Binding("ampersand", "only", "Only lines found", show=False, key_display="&"),
        Binding("T", "stamps", "Times", show=False),
        Binding("z", "full", "Full screen", show=False),
        Binding("y", "copy", "Copy", show=False),
        Binding("W", "save", "Save"),
        Binding("ctrl+r", "again", "Read anew", show=False),
    ]

    def __init__(self, instance_id: str) -> None:
        super().__init__(instance_id)
        self._buffer = LogBuffer()
        self._found, self._only, self._stamps = "", False, STAMPS[0]
        self._processes: list[processes.Incarnation] = []
        self._worker: Worker[None] | None = None
        self._link, self._failure = "", ""
        self._fresh, self._at_start, self._reading = True, False, False
        self._unseen = 0
        self._asking: Timer | None = None
        self._painting: Timer | None = None
        self._second, self._is_wide = 0, False
        self._read_at = (-1, "")
        self._needs_fill, self._said_away = False, 0.0
        self._told = Content("")

    def compose(self) -> ComposeResult:
        yield Static(id="log-about")
        yield Lines[LogLine](
            lambda line: line.text,
            lambda line: line.seq,
            lead=self._lead,
            tone=line_tone,
            empty="Nothing is in the log",
        )

    @property
    def lines(self) -> Lines[LogLine]:
        return self.query_one(Lines)

    @property
    def sieve(self) -> Sieve:
        return self._buffer.sieve

    @property
    def path(self) -> str:
        return path_of("instances", self.instance_id, "logs")

    def main_widget(self) -> Widget | None:
        return self.lines

    # -- in view

    def opened(self) -> None:
        self._painting = self._painting or self.set_interval(PAINT_S, self._paint)
        self._painting.resume()
        self._begin()
        self._read_at = (-1, "")

    def closed(self) -> None:
        self._worker = None
        if self._painting is not None:
            self._painting.pause()
        self.screen.remove_class("-full")

    def board_changed(self, _: Touched) -> None:
        row = self.row
        if row is not None and (row.incarnation, row.status) != self._read_at:
            self._read_at = (row.incarnation, row.status)
            set_to_work(self, self._read_processes, group="view")

    def _begin(self) -> None:
        """Follow the log by the sieve in force; what ran before ends."""
        if self._worker is not None:
            self._worker.cancel()
        self._failure = ""
        self._worker = set_to_work(self, self._follow, group="view")

    # -- the stream

    async def _follow(self) -> None:
        query = self.sieve.query(self.plane.clock()) | {"follow": "true"}
        goes_on = not self._fresh and self._buffer.newest is not None
        first = query | {"tail": 0 if goes_on else BACKLOG}
        self._needs_fill, self._said_away = goes_on, 0.0
        try:
            async for said in follow(self.plane.api, self.path, first, again=query | {"tail": 0}):
                if isinstance(said, Broken):
                    self._lose(said)
                    if self.row is None:
                        self._link = "deleted: this was kept"
                        return
                else:
                    await self._hear(said.document)
        except Failure as failure:
            self._failure, self._link = f"{failure}  {failure.hint}".strip(), ""

    async def _hear(self, event: dict[str, Any]) -> None:
        kind = event.get("type")
        if kind == "log":
            self._unseen += self._buffer.take(event) and not self.lines.following
        elif kind == "connected":
            await self._connected()
        elif kind == "gap":
            await self._fill(event.get("missed"))

    async def _connected(self) -> None:
        if self._fresh:
            self._fresh, self._at_start = False, False
            self._buffer.clear()
        self._link = ""
        if self._said_away:
            away = max(0.0, self.plane.clock() - self._said_away)
            self._buffer.note(f"── back after {duration(away)} ──", self.plane.clock())
            self._said_away = 0.0
        if self._needs_fill:
            self._needs_fill = False
            await self._fill(None)

    def _lose(self, broken: Broken) -> None:
        now = self.plane.clock()
        if not self._said_away:
            self._said_away = now
            self._needs_fill = self._needs_fill or self._fresh
            if not self._fresh:
                self._buffer.note(f"── the connection is gone: {broken.failure} ──", now)
        self._link = f"◌ away for {duration(now - self._said_away)}, attempt {broken.attempt}"

    async def _fill(self, missed: object) -> None:
        """Read from the store what the stream cannot replay."""
        now, newest = self.plane.clock(), self._buffer.newest
        query = self.sieve.query(now) | {"tail": BACKLOG}
        if newest is not None:
            query |= {"tail": FILL_MOST, "since": moment(newest.at - BEFORE_BREAK_S)}
        try:
            page = await self.plane.api.get(self.path, **query)
        except Failure as failure:
            lost = f"up to {_lines(missed)}" if isinstance(missed, int) else "some lines"
            self._buffer.note(f"── {lost} were not kept here ({failure.title}): r reads the log anew ──", now)
            return
        if len(page["logs"]) >= FILL_MOST:
            self._buffer.note(f"── lines were not kept here: more than {FILL_MOST:,} came meanwhile ──", now)
        self._buffer.fill(page["logs"], now)

    async def _read_older(self) -> None:
        oldest = self._buffer.oldest
        if oldest is None or self._at_start or self._reading or self._buffer.is_full:
            return
        self._reading = True
        query = self.sieve.query(self.plane.clock()) | {"tail": BACKLOG, "until": moment(oldest.at + 0.001)}
        try:
            page = await self.plane.api.get(self.path, **query)
            self._at_start = not self._buffer.put_before(page["logs"])
        except Failure as failure:
            self.dashboard.warn(str(failure), failure.hint)
        finally:
            self._reading = False

    async def _read_processes(self) -> None:
        """How many there were, and how each ended; the log itself says what is wrong if that cannot be read."""
        with suppress(Failure):
            page = await self.plane.api.get(path_of("instances", self.instance_id, "incarnations"), limit=500)
            self._processes = processes.read(page["incarnations"])

    # -- painting

    def _paint(self) -> None:
        """At most ten times a second, whatever comes in."""
        if not self.in_view:
            return
        change, lines = self._buffer.changes(), self.lines
        if change.anew:
            lines.show(change.after)
        elif change:
            lines.change(change.dropped, change.before, change.after)
        second = int(self.plane.clock())
        if self._stamps == "relative" and second != self._second:
            lines.refresh()
        self._second = second
        self._tell()

    def _tell(self) -> None:
        about = self.query_one("#log-about", Static)
        parts = [Content(part) for part in self._chosen()]
        if self._failure:
            parts = [Content.styled(f"✗ {self._failure}  (ctrl+r tries again)", "$text-error")]
        elif self._link:
            parts.insert(0, Content.styled(self._link, "bold $text-warning"))
        if self.lines.following:
            self._unseen = 0
            parts.insert(0, Content.styled("● following", "$text-success"))
        else:
            more = f", {self._unseen:,} new" if self._unseen else ""
            parts.insert(0, Content.styled(f"‖ paused{more}: G follows", "$text-warning"))
        shown = Content("  ").join(parts)
        if shown != self._told:
            self._told = shown
            about.update(shown)

    def _chosen(self) -> Iterator[str]:
        sieve = self.sieve
        yield processes.heading(self._processes, sieve.incarnation)
        yield f"≥ {sieve.least}" if sieve.least else "all levels"
        if sieve.stream:
            yield sieve.stream
        if sieve.window_s:
            yield f"since {duration(sieve.window_s)}"
        if self._found:
            only = ", only these: & shows all" if self._only else ""
            yield f"/{clean(self._found)} {_lines(self.lines.matches)}{only}"
        yield _lines(len(self._buffer.lines))
        if self._buffer.let_go:
            yield f"{self._buffer.let_go:,} older let go"

    def _lead(self, line: LogLine) -> Any:
        return lead_cells(line, self._stamps, self.plane.clock(), is_wide=self._is_wide)

    def on_mount(self) -> None:
        self._measure()

    def on_resize(self, _: Resize) -> None:
        self._measure()

    def _measure(self) -> None:
        self._is_wide = self.size.width >= WIDE
        width = lead_width(self._stamps, is_wide=self._is_wide)
        if width != self.lines.lead_width:
            self.lines.lead_width = width
            self.lines.lay_out()

    def on_lines_top_reached(self) -> None:
        set_to_work(self, self._read_older, group="view")

    # -- which lines

    @property
    def filter_text(self) -> str:
        return self._found

    def filter_changed(self, text: str) -> None:
        self._found = text
        if self._only:
            self._sift(text=text)
        self.lines.search(text)
        self._tell()

    def show_incarnation(self, number: int | None) -> None:
        """Show the log of one process; None: of all."""
        if number != self.sieve.incarnation:
            self._sift(incarnation=number)

    def _sift(self, **changes: Any) -> None:
        """Want others: at once of what is here, and a moment later of what the server has."""
        self._buffer.sift(evolve(self.sieve, **changes))
        self._fresh = True
        if self._asking is not None:
            self._asking.stop()
        self._asking = self.set_timer(ASK_AGAIN_S if "text" in changes else 0.01, self._ask)
        self._paint()

    def _ask(self) -> None:
        if self.in_view:
            self._begin()

    def action_level(self) -> None:
        self._sift(least=after(("", *LEVELS[1:]), self.sieve.least))

    def action_stream(self) -> None:
        self._sift(stream=after(("", "stderr", "stdout", *STREAMS[2:]), self.sieve.stream))

    def action_window(self) -> None:
        self._sift(window_s=after(WINDOWS_S, self.sieve.window_s))

    def action_only(self) -> None:
        self._only = not self._only
        self._sift(text=self._found if self._only else "")

    def action_process(self, step: int) -> None:
        self.show_incarnation(processes.neighbour(self._processes, self.sieve.incarnation, step))

    def action_crashed(self) -> None:
        number = processes.crashed(self._processes)
        if number is None:
            self.dashboard.warn("No process of it has ended so far")
        else:
            self.show_incarnation(None if self.sieve.incarnation == number else number)

    # -- other keys

    def action_follow(self) -> None:
        self.lines.follow(on=not self.lines.following)

    def action_stamps(self) -> None:
        self._stamps = after(STAMPS, self._stamps)
        self._measure()
        self.lines.refresh()

    def action_full(self) -> None:
        self.screen.toggle_class("-full")

    def action_again(self) -> None:
        self._fresh = True
        self._begin()

    def action_copy(self) -> None:
        chosen = self.lines.chosen()
        if chosen:
            self.app.copy_to_clipboard("\n".join(line.text for line in chosen))
            self.notify(f"{len(chosen)} lines copied" if len(chosen) > 1 else "Line copied", markup=False)

    async def action_save(self) -> None:
        lines = list(self._buffer.lines)
        about = f"{self.row.name if self.row is not None else self.instance_id}-log"
        try:
            path = await asyncio.to_thread(save, about, ".log", map(saved, lines), time.time())
        except OSError as error:
            self.dashboard.warn("The log was not saved", str(error))
        else:
            self.notify(f"{_lines(len(lines))} saved to {clean(path)}", markup=False)


def _lines(number: int) -> str:
    return f"{number:,} line" if number == 1 else f"{number:,} lines"
