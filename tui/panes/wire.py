"""Its JSON-RPC traffic, live: both ways, every process, with each answer beside its request."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, ClassVar

from attrs import frozen
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.widgets import Static

from controlplane.wire.text import clean
from controlplane.wire.units import duration
from tui.board.frames import ARROWS, FRAME_COLUMNS, Frame, FrameBuffer, Wanted, detail, exported
from tui.board.loglines import after
from tui.client import Failure, path_of
from tui.following import Broken, follow
from tui.panes.base import Pane
from tui.saving import save
from tui.widgets.lines import Lines
from tui.widgets.tape import Tape
from tui.working import set_to_work

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from textual.app import ComposeResult
    from textual.events import Resize
    from textual.timer import Timer
    from textual.widget import Widget

    from tui.widgets.grid import Grid

PAINT_S = 0.1
WIDE = 140
"""Cells from which the open message stands beside the table, not below it."""
DETAIL_LINES = 5_000
"""Of one open message; a message is cut at 64 Ki characters, which may be as many lines."""
WAITING = "Nothing has passed since the tap was opened: call a tool"


@frozen
class DetailLine:
    """One line of an open message."""

    place: int
    text: str
    tone: str


class WirePane(Pane):
    """A live tap. Nothing is asked of the server while the tab is not in view."""

    title: ClassVar[str] = "Wire"
    filter_words: ClassVar[str] = "word  !not"
    DEFAULT_CSS = """
    WirePane #wire-about { height: 1; padding: 0 1; background: $surface; color: $text-muted; }
    WirePane #wire-refused { height: auto; padding: 1 2; color: $text-error; display: none; }
    WirePane #wire-refused.-on { display: block; }
    WirePane Container { height: 1fr; layout: vertical; }
    WirePane Container.-wide { layout: horizontal; }
    WirePane #wire-detail { display: none; height: 2fr; border-top: solid $primary; }
    WirePane Container.-wide #wire-detail { height: 1fr; border-top: none; border-left: solid $primary; }
    WirePane #wire-detail.-on { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "pause", "Pause"),
        Binding("f", "follow", "Follow"),
        Binding("o", "direction", "Direction"),
        Binding("y", "copy", "Copy"),
        Binding("W", "save", "Export"),
        Binding("x", "clear", "Clear"),
        Binding("ctrl+r", "again", "Try again", show=False),
        Binding("escape", "close", "Close the message", show=False),
    ]

    def __init__(self, instance_id: str) -> None:
        super().__init__(instance_id)
        self._buffer = FrameBuffer()
        self._wanted = Wanted()
        self._paused_at: int | None = None
        self._left_at: float | None = None
        self._link, self._dirty = "", True
        self._open: tuple[str, bool] = ("", False)
        self._painting: Timer | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="wire-about")
        yield Static(id="wire-refused")
        with Container():
            yield Tape[Frame](FRAME_COLUMNS, lambda frame: frame.key, empty=WAITING, clock=self.plane.clock)
            yield Lines[DetailLine](
                lambda line: line.text,
                lambda line: line.place,
                tone=lambda line: line.tone,
                follows=False,
                id="wire-detail",
            )

    @property
    def tape(self) -> Tape[Frame]:
        return self.query_one(Tape)

    @property
    def shown_detail(self) -> Lines[DetailLine]:
        return self.query_one("#wire-detail", Lines)

    def main_widget(self) -> Widget | None:
        return self.tape

    # -- in view

    def opened(self) -> None:
        self._painting = self._painting or self.set_interval(PAINT_S, self._paint)
        self._painting.resume()
        if self._left_at is not None and self._buffer.passed:
            away = duration(max(0.0, self.plane.clock() - self._left_at))
            self._buffer.note_gap(f"the tap was closed for {away}: what passed then is not here", self.plane.clock())
        self._begin()

    def closed(self) -> None:
        self._left_at = self.plane.clock()
        if self._painting is not None:
            self._painting.pause()

    def _begin(self) -> None:
        self.query_one("#wire-refused").remove_class("-on")
        self._link = "◌ opening"
        set_to_work(self, self._follow, group="view", exclusive=True)

    # -- the stream

    async def _follow(self) -> None:
        try:
            async for said in follow(self.plane.api, path_of("instances", self.instance_id, "wire")):
                if isinstance(said, Broken):
                    self._link = f"◌ away: {said.failure.title}, attempt {said.attempt}"
                    if self.row is None:
                        self._link = "deleted"
                        return
                else:
                    self._hear(said.document)
        except Failure as failure:
            self._link = ""
            self._refuse(failure)

    def _hear(self, event: dict[str, Any]) -> None:
        match event.get("type"):
            case "wire":
                self._buffer.take(event)
            case "gap":
                missed = event.get("missed")
                many = f"{missed:,} messages" if isinstance(missed, int) else "what passed meanwhile"
                self._buffer.note_gap(f"{many} could not be shown", self.plane.clock())
            case "lagged":
                self._buffer.note_gap("more passed than this connection takes", self.plane.clock())
            case "connected":
                self._link = ""
        self._dirty = True

    def _refuse(self, failure: Failure) -> None:
        refused = self.query_one("#wire-refused", Static)
        lines = (
            f"✗ {failure}",
            failure.hint,
            "The tap takes the role deployer or admin." if failure.status == 403 else "",
        )
        refused.update(Content("\n".join(line for line in (*lines, "ctrl+r tries again") if line)))
        refused.add_class("-on")

    # -- painting

    def _paint(self) -> None:
        if not self.in_view:
            return
        if self._dirty and self._paused_at is None:
            self._dirty = False
            self.tape.empty = "Nothing fits the filter" if self._buffer.frames else WAITING
            self.tape.roll(self._buffer.wanted(self._wanted))
        self._look_into()
        self._tell()

    def _tell(self) -> None:
        self.query_one("#wire-about", Static).update(Content("  ").join(self._facts()))

    def _facts(self) -> Iterator[Content]:
        if self._link:
            yield Content.styled(self._link, "bold $text-warning")
        if self._paused_at is not None:
            more = self._buffer.passed - self._paused_at
            yield Content.styled(f"‖ paused, {more:,} passed since: p goes on", "bold $text-warning")
        elif self.tape.following:
            yield Content.styled("● following", "$text-success")
        else:
            yield Content.styled("‖ held: G follows", "$text-warning")
        shown, wanted = len(self.tape.rows), self._wanted
        if wanted.text:
            yield Content(f"/{clean(wanted.text)}")
        if wanted.direction:
            yield Content(f"only {ARROWS[wanted.direction]} {wanted.direction.replace('_', ' ')}")
        yield Content(f"{shown:,} of {self._buffer.passed:,} messages" if shown else "no messages")
        if self._buffer.let_go:
            yield Content(f"{self._buffer.let_go:,} older let go")

    def on_mount(self) -> None:
        self._arrange()

    def on_resize(self, _: Resize) -> None:
        self._arrange()

    def _arrange(self) -> None:
        self.query_one(Container).set_class(self.size.width >= WIDE, "-wide")

    # -- one message

    @property
    def _is_open(self) -> bool:
        return self.shown_detail.has_class("-on")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Escape leaves the screen when no message is open."""
        if action == "close":
            return self._is_open
        return super().check_action(action, parameters)

    def on_grid_chosen(self, event: Grid.Chosen) -> None:
        event.stop()
        if self._is_open:
            self.action_close()
            return
        self.tape.following = False
        self.shown_detail.add_class("-on")
        self._open = ("", False)
        self._look_into()

    def on_grid_highlighted(self, event: Grid.Highlighted) -> None:
        event.stop()

    def _look_into(self) -> None:
        """Show the message under the cursor, and the other half of it as soon as that has passed."""
        frame = self.tape.current
        if not self._is_open or frame is None:
            return
        if self._open == (frame.key, True):
            return
        other = self._buffer.counterpart(frame)
        if self._open == (frame.key, other is not None):
            return
        self._open = (frame.key, other is not None)
        both = [frame] if other is None else [frame, other] if frame.kind == "request" else [other, frame]
        lines: list[DetailLine] = []
        begins = 0
        for part in both:
            begins = len(lines) if part is frame else begins
            texts = list(detail(part))
            if len(texts) > DETAIL_LINES:
                texts = [
                    *texts[:DETAIL_LINES],
                    (f"… and {len(texts) - DETAIL_LINES:,} more lines: y copies all", "warn"),
                ]
            lines += [DetailLine(len(lines) + place, *line) for place, line in enumerate((*texts, ("", "")))]
        self.shown_detail.show(lines)
        self.shown_detail.reveal(begins)

    def action_close(self) -> None:
        self.shown_detail.remove_class("-on")
        self.tape.focus()

    # -- keys

    @property
    def filter_text(self) -> str:
        return self._wanted.text

    def filter_changed(self, text: str) -> None:
        self._want(Wanted(text, self._wanted.direction))

    def action_direction(self) -> None:
        self._want(Wanted(self._wanted.text, after(("", "to_server", "from_server"), self._wanted.direction)))

    def _want(self, wanted: Wanted) -> None:
        self._wanted, self._dirty = wanted, True
        if self._paused_at is not None:  # a still picture is looked through as well
            self.tape.roll(self._buffer.wanted(wanted))

    def action_pause(self) -> None:
        self._paused_at = self._buffer.passed if self._paused_at is None else None
        self._dirty = True

    def on_tape_pause_wanted(self) -> None:
        self.action_pause()

    def action_follow(self) -> None:
        if self.tape.following:
            self.tape.following = False
        else:
            self.tape.action_edge(1)

    def action_clear(self) -> None:
        self._buffer.clear()
        self._paused_at, self._dirty = (0 if self._paused_at is not None else None), True
        self.action_close()
        self.tape.roll([])

    def action_again(self) -> None:
        self._begin()

    def action_copy(self) -> None:
        frame = self.tape.current
        if frame is not None:
            self.app.copy_to_clipboard(frame.text)
            self.notify("Message copied", markup=False)

    async def action_save(self) -> None:
        frames = [frame for frame in self._buffer.wanted(self._wanted) if frame.kind != "gap"]
        about = f"{self.row.name if self.row is not None else self.instance_id}-wire"
        try:
            path = await asyncio.to_thread(save, about, ".jsonl", map(exported, frames), time.time())
        except OSError as error:
            self.dashboard.warn("The messages were not exported", str(error))
        else:
            self.notify(f"{len(frames):,} messages exported to {clean(path)}", markup=False)
