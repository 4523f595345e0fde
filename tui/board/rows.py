"""One instance on the board, and how what is said about it changes it. Pure: times come with the events.

Texts are cleaned on their way in, so nothing that a widget finds here can harm a terminal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attrs import define, field, frozen

from controlplane.wire.text import clean

KEPT_SAMPLES = 120
"""Of each series: two minutes at the default interval, as wide as a sparkline gets."""
STILL_S = 5.0
"""A rate that no sample has confirmed for so long is no rate any more."""


def seconds_of(timestamp: object) -> float | None:
    """Return an API timestamp as seconds since the epoch; None for none, or for what is no time."""
    if not isinstance(timestamp, str):
        return None
    try:
        return datetime.fromisoformat(timestamp).timestamp()
    except ValueError:
        return None


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
    source_type: str = ""
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
    calls: int = 0
    errors: int = 0
    rate: float = 0.0
    """Calls per second between the last two samples."""
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
        _take_texts(
            self, document, ("name", "owner", "language", "source_type", "isolation", "status", "phase", "desired")
        )
        _take_numbers(self, document, ("revision", "restarts", "incarnation", "calls", "errors"))
        self.pid = document.get("pid")
        uptime = document.get("uptime_s")
        self.started = None if uptime is None else now - uptime
        self.cpu, self.memory = document.get("cpu_percent"), document.get("memory_mb")
        self.processes = document.get("processes")
        self.p50, self.p95 = document.get("p50_ms"), document.get("p95_ms")
        self.labels = {clean(k): clean(v) for k, v in (document.get("labels") or {}).items()}
        self.candidate = _candidate(document.get("candidate"))
        self.trouble = trouble_of(document.get("last_error"))

    def take_status(self, event: Mapping[str, Any], at: float) -> None:
        """Become what a `status` event says."""
        _take_texts(self, event, ("name", "owner", "status", "phase", "isolation", "language", "desired"))
        _take_numbers(self, event, ("revision", "restarts"))
        self.candidate = _candidate(event.get("candidate"))
        pid, incarnation = event.get("pid"), event.get("incarnation", self.incarnation)
        if pid is None or pid != self.pid or incarnation != self.incarnation:
            self._another_process(pid, event, at)
        self.incarnation = incarnation
        if self.status == "running":
            self.trouble = self.trouble if event.get("reason") else None

    def take_sample(self, event: Mapping[str, Any], at: float) -> None:
        """Take one look at its processes: `calls` and `errors` are since the look before."""
        calls = event.get("calls") or 0
        if self.sampled is not None and at > self.sampled:
            self.rate = calls / (at - self.sampled)
        self.sampled = at
        self.calls += calls
        self.errors += event.get("errors") or 0
        self.cpu, self.memory = event.get("cpu_percent"), event.get("memory_mb")
        self.processes = event.get("processes")
        self.p50, self.p95 = event.get("p50_ms"), event.get("p95_ms")
        series = self.history
        series.cpu.append(self.cpu or 0.0)
        series.memory.append(self.memory or 0.0)
        series.rate.append(self.rate)
        series.p95.append(self.p95 or 0.0)

    def _another_process(self, pid: int | None, event: Mapping[str, Any], at: float) -> None:
        self.pid = pid
        self.started = (seconds_of(event.get("started_at")) or at) if pid is not None else None
        self.cpu = self.memory = self.processes = None
        self.rate = 0.0


def trouble_of(document: object) -> Trouble | None:
    """Read an `EvidenceOut`, or the event of one; None for none."""
    if not isinstance(document, Mapping):
        return None
    return Trouble(
        code=clean(document.get("code") or ""),
        reason=clean(document.get("reason") or ""),
        phase=clean(document.get("phase") or ""),
        at=seconds_of(document.get("at") or document.get("timestamp")),
    )


def _candidate(document: object) -> str:
    if not isinstance(document, Mapping):
        return ""
    return f"{document.get('revision')} {clean(document.get('phase') or '')}".strip()


def _take_texts(row: Row, document: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        if isinstance(value := document.get(name), str):
            setattr(row, name, clean(value))


def _take_numbers(row: Row, document: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        if isinstance(value := document.get(name), int):
            setattr(row, name, value)
