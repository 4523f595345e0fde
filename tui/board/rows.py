"""One instance on the board, and how what is said about it changes it. Pure: times come with the events.

Texts are cleaned on their way in, so nothing that a widget finds here can harm a terminal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from attrs import define, field, frozen

from tui.board.reading import labels_of, number, seconds_of, text, whole

__all__ = ["History", "Row", "Trouble", "frozen_history", "seconds_of", "trouble_of"]

KEPT_SAMPLES = 120
"""Of each series: two minutes at the default interval, as wide as a sparkline gets."""


@frozen(kw_only=True)
class Trouble:
    """What last went wrong with an instance."""

    code: str
    reason: str
    phase: str = ""
    at: float | None = None


@define(eq=False)
class History:
    """The last samples, oldest first, for sparklines."""

    cpu: deque[float] = field(factory=lambda: deque(maxlen=KEPT_SAMPLES))
    memory: deque[float] = field(factory=lambda: deque(maxlen=KEPT_SAMPLES))
    rate: deque[float] = field(factory=lambda: deque(maxlen=KEPT_SAMPLES))
    p95: deque[float] = field(factory=lambda: deque(maxlen=KEPT_SAMPLES))


@define(eq=False, kw_only=True)
class Row:
    """One instance. `started` is when its process began, in seconds since the epoch; None: there is none."""

    id: str
    name: str = ""
    owner: str = ""
    language: str = ""
    isolation: str = ""
    status: str = "pending"
    phase: str = ""
    desired: str = ""
    revision: int = 1
    candidate: str = ""
    restarts: int = 0
    incarnation: int = 0
    pid: int | None = None
    started: float | None = None
    cpu: float | None = None
    memory: float | None = None
    processes: int | None = None
    disk: float | None = None
    calls: int = 0
    errors: int = 0
    rate: float = 0.0
    """Calls per second at the last sample."""
    p50: float | None = None
    p95: float | None = None
    labels: dict[str, str] = field(factory=dict)
    trouble: Trouble | None = None
    sampled: float | None = None
    history: History = field(factory=History)

    def uptime(self, now: float) -> float | None:
        """Seconds since its process began."""
        return None if self.started is None else max(0.0, now - self.started)

    @property
    def error_percent(self) -> float | None:
        """Failed calls among all, per cent; None before the first."""
        return 100 * self.errors / self.calls if self.calls else None

    def take_document(self, document: Mapping[str, Any], now: float) -> None:
        """Become what an `InstanceOut` says. Series and rates stay."""
        self.take_outline(document)
        _take_texts(self, document, ("isolation", "status", "phase", "desired"))
        _take_numbers(self, document, ("restarts", "incarnation", "calls", "errors"))
        self.pid = whole(document.get("pid"))
        uptime = number(document.get("uptime_s"))
        self.started = seconds_of(document.get("started_at")) or (None if uptime is None else now - uptime)
        self.cpu, self.memory = number(document.get("cpu_percent")), number(document.get("memory_mb"))
        self.processes = whole(document.get("processes"))
        self.disk = number(document.get("disk_mb"))
        self.p50, self.p95 = number(document.get("p50_ms")), number(document.get("p95_ms"))
        self.candidate = _candidate(document.get("candidate"))
        self.trouble = trouble_of(document.get("last_error"))

    def take_outline(self, document: Mapping[str, Any]) -> None:
        """Become what a `deployed` or `changed` event says: what it is, not how it is."""
        _take_texts(self, document, ("name", "owner", "language"))
        _take_numbers(self, document, ("revision",))
        if "labels" in document:
            self.labels = labels_of(document["labels"])

    def take_status(self, event: Mapping[str, Any], at: float) -> None:
        """Become what a `status` event says."""
        self.take_outline(event)
        _take_texts(self, event, ("status", "phase", "isolation", "desired"))
        _take_numbers(self, event, ("restarts",))
        self.candidate = _candidate(event.get("candidate"))
        pid, incarnation = whole(event.get("pid")), whole(event.get("incarnation"))
        if pid is None or pid != self.pid or incarnation not in {None, self.incarnation}:
            self._another_process(pid, event, at)
        self.incarnation = self.incarnation if incarnation is None else incarnation
        if self.status == "running":
            self.trouble = self.trouble if event.get("reason") else None

    def take_sample(self, event: Mapping[str, Any], at: float) -> None:
        """Take one look at its processes: `calls` and `errors` are since the look before, or the totals are told."""
        calls, errors = whole(event.get("calls")) or 0, whole(event.get("errors")) or 0
        interval = number(event.get("interval_s")) or (at - self.sampled if self.sampled is not None else 0.0)
        self.rate = calls / interval if interval > 0 else 0.0
        self.sampled = at
        self.calls = _or(whole(event.get("calls_total")), self.calls + calls)
        self.errors = _or(whole(event.get("errors_total")), self.errors + errors)
        self.cpu, self.memory = number(event.get("cpu_percent")), number(event.get("memory_mb"))
        self.processes = whole(event.get("processes"))
        self.disk = number(event.get("disk_mb"))
        p50, p95 = number(event.get("p50_ms")), number(event.get("p95_ms"))
        if p95 is not None:  # without calls there is none: the last one stays
            self.p50, self.p95 = p50, p95
        series = self.history
        series.cpu.append(self.cpu or 0.0)
        series.memory.append(self.memory or 0.0)
        series.rate.append(self.rate)
        series.p95.append(p95 or 0.0)

    def _another_process(self, pid: int | None, event: Mapping[str, Any], at: float) -> None:
        self.pid = pid
        self.started = (seconds_of(event.get("started_at")) or at) if pid is not None else None
        self.cpu = self.memory = self.processes = None
        self.rate = 0.0


def frozen_history(row: Row) -> History:
    """A row's series as they are now."""
    series = row.history
    return History(*(series_of.copy() for series_of in (series.cpu, series.memory, series.rate, series.p95)))


def trouble_of(document: object) -> Trouble | None:
    """Read an `EvidenceOut`, or the event of one; None for none."""
    if not isinstance(document, Mapping):
        return None
    return Trouble(
        code=text(document.get("code")),
        reason=text(document.get("reason")),
        phase=text(document.get("phase")),
        at=seconds_of(document.get("at") or document.get("timestamp")),
    )


def _candidate(document: object) -> str:
    if not isinstance(document, Mapping):
        return ""
    return f"{whole(document.get('revision')) or '?'} {text(document.get('phase'))}".strip()


def _or(value: int | None, other: int) -> int:
    return other if value is None else value


def _take_texts(row: Row, document: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        if isinstance(value := document.get(name), str):
            setattr(row, name, text(value))


def _take_numbers(row: Row, document: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        if (value := whole(document.get(name))) is not None:
            setattr(row, name, value)
