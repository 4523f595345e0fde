"""Which lines an instance's four plots have, and what their titles say. Pure: a series in, descriptions out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from attrs import evolve, frozen

from controlplane.wire.units import mebibytes, millis, percent
from tui.board.rows import Row
from tui.board.series import Figures, ceiling, figures, time_ticks

if TYPE_CHECKING:
    from tui.board.series import Point, Series

Colour = Literal["primary", "secondary", "accent", "success", "warning", "error"]
PlotName = Literal["cpu", "memory", "latency", "calls"]
Run = tuple[list[float], list[float]]
Value = Callable[["Point"], "float | None"]
BRAILLE = "braille"
"""plotext's name of its finest marker."""


def per_second(value: float | None) -> str:
    """Return a rate with the digits that matter; `-` for none."""
    if value is None:
        return "-"
    return f"{value:.0f}/s" if value >= 100 or value == 0 else f"{value:.1f}/s" if value >= 1 else f"{value:.2f}/s"


@frozen
class Look:
    """How a line is named and drawn; no two of one plot differ in colour alone."""

    name: str = ""
    sign: str = ""
    colour: Colour = "primary"
    marker: str = BRAILLE


PLAIN, P95, P50 = Look(), Look("p95", "⠶"), Look("p50", "•", "secondary", "•")
ALL, FAILED = Look("all", "⠶"), Look("failed", "×", "error", "×")


@frozen
class Line:
    """One line: stretches without a gap, and what they come to."""

    look: Look
    runs: Sequence[Run]
    figures: Figures


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
    series: Series,
    marks: Sequence[float],
    limits: Mapping[str, object],
    now: float,
    *,
    row: Row | None = None,
    zoomed: bool = False,
) -> dict[PlotName, Picture]:
    """Make the four plots of a series.

    Args:
        series: The figures.
        marks: When processes began.
        limits: As in an instance's document.
        now: The right edge.
        row: The instance, for what is so now: the last step may have only begun. None: it is not there any more.
        zoomed: Whether the values have the whole height, with the limit out of sight where it is far above them.
    """

    def line(value: Value, latest: float | None, look: Look, drawn: Value | None = None) -> Line:
        summed = evolve(figures([value(point) for point in series.points]), now=latest)
        return Line(look, series.runs(drawn or value), summed)

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

    def calls(point: Point) -> float:
        return series.per_second(point.calls, point.at, now)

    def errors(point: Point) -> float:
        return series.per_second(point.errors, point.at, now)

    there = row if row is not None and row.pid is not None else Row(id="")
    lines: dict[PlotName, tuple[Line, ...]] = {
        "cpu": (line(lambda p: p.cpu, there.cpu, PLAIN),),
        "memory": (line(lambda p: p.memory, there.memory, PLAIN),),
        "latency": (line(lambda p: p.p95, there.p95, P95), line(lambda p: p.p50, there.p50, P50)),
        "calls": (
            line(calls, there.rate if there.pid is not None else None, ALL),
            line(errors, None, FAILED, drawn=lambda p: errors(p) or None),
        ),
    }
    return {
        "cpu": picture("CPU", lines["cpu"], percent, limits.get("cpu_percent")),
        "memory": picture("Memory", lines["memory"], mebibytes, limits.get("memory_mb")),
        "latency": picture("Latency", lines["latency"], millis, None),
        "calls": picture("Calls", lines["calls"], per_second, None),
    }


def told(picture: Picture, line: Line) -> str:
    """What a title says of one line: now, most, mean."""
    shown, numbers = picture.shown, line.figures
    now = f"now {shown(numbers.now)}  " if line.look is not FAILED else ""
    return f"{now}max {shown(numbers.most)}  avg {shown(numbers.mean)}"
