"""Which lines an instance's four plots have, and what their titles say. Pure: a series in, descriptions out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from attrs import frozen

from controlplane.wire.units import mebibytes, millis, percent
from tui.board.series import Figures, ceiling, figures, time_ticks

if TYPE_CHECKING:
    from tui.board.series import Point, Series

Colour = Literal["primary", "secondary", "accent", "success", "warning", "error"]
PlotName = Literal["cpu", "memory", "latency", "calls"]
Run = tuple[list[float], list[float]]
BRAILLE, DOT, CROSS = "braille", "•", "×"
"""Markers: two lines of one plot differ in more than their colour."""


def per_second(value: float | None) -> str:
    """Return a rate with the digits that matter; `-` for none."""
    if value is None:
        return "-"
    return f"{value:.0f}/s" if value >= 100 or value == 0 else f"{value:.1f}/s" if value >= 1 else f"{value:.2f}/s"


@frozen
class Line:
    """One line: stretches without a gap, and what they come to."""

    name: str
    sign: str
    runs: Sequence[Run]
    figures: Figures
    colour: Colour
    marker: str = BRAILLE


@frozen(kw_only=True)
class Picture:
    """All that a plot shows. Times are seconds since the epoch; `top` is the largest value of the axis."""

    title: str
    lines: tuple[Line, ...]
    start: float
    end: float
    top: float
    limit: float | None
    marks: Sequence[float]
    ticks: tuple[list[float], list[str]]
    shown: Callable[[float | None], str]

    @property
    def is_empty(self) -> bool:
        return not any(line.runs for line in self.lines)

    @property
    def limit_in_sight(self) -> bool:
        return self.limit is not None and self.limit <= self.top


def pictures(
    series: Series, marks: Sequence[float], limits: Mapping[str, object], now: float, *, zoomed: bool = False
) -> dict[PlotName, Picture]:
    """Make the four plots of a series.

    Args:
        series: The figures.
        marks: When processes began.
        limits: As in an instance's document.
        now: The right edge.
        zoomed: Whether the values have the whole height, with the limit out of sight where it is far above them.
    """

    def line(name: str, sign: str, value: Callable[[Point], float | None], colour: Colour, marker: str) -> Line:
        numbers = [value(point) for point in series.points]
        return Line(name, sign, series.runs(value), figures(numbers), colour, marker)

    def picture(title: str, lines: tuple[Line, ...], shown: Callable[[float | None], str], limit: object) -> Picture:
        bound = float(limit) if isinstance(limit, (int, float)) and limit else None
        most = max((one.figures.most or 0.0 for one in lines), default=0.0)
        start = now - series.window.seconds
        return Picture(
            title=title,
            lines=lines,
            start=start,
            end=now,
            top=ceiling(most if zoomed or bound is None else max(most, bound)),
            limit=bound,
            marks=[mark for mark in marks if start <= mark <= now],
            ticks=time_ticks(start, now),
            shown=shown,
        )

    rate = series.per_second
    return {
        "cpu": picture("CPU", (line("", "", lambda p: p.cpu, "primary", BRAILLE),), percent, limits.get("cpu_percent")),
        "memory": picture(
            "Memory", (line("", "", lambda p: p.memory, "primary", BRAILLE),), mebibytes, limits.get("memory_mb")
        ),
        "latency": picture(
            "Latency",
            (
                line("p95", "⠶", lambda p: p.p95, "primary", BRAILLE),
                line("p50", DOT, lambda p: p.p50, "secondary", DOT),
            ),
            millis,
            None,
        ),
        "calls": picture(
            "Calls",
            (
                line("all", "⠶", lambda p: rate(p.calls), "primary", BRAILLE),
                line("failed", CROSS, lambda p: rate(p.errors) or None, "error", CROSS),
            ),
            per_second,
            None,
        ),
    }


def told(picture: Picture, line: Line) -> str:
    """What a title says of one line: now, most, mean."""
    shown, numbers = picture.shown, line.figures
    return f"now {shown(numbers.now)}  max {shown(numbers.most)}  avg {shown(numbers.mean)}"
