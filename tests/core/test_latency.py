"""Latency quantiles: close to the truth, whatever the durations are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.latency import BOUNDS_S, BUCKETS, Histogram

DURATIONS = st.lists(st.floats(BOUNDS_S[0], BOUNDS_S[-2]), min_size=1, max_size=60)


def histogram_of(durations: list[float]) -> Histogram:
    histogram = Histogram()
    for seconds in durations:
        histogram.add(seconds)
    return histogram


def test_an_empty_histogram_has_no_quantiles() -> None:
    assert Histogram().quantile(0.5) is None


@given(DURATIONS, st.sampled_from([0.5, 0.9, 0.95, 0.99, 1.0]))
def test_a_quantile_is_within_a_bucket_of_the_true_one(durations: list[float], q: float) -> None:
    ranked = sorted(durations)
    true = ranked[min(len(ranked) - 1, max(0, -int(-q * len(ranked) // 1) - 1))]

    told = histogram_of(durations).quantile(q)

    assert told is not None
    assert true / 1.0001 <= told <= true * 2**0.25 * 1.0001


@given(DURATIONS, DURATIONS)
def test_merging_is_adding_all(one: list[float], other: list[float]) -> None:
    merged = histogram_of(one)
    merged.merge(histogram_of(other))

    assert merged.counts == histogram_of(one + other).counts
    assert merged.count == len(one) + len(other)
    assert merged.total_s == pytest.approx(sum(one + other))


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 64e-6, 86_400.0, 1e9])
def test_durations_beyond_the_ends_are_counted_at_the_ends(seconds: float) -> None:
    histogram = histogram_of([seconds])

    assert histogram.count == 1
    assert sum(histogram.counts) == 1
    assert histogram.counts[0 if seconds < 1 else BUCKETS - 1] == 1


def test_the_buckets_reach_from_microseconds_to_minutes() -> None:
    assert BOUNDS_S[0] == pytest.approx(64e-6)
    assert 600 < BOUNDS_S[-1] < 1200
