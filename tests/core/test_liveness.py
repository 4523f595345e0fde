"""Signs of life over time, and what is found in them: tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.liveness import DEAF_S, FROZEN_LOOKS, GRACE_S, KILL_MIN_S, PING_AFTER_S, WARN_S, Liveness, Signs

CALL_S = 60.0


def signs(at: float, **members: Any) -> Signs:
    given = {"waiting": members.get("calls", 0), "calls": 0, "heard": 0, "call_limit_s": CALL_S} | members
    return Signs(at=at, **given)


def steps(looks: Iterable[dict[str, Any]], life: Liveness | None = None) -> list[tuple[int, str, str]]:
    """When something was found, each second a look: the second, the step, the code. A ping is `?`."""
    life = life or Liveness()
    found = []
    for at, members in enumerate(looks):
        finding = life.look(signs(float(at), **members))
        if life.wants_ping:
            found.append((at, "?", ""))
        if finding is not None:
            found.append((at, finding.step, finding.code))
    return found


WAITS = {"calls": 1}


def test_silence_while_calls_wait_leads_to_a_ping_a_warning_and_the_end() -> None:
    ping, warn = int(PING_AFTER_S), int(PING_AFTER_S + WARN_S)
    end = int(CALL_S + GRACE_S)
    assert steps([WAITS] * 100) == [(ping, "?", ""), (warn, "warn", "hung"), (end, "kill", "hung")]


def test_however_short_calls_are_there_is_a_warning_first() -> None:
    found = steps([WAITS | {"call_limit_s": 0.5}] * 100)
    assert [step for _, step, _ in found] == ["?", "warn", "kill"]
    assert found[-1][0] == KILL_MIN_S


def test_a_call_that_may_take_longer_gives_the_server_longer() -> None:
    assert steps([WAITS | {"call_limit_s": 300.0}] * 300)[-1][1] == "warn"


def test_whatever_it_says_is_a_sign_of_life() -> None:
    assert steps([WAITS | {"heard": at // 4} for at in range(300)]) == []


def test_one_that_answers_after_a_warning_is_well_again() -> None:
    found = steps([WAITS] * 20 + [WAITS | {"heard": 1}] * 3)
    assert [step for _, step, _ in found] == ["?", "warn", "calm"]


def test_nobody_is_hung_while_nobody_waits() -> None:
    assert steps([{"calls": 0}] * 1000) == []


def test_calls_that_time_out_one_after_the_other_add_up() -> None:
    looks = [WAITS | {"call_limit_s": 2.0}] * 3 + [{"call_limit_s": 2.0}] * 3
    assert steps(looks * 20)[-1][1] == "kill"


def test_one_that_owes_the_answer_to_a_ping_is_given_twice_as_long_when_its_calls_have_timed_out() -> None:
    short = {"call_limit_s": 10.0}
    found = steps([WAITS | short] * 11 + [short] * 60)
    assert [(at, step) for at, step, _ in found] == [(5, "?"), (20, "warn"), (30, "kill")]


def test_one_that_cannot_be_asked_is_left_to_its_calls_own_time() -> None:
    assert steps([WAITS | {"can_be_asked": False}] * 1000) == []


def test_one_that_spins_and_does_not_answer_is_ended_for_that() -> None:
    assert [code for _, step, code in steps([WAITS | {"cpu_share": 1.0}] * 100) if step == "kill"] == ["cpu_spin"]


def test_a_frozen_process_is_given_up_after_some_looks_and_only_if_calls_wait() -> None:
    still = {"is_stopped": True}
    assert steps([still] * 100) == []
    assert steps([WAITS | still] * 10) == [(FROZEN_LOOKS, "kill", "hung")]
    assert steps([{"waiting": 1} | still] * 10) == [(FROZEN_LOOKS, "kill", "hung")]
    now_and_then = steps(([WAITS | still] * (FROZEN_LOOKS - 1) + [WAITS]) * 3)
    assert "kill" not in [step for _, step, _ in now_and_then]


def test_a_helper_that_is_stopped_is_none_of_our_business_while_the_server_speaks() -> None:
    assert steps([WAITS | {"is_stopped": True, "heard": at} for at in range(100)]) == []


def test_one_that_reads_nothing_is_given_up() -> None:
    found = steps([{"waiting": 1, "unread_since": 0.5}] * 60)
    assert [(step, code) for _, step, code in found] == [("kill", "hung")]
    assert found[0][0] == int(DEAF_S) + 1


def test_one_that_reads_a_little_now_and_then_is_not() -> None:
    assert steps([{"waiting": 1, "unread_since": float(at // 10)} for at in range(200)]) == []


@pytest.mark.parametrize("members", [WAITS, WAITS | {"is_stopped": True}, {"waiting": 1, "unread_since": 0.0}])
def test_after_a_suspension_nobody_is_ended_for_the_time_that_nobody_looked(members: dict[str, Any]) -> None:
    life = Liveness()
    assert life.look(signs(0.0, **members)) is None
    assert life.look(signs(1.0, **members)) is None
    assert life.look(signs(1e6, **members)) is None


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.booleans()), max_size=200))
def test_one_end_is_enough(looks: list[tuple[int, bool, bool]]) -> None:
    heard, series = 0, []
    for calls, speaks, stopped in looks:
        heard += speaks
        series.append({"calls": calls, "heard": heard, "is_stopped": stopped})
    assert [step for _, step, _ in steps(series)].count("kill") <= 1


LOOKS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 2]),
        st.integers(0, 2),
        st.sampled_from([None, None, 3.0, 7.0]),
        st.booleans(),
        st.sampled_from([0.5, 1.0, 4.0]),
        st.integers(1, 20),
    ),
    max_size=15,
)


@given(LOOKS)
def test_a_short_look_at_one_that_nobody_waits_for_leads_to_the_same(
    looks: list[tuple[int, int, float | None, bool, float, int]],
) -> None:
    short, whole, at = Liveness(), Liveness(), 0.0
    for waiting, heard, unread_since, stopped, step_s, times in looks:
        for _ in range(times):
            at += step_s
            seen = signs(at, calls=waiting, heard=heard, unread_since=unread_since, is_stopped=stopped)
            expected = whole.look(seen)
            found = None if not waiting and short.rests(at, heard, unread_since) else short.look(seen)
            assert (found, short) == (expected, whole)
