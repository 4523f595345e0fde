"""Figures over a time: steps, gaps, sums, axes, and what the plots say of them."""

from __future__ import annotations

import pytest

from controlplane.wire.units import mebibytes
from tui.board.pictures import per_second, pictures, told
from tui.board.rows import Row
from tui.board.series import WINDOWS, Figures, Point, Series, Window, ceiling, figures, point_of, time_ticks

STEP = Window("test", 100, 10)


def point(at: float, cpu: float = 1.0, memory: float = 1.0, calls: int = 0, p95: float | None = None) -> Point:
    return Point(at=at, cpu=cpu, memory=memory, calls=calls, p95=p95)


def test_every_window_asks_for_no_more_steps_than_a_page_has_rows() -> None:
    assert all(50 <= window.seconds / window.step <= 200 for window in WINDOWS)


def test_live_samples_of_one_step_are_folded_into_one_point() -> None:
    series = Series(STEP)
    series.take(point(101, cpu=10, memory=5, calls=1, p95=3))
    series.take(point(109, cpu=30, memory=4, calls=2, p95=7))
    series.take(point(110, cpu=50))
    assert [(p.at, p.cpu, p.memory, p.calls, p.p95) for p in series.points] == [
        (100, 20, 5, 3, 7),
        (110, 50, 1, 0, None),
    ]


def test_history_replaces_what_it_covers_and_leaves_what_is_newer() -> None:
    series = Series(STEP)
    for at in (100, 110, 120):
        series.take(point(at))
    history = [
        {"timestamp": "1970-01-01T00:01:30Z", "cpu_usage": 9},
        {"timestamp": "1970-01-01T00:01:50Z", "cpu_usage": 8},
    ]
    series.take_history(history)
    assert [(p.at, p.cpu) for p in series.points] == [(90, 9), (110, 8), (120, 1)]


def test_a_time_without_samples_is_a_gap_and_a_late_sample_is_none() -> None:
    series = Series(STEP, [point(at) for at in (0, 10, 30, 40, 90, 100)])
    assert [times for times, _ in series.runs(lambda p: p.cpu)] == [[0, 10, 30, 40], [90, 100]]


def test_samples_that_are_rarer_than_steps_are_no_gaps() -> None:
    series = Series(Window("1m", 60, 1), [point(at, calls=10) for at in range(0, 60, 10)])
    assert len(series.runs(lambda p: p.cpu)) == 1
    assert series.per_second(10, at=40, now=60) == 1.0


def test_a_value_that_is_not_there_makes_a_gap_in_its_own_line_only() -> None:
    series = Series(STEP, [point(0, p95=1), point(10), point(20, p95=2)])
    assert len(series.runs(lambda p: p.p95)) == 2
    assert len(series.runs(lambda p: p.cpu)) == 1


def test_what_is_older_than_the_window_goes() -> None:
    series = Series(STEP, [point(at) for at in range(0, 300, 10)])
    series.trim(300)
    assert series.points[0].at == 190


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], Figures()), ([None], Figures()), ([1, 3, None], Figures(None, 3, 2)), ([4, 2], Figures(2, 4, 3))],
)
def test_a_line_is_summed_up(values: list[float | None], expected: Figures) -> None:
    assert figures(values) == expected


@pytest.mark.parametrize(
    ("largest", "top"), [(0, 1), (-3, 1), (0.03, 0.04), (1, 1.2), (80, 100), (1024, 1200), (97, 120)]
)
def test_the_top_of_an_axis_is_a_round_number_above_the_largest(largest: float, top: float) -> None:
    assert ceiling(largest) == pytest.approx(top)


def test_seconds_stand_on_the_time_axis_of_short_windows_only() -> None:
    assert all(text.count(":") == 2 for text in time_ticks(0, 60)[1])
    assert all(text.count(":") == 1 for text in time_ticks(0, 3600)[1])


def test_a_sample_without_a_time_is_left_out() -> None:
    assert point_of({"cpu_usage": 1}) is None


def test_the_limit_is_a_line_unless_the_values_have_the_whole_height() -> None:
    series = Series(STEP, [point(at, memory=10) for at in (200, 210)])
    limits, row = {"memory_mb": 100, "cpu_percent": None}, Row(id="i", pid=1, memory=11.0)
    whole, zoomed = (pictures(series, [5, 205], limits, 220, row=row, zoomed=zoom) for zoom in (False, True))
    assert (whole["memory"].limit_in_sight, whole["memory"].top) == (True, 120)
    assert (zoomed["memory"].limit_in_sight, zoomed["memory"].top) == (False, 12)
    assert whole["memory"].marks == [205]
    assert not whole["cpu"].limit_in_sight
    assert (
        told(whole["memory"], whole["memory"].lines[0])
        == f"now {mebibytes(11)}  max {mebibytes(10)}  avg {mebibytes(10)}"
    )
    assert whole["latency"].is_empty


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0, "0/s"), (0.03, "0.03/s"), (2.5, "2.5/s"), (1234.5, "1234/s")]
)
def test_a_rate_has_the_digits_that_matter(value: float | None, text: str) -> None:
    assert per_second(value) == text


def test_the_mean_of_failed_calls_counts_the_steps_without_any() -> None:
    series = Series(STEP, [Point(at=at, cpu=0, memory=0, errors=20 if at else 0) for at in (0, 10)])
    failed = pictures(series, [], {}, 20)["calls"].lines[1]
    assert (failed.figures.mean, failed.figures.now) == (1.0, None)
    assert failed.runs == [([10], [2.0])]


def test_a_step_that_has_only_begun_is_not_taken_for_a_quiet_one() -> None:
    series = Series(STEP, [point(at, calls=20) for at in (0, 10)])
    assert [series.per_second(p.calls, p.at, now=14) for p in series.points] == [2.0, 5.0]
    assert series.per_second(3, at=10, now=10) == 3.0
