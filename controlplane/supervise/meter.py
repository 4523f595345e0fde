"""Counts of one instance's calls, and its resource peaks. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from attrs import define, field

from controlplane.core.latency import Histogram

CALL_EVENTS_PER_SAMPLE = 50
"""`call` events beyond this many between two samples are only counted: a busy instance must not flood the streams."""

READINGS_KEPT = 30
"""For a post-mortem: half a minute at the default interval, some 4 KiB as JSON."""


@define(eq=False)
class Meter:
    """Totals since the instance was adopted, and what came since the last sample."""

    calls: int = 0
    errors: int = 0
    latency: Histogram = field(factory=Histogram)
    peak_memory_mb: float = 0.0
    peak_processes: int = 0
    _trail: deque[tuple[float, Callable[[], Mapping[str, float]]]] = field(
        factory=lambda: deque(maxlen=READINGS_KEPT), init=False
    )
    _since: Histogram = field(factory=Histogram, init=False)
    _errors_since: int = field(default=0, init=False)
    _event_budget: int = field(default=CALL_EVENTS_PER_SAMPLE, init=False)

    def count(self, seconds: float, *, failed: bool) -> bool:
        """Fold one call in; True when it may have an event of its own."""
        self.calls += 1
        self.latency.add(seconds)
        self._since.add(seconds)
        if failed:
            self.errors += 1
            self._errors_since += 1
        self._event_budget -= 1
        return self._event_budget >= 0

    def peak(self, memory_mb: float, processes: int) -> None:
        """Keep the highest values of this process."""
        self.peak_memory_mb = max(self.peak_memory_mb, memory_mb)
        self.peak_processes = max(self.peak_processes, processes)

    def remember(self, at: float, figures: Callable[[], Mapping[str, float]]) -> None:
        """Keep what was read of this process at `at`, Trio time: its post-mortem shows the last of it, and asks then."""
        self._trail.append((at, figures))

    def trail(self, now: float) -> tuple[Mapping[str, float], ...]:
        """The last readings, oldest first, each with `ago_s`."""
        return tuple({"ago_s": round(now - at, 1), **figures()} for at, figures in self._trail)

    def forget_peaks(self) -> None:
        """A new process starts."""
        self.peak_memory_mb, self.peak_processes = 0.0, 0
        self._trail.clear()

    def interval(self) -> tuple[int, int, float | None, float | None]:
        """Calls, errors, p50 and p95 in milliseconds since the last time, and begin anew."""
        since, errors = self._since, self._errors_since
        if since.count:
            self._since = Histogram()
        self._errors_since = 0
        self._event_budget = CALL_EVENTS_PER_SAMPLE
        if not since.count:
            return 0, errors, None, None
        return since.count, errors, _ms(since.quantile(0.5)), _ms(since.quantile(0.95))


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
