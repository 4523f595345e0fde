"""Growth without end, told from noise, warm-up and garbage collection: tables of made-up hours."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.leak import STRETCH_S, STRETCHES, Leak, Trend

LIMIT_MB = 1000.0
HOUR_S = 3600
NOISE = Random(5)


def trends(memory: Callable[[int], float], seconds: int = HOUR_S) -> list[Trend]:
    leak = Leak()
    looked = [leak.look(memory(at), LIMIT_MB, float(at)) for at in range(seconds)]
    return [trend for trend in looked if trend is not None]


@pytest.mark.parametrize(
    ("name", "memory"),
    [
        ("steady", lambda _at: 900.0),
        ("noise", lambda _at: 500 + NOISE.gauss(0, 60)),
        ("a cache that fills up", lambda at: 900 - 600 * math.exp(-at / 120)),
        ("garbage collection", lambda at: 300 + at % 400),
        ("falling", lambda at: 900 - at / 10),
        ("one jump", lambda at: 200 if at < 1800 else 900),
        ("growth that matters to nobody", lambda at: 100 + at / 400),
        ("growth that takes a day", lambda at: 100 + at * 900 / 86_400),
        ("day and night", lambda at: 500 + 300 * math.sin(at / 13_750)),
    ],
)
def test_this_is_no_leak(name: str, memory: Callable[[int], float]) -> None:
    assert trends(memory) == [], name


@pytest.mark.parametrize(
    ("name", "memory"),
    [
        ("steady growth", lambda at: 200 + at / 5),
        ("with noise", lambda at: 200 + at / 5 + NOISE.uniform(-30, 30)),
        ("below garbage collection", lambda at: 200 + at / 5 + at % 45),
        ("in steps", lambda at: 200 + at // 50 * 10),
        ("near the limit", lambda at: 850 + at / 10),
    ],
)
def test_this_is_a_leak(name: str, memory: Callable[[int], float]) -> None:
    assert trends(memory), name


def test_it_takes_ten_minutes_to_say_so_and_says_when_the_limit_is_reached() -> None:
    leak = Leak()
    at = next(at for at in range(HOUR_S) if leak.look(200 + at / 2, LIMIT_MB, float(at)) is not None)
    trend = leak.look(200 + at / 2, LIMIT_MB, float(at))
    assert at == STRETCH_S * STRETCHES
    assert trend is not None
    assert trend.mb_per_s == pytest.approx(1 / 2)
    assert trend.left_s == pytest.approx(1000, abs=1)
    said = "grows by 30.0 MiB a minute for 10 min: it uses 500 of 1000 MiB of memory, and all of it in 17 min"
    assert trend.told(500, LIMIT_MB) == said


@given(st.lists(st.floats(0, 1000), min_size=20, max_size=40))
def test_whatever_it_is_told_it_counts_the_time_that_is_left_from_now(values: list[float]) -> None:
    leak = Leak(stretch_s=1.0)
    for at, value in enumerate(values):
        trend = leak.look(value, LIMIT_MB, float(at))
        assert trend is None or (trend.mb_per_s > 0 and 0 <= trend.left_s <= 1800)
