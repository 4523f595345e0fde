"""How far a deploy has come: its phases with their times, what its build printed, and how it ended. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Literal

from attrs import define, evolve, field, frozen

from controlplane.wire.text import clean, clean_lines
from tui.board.reading import seconds_of

KEPT_LINES = 5_000
"""Of a build's output; all of it is in the instance's log."""
KEPT_PHASES = 200
SETTLED = frozenset({"running", "stopped", "failed"})

State = Literal["sending", "going", "running", "waiting", "failed", "lost"]


@frozen
class Phase:
    """One step. `ended` is None while it is under way."""

    name: str
    began: float
    ended: float | None = None
    failed: bool = False


@define
class Course:
    """One deploy or redeploy, from what its event stream tells. Times are seconds since the epoch."""

    name: str
    began: float
    what: str = "deploy"
    state: State = "sending"
    instance_id: str = ""
    phases: deque[Phase] = field(factory=lambda: deque(maxlen=KEPT_PHASES))
    output: deque[str] = field(factory=lambda: deque(maxlen=KEPT_LINES))
    printed: int = 0
    """Lines so far, those that are not kept any more included."""
    ended: float | None = None
    instance: Mapping[str, Any] = field(factory=dict, repr=False)

    @property
    def is_over(self) -> bool:
        return self.ended is not None

    def took(self, now: float) -> float:
        """Seconds from the beginning to its end, or until now."""
        return max(0.0, (self.ended if self.ended is not None else now) - self.began)

    def take(self, event: Mapping[str, Any], now: float) -> None:
        """Take one event of the stream, but for the last."""
        self.state = "going" if self.state == "sending" else self.state
        self.instance_id = clean(event.get("instance_id") or "") or self.instance_id
        at = seconds_of(event.get("timestamp")) or now
        if event.get("type") == "status":
            self._move(event, at)
        elif event.get("type") == "log" and event.get("stream") == "build":
            for line in clean_lines(event.get("message") or ""):
                self.output.append(line)
                self.printed += 1

    def finish(self, status: int, instance: Mapping[str, Any], now: float) -> None:
        """It was answered: 202 means that it goes on without us."""
        self.instance_id = clean(instance.get("instance_id") or "") or self.instance_id
        self.name = clean(instance.get("name") or self.name)
        under_way = status == 202 or instance.get("candidate") is not None
        self.state = "waiting" if under_way else "running"
        self.instance = instance
        self._end(now, failed=False)

    def fail(self, now: float, *, lost: bool = False) -> None:
        """It was refused or failed; `lost`: the connection broke, and it goes on there."""
        self.state = "lost" if lost else "failed"
        self._end(now, failed=not lost)

    def _end(self, now: float, *, failed: bool) -> None:
        self._close(now, failed=failed)
        self.ended = now

    def _move(self, event: Mapping[str, Any], at: float) -> None:
        candidate = event.get("candidate")
        source = candidate if isinstance(candidate, Mapping) else event
        status = "" if source is candidate else clean(event.get("status") or "")
        name = clean(source.get("phase") or "")
        if status in SETTLED:
            self._close(at, failed=status == "failed")
        elif name and (not self.phases or self.phases[-1].ended is not None or name != self.phases[-1].name):
            self._close(at, failed=False)
            self.phases.append(Phase(name, at))

    def _close(self, at: float, *, failed: bool) -> None:
        if self.phases and self.phases[-1].ended is None:
            self.phases[-1] = evolve(self.phases[-1], ended=max(at, self.phases[-1].began), failed=failed)
        elif self.phases and failed:
            self.phases[-1] = evolve(self.phases[-1], failed=True)
