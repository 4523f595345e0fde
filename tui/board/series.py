"""An instance's figures over a time: kept samples and live ones in steps of one length, with gaps where none were. Pure.

Times are seconds since the epoch, CPU is per cent of one core, memory MiB, latency milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from attrs import define, evolve, field, frozen

from tui.board.reading import number, seconds_of, whole

GAP_STEPS = 3.5
"""So many steps without a sample are a gap: nothing ran. Less may be a sample that came late."""
SHORTEST_S = 1.0
"""Of a step that has only begun: samples come no more often."""
TICKS = 5
ROUND = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
"""What the top of an axis may be, times a power of ten."""


@frozen
class Window:
    """How far back the plots look, and in what steps: 120 to 180 of them, about what a terminal can show."""

    name: str
    seconds: float
    step: float


WINDOWS = (
    Window("1m", 60, 1),
    Window("5m", 300, 2),
    Window("15m", 900, 6),
    Window("1h", 3_600, 24),
    Window("6h", 21_600, 144),
    Window("1d", 86_400, 576),
)


@frozen(kw_only=True)
class Point:
    """The samples of one step: CPU is their mean, memory and latency the largest, calls and errors the sum."""

    at: float
    cpu: float
    memory: float
    calls: int = 0
    errors: int = 0
    p50: float | None = None
    p95: float | None = None
    samples: int = 1


@define
class Series:
    """The points of one window, oldest first."""

    window: Window
    points: list[Point] = field(factory=list)

    def take_history(self, documents: Iterable[Mapping[str, Any]]) -> None:
        """Take the answer of `GET …/metrics`; what came live since its last step stays."""
        found = [point for document in documents if (point := point_of(document)) is not None]
        newest = found[-1].at if found else float("-inf")
        self.points = found + [point for point in self.points if point.at > newest]

    def take(self, point: Point) -> None:
        """Take a live sample: into the last step, or as the first of the next."""
        at = math.floor(point.at / self.window.step) * self.window.step
        last = self.points[-1] if self.points else None
        if last is not None and at <= last.at:
            self.points[-1] = _folded(last, point)
        else:
            self.points.append(evolve(point, at=at))

    def trim(self, now: float) -> None:
        """Let go of what the window does not show any more."""
        oldest = now - self.window.seconds - self.window.step
        while self.points and self.points[0].at < oldest:
            del self.points[0]

    def runs(self, value: Callable[[Point], float | None]) -> list[tuple[list[float], list[float]]]:
        """Times and values of each stretch without a gap; a value that is None makes a gap as well."""
        found: list[tuple[list[float], list[float]]] = []
        before: float | None = None
        for point in self.points:
            number = value(point)
            if number is None:
                before = None
                continue
            if before is None or point.at - before > self._gap():
                found.append(([], []))
            found[-1][0].append(point.at)
            found[-1][1].append(number)
            before = point.at
        return found

    def per_second(self, amount: int, at: float, now: float) -> float:
        """What so many in the step that began `at` come to in a second; the newest step has only begun."""
        return amount / min(self._usual(), max(SHORTEST_S, now - at))

    def _gap(self) -> float:
        """Seconds between two points from which nothing is taken to have run."""
        return GAP_STEPS * self._usual()

    def _usual(self) -> float:
        """Seconds from one point to the next: a step, or more where samples are rarer than steps."""
        distances = sorted(b.at - a.at for a, b in zip(self.points, self.points[1:], strict=False))
        return max(distances[len(distances) // 2] if distances else 0.0, self.window.step)


def point_of(document: Mapping[str, Any]) -> Point | None:
    """Read a `MetricOut`; None for what has no time."""
    at = seconds_of(document.get("timestamp"))
    if at is None:
        return None
    return Point(
        at=at,
        cpu=number(document.get("cpu_usage")) or 0.0,
        memory=number(document.get("memory_usage")) or 0.0,
        calls=whole(document.get("calls")) or 0,
        errors=whole(document.get("errors")) or 0,
        p50=number(document.get("p50_ms")),
        p95=number(document.get("p95_ms")),
    )


def _folded(last: Point, point: Point) -> Point:
    count = last.samples + point.samples
    return evolve(
        last,
        cpu=(last.cpu * last.samples + point.cpu * point.samples) / count,
        memory=max(last.memory, point.memory),
        calls=last.calls + point.calls,
        errors=last.errors + point.errors,
        p50=_larger(last.p50, point.p50),
        p95=_larger(last.p95, point.p95),
        samples=count,
    )


def _larger(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else max(one, other)


@frozen
class Figures:
    """Of one line: its newest value, its largest, and the mean of all; None where there is none."""

    now: float | None = None
    most: float | None = None
    mean: float | None = None


def figures(values: Sequence[float | None]) -> Figures:
    """Sum a line up. `now` is None when its newest point has no value."""
    there = [value for value in values if value is not None]
    if not there:
        return Figures()
    return Figures(values[-1], max(there), sum(there) / len(there))


def ceiling(largest: float) -> float:
    """The top of an axis: a round number a little above the largest value."""
    if largest <= 0:
        return 1.0
    wanted = largest * 1.05
    power = 10.0 ** math.floor(math.log10(wanted))
    return next(power * factor for factor in ROUND if power * factor >= wanted)


def time_ticks(start: float, end: float, count: int = TICKS) -> tuple[list[float], list[str]]:
    """Places on the time axis and their local times, seconds only where the window is short."""
    form = "%H:%M:%S" if end - start <= 300 else "%H:%M"
    places = [start + (end - start) * n / (count - 1) for n in range(count)]
    return places, [datetime.fromtimestamp(place).astimezone().strftime(form) for place in places]
