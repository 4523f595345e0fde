"""The restart policy as a table: exact delays, exact budgets, no clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.restart import HEALTHY_RUN_S, RestartAfter, RestartMode, RestartPolicy, RestartState, Stop

PATIENT = RestartPolicy(burst=100)


def crashes(policy: RestartPolicy, *times: float, ran_s: float = 1.0, jitter: float = 0.0) -> list[RestartAfter | Stop]:
    state, decisions = RestartState(policy), []
    for now in times:
        state, decision = state.on_exit(1, ran_s=ran_s, now=now, jitter=jitter)
        decisions.append(decision)
    return decisions


def delays(decisions: list[RestartAfter | Stop]) -> list[float]:
    return [decision.delay_s for decision in decisions if isinstance(decision, RestartAfter)]


def test_delays_double_up_to_the_ceiling() -> None:
    assert delays(crashes(PATIENT, *range(9))) == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_jitter_adds_up_to_a_quarter() -> None:
    assert delays(crashes(PATIENT, 0, 1, 2, jitter=0.5)) == [0.5625, 1.125, 2.25]
    assert delays(crashes(PATIENT, 0, jitter=0.999))[0] == pytest.approx(0.625, rel=1e-3)


def test_the_default_policy_gives_up_at_the_sixth_crash_within_a_minute() -> None:
    *before, last = crashes(RestartPolicy(), 0, 0.5, 1.5, 3.5, 7.5, 15.5)

    assert delays(before) == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert last == Stop("6 exits in 60 s", failed=True, crash_loop=True)


def test_every_decision_says_why() -> None:
    policy = RestartPolicy(burst=2, window_s=10)

    assert [decision.reason for decision in crashes(policy, 0, 1, 2)] == [
        "exit 1 of 2 allowed in 10 s",
        "exit 2 of 2 allowed in 10 s",
        "3 exits in 10 s",
    ]


def test_the_window_slides_so_that_two_bursts_at_its_edge_do_not_slip_past() -> None:
    policy = RestartPolicy(burst=3, window_s=10)

    assert isinstance(crashes(policy, 8, 9, 10, 11)[-1], Stop)
    assert isinstance(crashes(policy, 0, 9, 10, 10.5)[-1], RestartAfter), "the crash at 0 is out of the window"


def test_a_crash_leaves_the_window_exactly_when_it_is_as_old_as_the_window() -> None:
    policy = RestartPolicy(burst=1, window_s=10)

    assert isinstance(crashes(policy, 0, 10)[-1], RestartAfter)
    assert isinstance(crashes(policy, 0, 9.999)[-1], Stop)


def test_spread_out_crashes_never_exhaust_the_budget_and_keep_the_longest_delay() -> None:
    decisions = crashes(RestartPolicy(burst=2), *range(0, 3100, 31), ran_s=5)

    assert len(delays(decisions)) == 100
    assert delays(decisions)[-1] == 30.0


def test_a_healthy_run_forgives_every_earlier_crash() -> None:
    state = RestartState(RestartPolicy(burst=3))
    for now in (0, 1, 2):
        state, _ = state.on_exit(1, ran_s=1, now=now, jitter=0)

    state, decision = state.on_exit(1, ran_s=HEALTHY_RUN_S, now=10, jitter=0)

    assert decision == RestartAfter(0.5, 1, "exit 1 of 3 allowed in 60 s")
    assert state.crashes == (10,)


def test_a_run_that_was_almost_healthy_forgives_nothing() -> None:
    state, _ = RestartState(PATIENT).on_exit(1, ran_s=1, now=0, jitter=0)

    _, decision = state.on_exit(1, ran_s=HEALTHY_RUN_S - 0.001, now=70, jitter=0)

    assert decision == RestartAfter(1.0, 2, "exit 1 of 100 allowed in 60 s"), (
        "the window forgets it, the delay does not"
    )


@pytest.mark.parametrize(
    ("mode", "code", "ran_s", "expected"),
    [
        (RestartMode.ON_FAILURE, 0, 5.0, Stop("ended by itself with status 0", failed=False)),
        (RestartMode.ON_FAILURE, 0, 0.0, RestartAfter(0.5, 1, "exit 1 of 5 allowed in 60 s")),
        (RestartMode.ON_FAILURE, 3, 5.0, RestartAfter(0.5, 1, "exit 1 of 5 allowed in 60 s")),
        (RestartMode.ON_FAILURE, -9, 0.0, RestartAfter(0.5, 1, "exit 1 of 5 allowed in 60 s")),
        (RestartMode.ALWAYS, 0, 5.0, RestartAfter(0.5, 1, "exit 1 of 5 allowed in 60 s")),
        (RestartMode.ALWAYS, -11, 0.0, RestartAfter(0.5, 1, "exit 1 of 5 allowed in 60 s")),
        (RestartMode.NEVER, 0, 5.0, Stop("restart mode is never", failed=False)),
        (RestartMode.NEVER, 1, 5.0, Stop("restart mode is never", failed=True)),
        (RestartMode.NEVER, -15, 0.0, Stop("restart mode is never", failed=True)),
    ],
)
def test_the_mode_decides_which_exits_are_answered_with_a_restart(
    mode: RestartMode, code: int, ran_s: float, expected: RestartAfter | Stop
) -> None:
    _, decision = RestartState(RestartPolicy(mode=mode)).on_exit(code, ran_s=ran_s, now=0, jitter=0)

    assert decision == expected


def test_a_server_that_always_ends_well_at_once_is_a_crash_loop_too() -> None:
    state = RestartState(RestartPolicy(mode=RestartMode.ALWAYS, burst=2))
    for now in range(3):
        state, decision = state.on_exit(0, ran_s=0.1, now=now, jitter=0)

    assert decision == Stop("3 exits in 60 s", failed=True, crash_loop=True)


@given(
    st.integers(1, 5),
    st.floats(0.5, 100),
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 0.999)), min_size=1, max_size=200),
)
def test_delay_and_memory_stay_bounded_whatever_happens(
    burst: int, max_delay_s: float, exits: list[tuple[float, float]]
) -> None:
    policy = RestartPolicy(mode=RestartMode.ALWAYS, burst=burst, max_delay_s=max_delay_s)
    state, now = RestartState(policy), 0.0
    for pause, jitter in exits:
        now += pause
        state, decision = state.on_exit(1, ran_s=0, now=now, jitter=jitter)
        if isinstance(decision, Stop):
            assert len(state.crashes) == burst + 1
            break
        assert 0 < decision.delay_s <= max_delay_s * 1.25
        assert len(state.crashes) <= burst


def test_a_streak_of_thousands_does_not_overflow() -> None:
    state = RestartState(RestartPolicy(mode=RestartMode.ALWAYS, window_s=1))
    for now in range(0, 10_000, 2):
        state, decision = state.on_exit(1, ran_s=0, now=now, jitter=0)

    assert decision == RestartAfter(30.0, 5_000, "exit 1 of 5 allowed in 1 s")


@pytest.mark.parametrize("wrong", [{"burst": 0}, {"window_s": 0}, {"max_delay_s": 0}, {"base_delay_s": -1}])
def test_a_policy_that_makes_no_sense_cannot_be_made(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RestartPolicy(**wrong)
