"""Token buckets, on a clock that the test holds."""

from __future__ import annotations

import pytest

from controlplane.web import rate
from controlplane.web.rate import RateLimiter


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_burst_passes_and_the_next_one_is_told_how_long_to_wait(clock: Clock) -> None:
    limiter = RateLimiter(rate=10, burst=3, clock=clock)

    assert [limiter.take("a") for _ in range(3)] == [0, 0, 0]
    assert limiter.take("a") == pytest.approx(0.1)


def test_one_comes_back_each_interval(clock: Clock) -> None:
    limiter = RateLimiter(rate=10, burst=1, clock=clock)
    limiter.take("a")

    clock.now += 0.1

    assert limiter.take("a") == 0
    assert limiter.take("a") == pytest.approx(0.1)


def test_a_steady_rate_is_held_exactly(clock: Clock) -> None:
    limiter = RateLimiter(rate=100, burst=100, clock=clock)

    passed = 0
    for _ in range(10_000):  # 10 s, 1,000 attempts a second
        clock.now += 0.001
        passed += limiter.take("a") == 0

    assert 1_090 <= passed <= 1_101


def test_keys_do_not_share_a_bucket(clock: Clock) -> None:
    limiter = RateLimiter(rate=1, burst=1, clock=clock)
    limiter.take("a")

    assert limiter.take("b") == 0
    assert limiter.take("a") > 0


def test_a_rate_of_zero_is_no_limit_and_keeps_nothing(clock: Clock) -> None:
    limiter = RateLimiter(rate=0, burst=0, clock=clock)

    assert all(limiter.take("a") == 0 for _ in range(1000))
    assert len(limiter) == 0


def test_looking_does_not_take(clock: Clock) -> None:
    limiter = RateLimiter(rate=1, burst=1, clock=clock)

    assert limiter.exhausted("a") == 0
    limiter.take("a")
    assert limiter.exhausted("a") == pytest.approx(1)


def test_the_table_is_bounded_and_forgets_full_buckets_first(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "KEYS_MAX", 100)
    limiter = RateLimiter(rate=1, burst=1, clock=clock)
    for number in range(99):
        limiter.take(f"old-{number}")
    clock.now += 5  # their buckets are full again
    limiter.take("busy")

    for number in range(50):
        limiter.take(f"new-{number}")

    assert len(limiter) <= 100
    assert limiter.take("busy") > 0


def test_a_flood_of_keys_never_grows_the_table(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "KEYS_MAX", 100)
    limiter = RateLimiter(rate=0.001, burst=1, clock=clock)

    for number in range(10_000):
        limiter.take(str(number))

    assert len(limiter) == 100
