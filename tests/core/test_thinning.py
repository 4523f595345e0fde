"""The first few as they are, the rest as a number."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.thinning import Thinning


def thinning(burst: int = 2, keys_max: int = 3) -> Thinning[str]:
    return Thinning(burst, 60.0, keys_max, "rest")


def test_the_first_few_are_told_and_the_rest_is_counted_until_the_window_ends() -> None:
    thin = thinning()
    assert [thin.tells("a", now) for now in (0.0, 1.0, 2.0, 59.0)] == [True, True, False, False]
    assert thin.due(59.9) == []
    assert thin.due(60.0) == [("a", 2)]
    assert (thin.due(61.0), len(thin)) == ([], 0)
    assert thin.tells("a", 61.0)


def test_a_window_in_which_all_was_told_has_nothing_more_to_say() -> None:
    thin = thinning()
    assert thin.tells("a", 0.0)
    assert (thin.due(100.0), len(thin)) == ([], 0)


def test_kinds_beyond_the_most_are_counted_together() -> None:
    thin = thinning(keys_max=2)
    assert [thin.tells(key, 0.0) for key in "abcdc"] == [True, True, False, False, False]
    assert thin.tells("a", 0.0)
    assert thin.due(60.0) == [("rest", 3)]
    assert thin.tells("c", 60.0), "there is room again"


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 20)), max_size=200), st.integers(0, 3), st.integers(1, 4))
def test_nothing_is_lost_and_the_table_stays_small(steps: list[tuple[int, float]], burst: int, keys_max: int) -> None:
    thin: Thinning[int] = Thinning(burst, 60.0, keys_max, -1)
    now, told, counted = 0.0, 0, 0
    for key, pause in steps:
        now += pause
        counted += sum(count for _, count in thin.due(now))
        told += thin.tells(key, now)
        assert len(thin) <= keys_max + 1
    counted += sum(count for _, count in thin.due(float("inf")))
    assert told + counted == len(steps)
