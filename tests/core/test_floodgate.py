"""How much output is kept: bursts pass, floods are counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.floodgate import BURST_S, BYTES_PER_S, LINES_PER_S, Floodgate


def test_a_burst_passes_whole_and_what_follows_is_counted() -> None:
    gate = Floodgate()
    burst = int(LINES_PER_S * BURST_S)

    assert all(gate.admits(10, 100.0) for _ in range(burst))
    assert not gate.admits(10, 100.0)
    assert not gate.admits(10, 100.0)
    assert (gate.dropped, gate.dropped_total) == (2, 2)


def test_bytes_are_bounded_as_lines_are() -> None:
    gate = Floodgate()

    assert gate.admits(int(BYTES_PER_S * BURST_S), 100.0)
    assert not gate.admits(1, 100.0)
    assert gate.admits(int(BYTES_PER_S), 101.0)
    assert not gate.admits(2, 101.0)


def test_after_a_flood_lines_pass_again_at_the_rate() -> None:
    gate = Floodgate(lines_per_s=2.0)
    while gate.admits(0, 100.0):
        pass

    assert not gate.admits(0, 100.25)
    assert gate.admits(0, 100.75)
    assert not gate.admits(0, 100.75)


def test_what_was_dropped_is_announced_once() -> None:
    gate = Floodgate(lines_per_s=0.1)
    verdicts = [gate.admits(0, 0.0) for _ in range(4)]

    assert verdicts == [True, False, False, False]
    assert (gate.announce(), gate.announce()) == (3, 0)
    assert gate.dropped_total == 3


def test_a_clock_that_steps_back_gives_nothing_and_breaks_nothing() -> None:
    gate = Floodgate(lines_per_s=0.1)

    assert gate.admits(0, 100.0)
    assert not gate.admits(0, 50.0)
    assert not gate.admits(0, 59.0)
    assert gate.admits(0, 60.1)


@given(st.lists(st.tuples(st.integers(0, 4000), st.floats(0, 3)), max_size=200))
def test_never_more_passes_than_the_burst_and_the_rate_allow(lines: list[tuple[int, float]]) -> None:
    gate = Floodgate(lines_per_s=3.0, bytes_per_s=1000.0)
    now = kept = size = 0.0
    for length, pause in lines:
        now += pause
        if gate.admits(length, now):
            kept += 1
            size += length

    assert kept <= 3.0 * (BURST_S + now) + 1e-6
    assert size <= 1000.0 * (BURST_S + now) + 1e-6
    assert gate.dropped_total == len(lines) - kept


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_a_line_larger_than_a_whole_burst_never_passes(size: int) -> None:
    gate = Floodgate(bytes_per_s=1.0)

    assert gate.admits(size, 0.0) is (size <= BURST_S)
