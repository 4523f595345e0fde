"""What an instance uses, over time, and what is found in it: tables, and series that nobody thought of."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core import watchdog as rules
from controlplane.core.watchdog import GAP_S, Finding, Limits, Reading, Watchdog

LIMITS = Limits(memory_mb=1000, cpu_percent=100, processes=100, open_files=100, disk_mb=1000, log_kb_s=100)
HELD = evolve(LIMITS, holds_memory=True)


def found(series: list[dict[str, Any]], limits: Limits = LIMITS) -> list[Finding]:
    """What a reading each second leads to."""
    watchdog = Watchdog(limits)
    return [one for at, reading in enumerate(series) for one in watchdog.look(Reading(at=float(at), **reading))]


def told(name: str, values: list[float], limits: Limits = LIMITS) -> list[str]:
    return [f"{one.what} {one.step}" for one in found([{name: value} for value in values], limits)]


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("memory_mb", [100.0, 500, 890] * 20, []),
        ("memory_mb", [950.0] * 3, []),
        ("memory_mb", [950.0] * 4, ["memory warn"]),
        ("memory_mb", [950.0] * 60, ["memory warn"]),
        ("memory_mb", [950.0] * 4 + [700] * 5, ["memory warn", "memory calm"]),
        ("memory_mb", [950.0] * 4 + [850] * 60, ["memory warn"]),
        ("memory_mb", [950.0] * 4 + [1010] * 4, ["memory warn", "memory restart"]),
        ("memory_mb", [1010.0] * 60, ["memory restart"]),
        ("memory_mb", [100.0, 1300], ["memory kill"]),
        ("memory_mb", [100.0, 1300, 2000, 3000], ["memory kill"]),
        ("memory_mb", [1010.0] * 4 + [1300], ["memory restart", "memory kill"]),
        ("cpu_percent", [100.0] * 30, []),
        ("cpu_percent", [100.0] * 31, ["cpu warn"]),
        ("cpu_percent", [800.0] * 500, ["cpu warn"]),
        ("cpu_percent", [100.0] * 31 + [10] * 10, ["cpu warn", "cpu calm"]),
        ("cpu_percent", [100.0, 100, 10] * 100, []),
        ("processes", [91] * 4, ["processes warn"]),
        ("processes", [99] * 11, ["processes warn", "processes restart"]),
        ("processes", [150], ["processes kill"]),
        ("open_files", [90], ["open_files warn"]),
        ("open_files", [98] * 11, ["open_files warn", "open_files restart"]),
        ("open_files", [90, 10], ["open_files warn", "open_files calm"]),
        ("disk_mb", [950.0], ["disk warn"]),
        ("disk_mb", [1001.0] * 6, ["disk warn", "disk restart"]),
        ("disk_mb", [5000.0], ["disk kill"]),
        ("log_kb_s", [100.0] * 6, ["log_flood warn"]),
        ("log_kb_s", [1e6] * 100, ["log_flood warn"]),
        ("log_kb_s", [100.0] * 6 + [0.0] * 10, ["log_flood warn", "log_flood calm"]),
    ],
)
def test_each_figure_is_told_of_restarted_for_and_ended_for_when_it_lasts(
    name: str, values: list[float], expected: list[str]
) -> None:
    assert told(name, values) == expected


def test_where_the_kernel_holds_memory_the_watchdog_only_tells() -> None:
    assert told("memory_mb", [950.0] * 9 + [1400.0] * 60, HELD) == ["memory warn"]


def test_what_the_kernel_ended_at_the_limit_is_told_once_each_time() -> None:
    series = [{"oom_kills": kills} for kills in (3, 3, 4, 4, 6)]
    assert [one.reason for one in found(series, HELD)] == [
        "lost 1 process to the kernel, at its limit of 1000 MiB of memory",
        "lost 2 processes to the kernel, at its limit of 1000 MiB of memory",
    ]


def test_many_short_lines_are_a_flood_too() -> None:
    series = [{"log_kb_s": 3.0, "dropped_lines": 400}] * 6
    assert [one.what for one in found(series)] == ["log_flood"]


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("memory_mb", [1012.4] * 4, "uses 1012 of 1000 MiB of memory for 3 s"),
        ("memory_mb", [3000.0], "uses 3000 of 1000 MiB of memory"),
        ("cpu_percent", [101.0] * 31, "uses 101 of 100 % CPU for 30 s"),
        ("processes", [200], "has 200 of 100 processes and threads"),
        ("open_files", [99], "has 99 of 100 files open in one process"),
        ("disk_mb", [1001.0], "uses 1001 of 1000 MiB of disk"),
        ("log_kb_s", [102400.0] * 6, "prints 102400 KiB/s for 5 s, of which 100 are kept"),
        ("memory_mb", [950.0] * 4 + [300.0] * 5, "uses 300 of 1000 MiB of memory again"),
    ],
)
def test_a_finding_says_the_numbers(name: str, values: list[float], reason: str) -> None:
    last = found([{name: value} for value in values])[-1]
    assert last.reason == reason
    assert (last.value, last.unit != "") == (values[-1], True)


def test_the_gravest_comes_first() -> None:
    series = [{"open_files": 95, "memory_mb": 5000.0}]
    assert [one.step for one in found(series)] == ["kill", "warn"]


def test_time_that_nobody_looked_counts_for_little() -> None:
    watchdog = Watchdog(LIMITS)
    assert watchdog.look(Reading(at=0.0, cpu_percent=100.0)) == []
    assert watchdog.look(Reading(at=3600.0, cpu_percent=100.0)) == []
    assert GAP_S < 30


def test_what_was_not_read_says_nothing() -> None:
    assert found([{}] * 100) == []


def test_a_limit_that_is_raised_holds_from_then_on() -> None:
    watchdog = Watchdog(LIMITS)
    watchdog.limits = evolve(LIMITS, memory_mb=4000)
    assert watchdog.look(Reading(at=0.0, memory_mb=3000.0)) == []


FIGURES = ("memory_mb", "processes", "open_files", "disk_mb")


@given(
    st.sampled_from(FIGURES),
    st.lists(st.floats(0, 3), max_size=60),
    st.lists(st.floats(1, 3), min_size=15, max_size=40),
)
def test_nothing_stays_over_its_limit_in_silence(name: str, before: list[float], over: list[float]) -> None:
    limit = getattr(LIMITS, name)
    watchdog, steps = Watchdog(LIMITS), []
    for at, share in enumerate([*before, *over]):
        steps += [one.step for one in watchdog.look(Reading(at=float(at), **{name: share * limit}))]
    assert {"restart", "kill"} & set(steps)


@given(st.lists(st.floats(0.86, 0.94), min_size=50, max_size=300))
def test_a_figure_that_trembles_around_a_threshold_is_told_of_once(shares: list[float]) -> None:
    for name in FIGURES:
        limit = getattr(LIMITS, name)
        assert told(name, [share * limit for share in shares]) in ([], [f"{name.removesuffix('_mb')} warn"])


@given(st.lists(st.floats(0, 5), max_size=200))
def test_warnings_and_calm_take_turns_and_each_step_is_told_once(shares: list[float]) -> None:
    for name in (*FIGURES, "cpu_percent", "log_kb_s"):
        limit = getattr(LIMITS, name)
        steps = [one.step for one in found([{name: share * limit} for share in shares])]
        assert steps.count("restart") <= 1
        assert steps.count("kill") <= 1
        turns = [step for step in steps if step in ("warn", "calm")]
        assert all(one != other for one, other in pairwise(turns))
        assert not turns or turns[0] == "warn"


@given(st.lists(st.floats(0, 1e6), max_size=100))
def test_no_server_is_restarted_or_ended_for_cpu_time_or_printing_alone(values: list[float]) -> None:
    steps = {one.step for one in found([{"cpu_percent": value, "log_kb_s": value} for value in values])}
    assert steps <= {"warn", "calm"}


def test_what_leaks_is_told_of_and_restarted_before_its_limit() -> None:
    series = [{"memory_mb": 300 + minute * 20 + second % 7} for minute in range(30) for second in range(60)]
    steps = [(one.what, one.step, one.reason) for one in found(series, HELD)]
    assert [(what, step) for what, step, _ in steps] == [("memory_leak", "warn"), ("memory_leak", "restart")]
    assert steps[0][2].startswith("grows by 20.0 MiB a minute for 10 min: it uses 5")
    assert steps[1][2].startswith("grows by 20.0 MiB a minute")


def test_a_leak_that_stops_is_well_again() -> None:
    grows = [{"memory_mb": 300 + minute * 20} for minute in range(12) for _ in range(60)]
    steps = [one.step for one in found([*grows, *[{"memory_mb": 520}] * 1200], HELD)]
    assert steps == ["warn", "calm"]


def test_a_disk_that_cannot_be_counted_is_over_its_limit_and_says_why() -> None:
    dog = Watchdog(LIMITS)
    assert dog.look(Reading(at=0.0, disk_mb=10.0)) == []
    (found,) = dog.look(Reading(at=1.0, disk_mb=20.0, disk_beyond="has more than it should"))
    assert (found.what, found.step, found.value, found.reason) == ("disk", "kill", 20.0, "has more than it should")
    assert found.code == "disk_limit"
    assert dog.look(Reading(at=2.0, disk_beyond="has more than it should")) == [], "what was not read is not judged"


SHARES = st.one_of(st.none(), st.floats(0, 0.6), st.floats(0.4, 1.6), st.sampled_from([0.0, 0.5, 0.8, 0.9, 0.95, 1.0]))
READINGS = st.lists(
    st.tuples(
        st.fixed_dictionaries(dict.fromkeys((*FIGURES, "cpu_percent", "log_kb_s"), SHARES)),
        st.fixed_dictionaries(
            {
                "dropped_lines": st.sampled_from([0, 0, 0, 5]),
                "disk_beyond": st.sampled_from([None, None, None, "has more than it should"]),
                "oom_kills": st.sampled_from([None, 0, 1]),
            }
        ),
        st.sampled_from([1.0, 2.5, 30.0]),
        st.integers(1, 12),
    ),
    max_size=15,
)


@given(READINGS, st.sampled_from([LIMITS, HELD, evolve(LIMITS, disk_mb=0, log_kb_s=0)]))
def test_a_look_at_little_finds_what_a_look_at_everything_finds(
    readings: list[tuple[dict[str, float | None], dict[str, Any], float, int]], limits: Limits
) -> None:
    quick, thorough, at = Watchdog(limits), Watchdog(limits), 0.0
    for shares, others, step_s, times in readings:
        figures = {name: None if share is None else share * getattr(limits, name) for name, share in shares.items()}
        for _ in range(times):
            at += step_s
            reading: Any = Reading(at=at, **figures, **others)  # type: ignore[arg-type]
            expected = quick.look(reading)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(rules, "QUIET", 0.0)
                assert thorough.look(reading) == expected


def test_nothing_is_warned_of_below_what_counts_as_little() -> None:
    every = (rules.MEMORY, rules.HELD_MEMORY, rules.CPU, rules.PROCESSES, rules.OPEN_FILES, rules.DISK, rules.LOG_FLOOD)
    for rule in every:
        assert min(rule.warn, rule.restart or rule.warn, rule.kill or rule.warn) > rules.QUIET
        assert rule.calm <= rule.warn, "or time that counts as calm would have to be counted before a warning"
