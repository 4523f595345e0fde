"""What happened to the instance, in words: what was kept, and what comes, newest at the bottom."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from tui.board.event_columns import EVENT_COLUMNS, KEPT_ENTRIES, KINDS, Entry, Timeline, data_lines, moment
from tui.client import Failure, path_of
from tui.panes.base import Pane
from tui.widgets.grid import Grid
from tui.widgets.tones import toned
from tui.working import set_to_work

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.widget import Widget

    from tui.board.board import Happening, Touched
    from tui.board.event_columns import Kind

PAGE_ROWS = 500
"""Of one reading, newest first; more are read when the cursor comes to the top."""
READ_PAUSE_S = 0.5
"""Between two readings."""
OVERLAP_S = 0.001
"""Older events are asked for up to and with the oldest millisecond known: several may share it."""


class EventsPane(Pane):
    """The kept history by pages, and live what the fleet's stream tells of this instance."""

    title: ClassVar[str] = "Events"
    filter_words: ClassVar[str] = "word  !not  type:word"
    DEFAULT_CSS = """
    EventsPane > #said { height: 1; padding: 0 1; color: $text-muted; }
    EventsPane > #note { height: auto; padding: 0 1; color: $text-warning; display: none; }
    EventsPane > #note.-told { display: block; }
    EventsPane > #data { height: 50%; display: none; border-top: solid $primary; padding: 0 1; scrollbar-size-vertical: 1; }
    EventsPane > #data.-open { display: block; }
    EventsPane #lines { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f", "follow", "Follow"),
        Binding("e", "kind", "Kind"),
        Binding("ctrl+r", "reload", "Read anew", show=False),
        Binding("J", "scroll_data(1)", "Data down", show=False),
        Binding("K", "scroll_data(-1)", "Data up", show=False),
        Binding("escape", "close_data", "Close", show=False),
    ]

    def __init__(self, instance_id: str) -> None:
        super().__init__(instance_id)
        self.timeline = Timeline(instance_id)
        self._kind: Kind = "all"
        self._filter = ""
        self._following = True
        self._all_read = False
        self._complaint = ""
        self._heard: Happening | None = None
        self._link_since = 0.0
        self._due = asyncio.Event()
        self._older = False

    def compose(self) -> ComposeResult:
        yield Static(id="said", markup=False)
        yield Static(id="note", markup=False)
        yield Grid(
            EVENT_COLUMNS, lambda entry: entry.key, empty="Nothing is known to have happened", clock=self.plane.clock
        )
        with VerticalScroll(id="data"):
            yield Static(id="lines", markup=False)

    @property
    def grid(self) -> Grid[Entry]:
        return self.query_one(Grid)

    def main_widget(self) -> Widget:
        return self.grid

    @property
    def filter_text(self) -> str:
        return self._filter

    # -- reading

    def opened(self) -> None:
        self._hear()
        self._due.set()
        set_to_work(self, self._keep_reading, group="view")

    async def _keep_reading(self) -> None:
        """Service loop while in view: read the newest when there may be some unheard, older ones when asked to."""
        while True:
            await self._due.wait()
            self._due.clear()
            older, self._older = self._older, False
            await self._read(older=older)
            await asyncio.sleep(READ_PAUSE_S)

    async def _read(self, *, older: bool) -> None:
        entries, until = self.timeline.entries, None
        if older and entries:
            until = _rfc3339(entries[0].at + OVERLAP_S)
        path = path_of("instances", self.instance_id, "events")
        try:
            page = (await self.plane.api.get(path, tail=PAGE_ROWS, until=until))["events"]
        except Failure as failure:
            self._complaint = str(failure)
            self._arrange()
            return
        self._complaint = ""
        new = self.timeline.take_page(page)
        if older or len(page) < PAGE_ROWS:
            self._all_read = self._all_read or len(page) < PAGE_ROWS or not new
        self._arrange()

    def board_changed(self, touched: Touched) -> None:  # noqa: ARG002  (the timeline is told of by no touch)
        link = self.plane.board.link
        if link.state == "live" and link.since != self._link_since:
            self._link_since = link.since
            self._due.set()  # what happened while the stream was away may not have been replayed
        if self._hear():
            self._arrange()

    def _hear(self) -> bool:
        """Take what the fleet's timeline has got since it was last looked at; whether any of it is about this one."""
        happenings = self.plane.board.timeline
        news: list[Happening] = []
        for happening in reversed(happenings):
            if happening is self._heard:
                break
            if happening.instance_id == self.instance_id:
                news.append(happening)
        self._heard = happenings[-1] if happenings else None
        return sum(self.timeline.take_live(h.type, h.at, h.data) for h in reversed(news)) > 0

    # -- painting

    def filter_changed(self, text: str) -> None:
        self._filter = text
        self._arrange()

    def _arrange(self) -> None:
        """Show what is wanted of what is known; the cursor stays on its line, or at the end while following."""
        if not self.is_mounted:
            return
        chosen = self.timeline.chosen(self._kind, self._filter)
        grid = self.grid
        grid.empty = "Nothing fits" if self._filter or self._kind != "all" else "Nothing is known to have happened"
        grid.show(chosen)
        if self._following and chosen:
            grid.move_to(chosen[-1].key)
        self._tell(len(chosen))

    def _tell(self, shown: int) -> None:
        known = len(self.timeline.entries)
        parts = [f"{shown:,} of {known:,}" if shown != known else f"{known:,} events"]
        if not self._all_read:
            parts.append("older ones at the top" if known < KEPT_ENTRIES else "no more are kept here")
        if self._kind != "all":
            parts.append(f"only {self._kind} (e)")
        if self._filter:
            parts.append(f"/{self._filter}")
        follows = Content.styled("▼ follows" if self._following else "‖ stands still (f follows)", "$text-accent")
        self.query_one("#said", Static).update(Content("  ").join([Content("  ".join(parts)), follows]))
        note = self.query_one("#note", Static)
        note.update(Content(f"✗ {self._complaint} (ctrl+r tries again)"))
        note.set_class(bool(self._complaint), "-told")

    # -- keys

    def on_grid_highlighted(self, message: Grid.Highlighted) -> None:
        """Away from the last line nothing moves under the reader; at the first one older events are read."""
        message.stop()
        rows = self.grid.rows
        if not rows:
            return
        self._following = message.key == rows[-1].key
        if (
            message.key == rows[0].key
            and len(rows) > 1
            and not self._all_read
            and len(self.timeline.entries) < KEPT_ENTRIES
        ):
            self._older = True
            self._due.set()
        self._tell(len(rows))
        if self._data.has_class("-open"):
            self._show_data()

    def on_grid_chosen(self, message: Grid.Chosen) -> None:
        message.stop()
        if type(message) is not Grid.Chosen:
            return
        if self._data.has_class("-open"):
            self.action_close_data()
        else:
            self._data.add_class("-open")
            self._show_data()

    @property
    def _data(self) -> VerticalScroll:
        return self.query_one("#data", VerticalScroll)

    def _show_data(self) -> None:
        """All of the event under the cursor."""
        entry = self.grid.current
        if entry is None:
            return
        head = Content.assemble((f"{moment(entry.at, self.plane.clock())}  {entry.type}  ", "bold"), toned(entry.said))
        self.query_one("#lines", Static).update(Content("\n").join([head, Content("\n".join(data_lines(entry)))]))
        self._data.scroll_home(animate=False)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "close_data":
            return self._data.has_class("-open")
        return super().check_action(action, parameters)

    def action_close_data(self) -> None:
        self._data.remove_class("-open")
        self.grid.focus()

    def action_scroll_data(self, by: int) -> None:
        self._data.scroll_relative(y=by * max(1, self._data.size.height // 2), animate=False)

    def action_follow(self) -> None:
        """Go to the newest and stay there, or stand still."""
        self._following = not self._following
        self._arrange()

    def action_kind(self) -> None:
        """Only another kind of events."""
        kinds = list(KINDS)
        self._kind = kinds[(kinds.index(self._kind) + 1) % len(kinds)]
        self._arrange()

    def action_reload(self) -> None:
        self._due.set()


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
