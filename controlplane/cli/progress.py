"""Progress of work that the server does: the phases of a deploy or a start, and what build tools print, live.

A deploy's own answer tells of it (`told`). For a start, stop or restart the request waits on the main thread, and a
second thread follows `GET /events` only to show what happens: when that stream fails, the command goes on without a
picture. Owns no decision: what came out is `outcome.py`'s.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from attrs import define, field
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from controlplane.cli.exits import CommandFailed
from controlplane.wire.text import clean, clean_lines
from controlplane.wire.units import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from controlplane.cli.client import Api
    from controlplane.cli.screen import Screen
    from controlplane.cli.session import Session

LISTEN_WITHIN_S = 2.0
"""The request is sent after this at the latest, whether the event stream is open or not."""
SETTLED = ("running", "stopped", "failed")
WORTH_SHOWING_S = 0.1
"""A phase that was over sooner leaves no line behind."""
FRAMES_PER_S = 8
PHASE_CHARS = 60
"""Of a phase's words, in a line that also holds its time."""


def folded(name: str) -> str:
    """Return an instance name as the server keeps it: lower case, `_` and `.` become `-`."""
    return name.lower().replace("_", "-").replace(".", "-")


@define
class Phases:
    """The phases of one instance, shown as they come; `done` ends the showing for good."""

    screen: Screen
    name: str
    instance_id: str | None = None
    _phase: str = field(default="", init=False)
    _since: float = field(factory=time.monotonic, init=False)
    _spinner: Spinner = field(factory=lambda: Spinner("dots"), init=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)
    done: bool = field(default=False, init=False)

    def hear(self, event: dict[str, Any]) -> None:
        """Show one event of a deploy's own answer: all of them are about our instance."""
        with self._lock:
            if self.done:
                return
            if event.get("type") == "status":
                self._move(event)
            elif event.get("type") == "log" and event.get("stream") == "build":
                self._print(event.get("message"))

    def _print(self, line: object) -> None:
        for text in clean_lines(line or ""):
            if self.screen.err.is_terminal:
                self.screen.note(("│ ", "dim"), (text, "dim"), indent=2)
            else:
                self.screen.note(f"{self.name}: build: {text}")

    def take(self, event: dict[str, Any]) -> None:
        """Show one event of the fleet's stream, if it is about our instance."""
        if event.get("name") != self.name or event.get("type") not in ("deployed", "status"):
            return
        if self.instance_id is None and event["type"] == "deployed":
            self.instance_id = str(event.get("instance_id"))
        if self.instance_id not in (None, event.get("instance_id")):
            return
        with self._lock:
            if not self.done:
                self._move(event)

    def _move(self, event: dict[str, Any]) -> None:
        status, phase = event.get("status"), clean(event.get("phase") or "")[:PHASE_CHARS]
        candidate = event.get("candidate")
        if isinstance(candidate, dict):
            status, phase = "candidate", clean(candidate.get("phase") or "")[:PHASE_CHARS]
        if status in SETTLED:
            self._leave(failed=status == "failed")
            self._phase = ""
        elif phase and phase != self._phase:
            self._leave(failed=False)
            self._phase, self._since = phase, time.monotonic()
            if not self.screen.err.is_terminal:
                self.screen.note(f"{self.name}: {phase}")

    def _leave(self, *, failed: bool) -> None:
        """Put the phase that ended, with its time, above the moving line."""
        took_s = time.monotonic() - self._since
        if self._phase and self.screen.err.is_terminal and (failed or took_s >= WORTH_SHOWING_S):
            sign = ("✗ ", "red") if failed else ("✓ ", "green")
            self.screen.note(sign, self._phase, (f"  {duration(took_s)}", "dim"), indent=2)

    def end(self) -> None:
        """Show nothing more: the moving line must not be redrawn while it is taken away."""
        with self._lock:
            self.done = True

    def moving_line(self) -> Text:
        """Return the line that a terminal shows for the phase under way."""
        frame = self._spinner.render(time.monotonic())
        line = Text("  ") + (frame if isinstance(frame, Text) else Text("…"))
        return line.append(f" {self._phase or 'waiting'}").append(
            f"  {duration(time.monotonic() - self._since)}", "dim"
        )


def _follow(api: Api, phases: Phases, listening: threading.Event) -> None:
    try:
        for event in api.stream("/events"):
            listening.set()
            document = json.loads(event.data)
            if isinstance(document, dict):
                phases.take(document)
            if phases.done:
                return
    except (CommandFailed, ValueError):
        pass  # no picture, then
    finally:
        listening.set()
        api.close()


@contextmanager
def phases_shown(session: Session, name: str, instance_id: str | None = None) -> Iterator[None]:
    """Show the phases of one instance while the body waits for the server; nothing under `--json`.

    Args:
        session: The running command's.
        name: The instance's own name, without its owner.
        instance_id: Its id, where it exists already: another owner's namesake is told apart by it.
    """
    if session.json:
        yield
        return
    phases = Phases(session.screen, folded(name), instance_id)
    listening = threading.Event()
    threading.Thread(target=_follow, args=(session.new_api(), phases, listening), daemon=True).start()
    listening.wait(LISTEN_WITHIN_S)
    with _live(phases):
        try:
            yield
        finally:
            phases.end()


@contextmanager
def told(session: Session, name: str) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Show the events that the body hands over while it waits for the server."""
    phases = Phases(session.screen, folded(name))
    with _live(phases):
        try:
            yield phases.hear
        finally:
            phases.end()


def _live(phases: Phases) -> AbstractContextManager[object]:
    console = phases.screen.err
    if not console.is_terminal:
        return nullcontext()
    return Live(console=console, get_renderable=phases.moving_line, transient=True, refresh_per_second=FRAMES_PER_S)
