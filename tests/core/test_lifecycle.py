"""The transition table: which moves there are, and that nothing else passes."""

from __future__ import annotations

import itertools

import pytest

from controlplane.core.lifecycle import (
    LIVE,
    PUBLIC_STATUS,
    SETTLED,
    TRANSITIONS,
    IllegalTransition,
    State,
    advance,
)

MOVES = {(state, to) for state, followers in TRANSITIONS.items() for to in followers}


@pytest.mark.parametrize(("state", "to"), sorted(itertools.product(State, State), key=str))
def test_a_move_passes_exactly_if_the_table_lists_it(state: State, to: State) -> None:
    if (state, to) in MOVES:
        assert advance(state, to) is to
    else:
        with pytest.raises(IllegalTransition, match=f"^{state.value} -> {to.value}$"):
            advance(state, to)


@pytest.mark.parametrize(
    "path",
    [
        "stopped pending preparing starting running draining stopped",
        "stopped pending preparing starting running backoff starting running",
        "pending preparing starting backoff failed pending",
        "pending preparing failed draining stopped",
        "running stopped pending",
        "backoff draining stopped",
        "running backoff running",
        "running failed running",
        "running stopped running",
        "pending draining stopped",
    ],
)
def test_the_lives_that_instances_lead_are_possible(path: str) -> None:
    states = [State(word) for word in path.split()]

    for state, to in itertools.pairwise(states):
        advance(state, to)


@pytest.mark.parametrize("state", State)
def test_every_state_can_be_reached_and_comes_to_rest_in_the_end(state: State) -> None:
    assert state in reachable_from(State.PENDING)
    assert State.STOPPED in reachable_from(state)


def test_a_stopping_instance_serves_no_more() -> None:
    assert TRANSITIONS[State.DRAINING] == {State.STOPPED}


def test_every_state_has_a_public_name_of_its_own() -> None:
    assert set(PUBLIC_STATUS) == set(State)
    assert set(PUBLIC_STATUS.values()) == {
        "pending",
        "building",
        "starting",
        "running",
        "restarting",
        "stopping",
        "stopped",
        "failed",
    }


def test_what_has_settled_waits_for_nothing_and_only_live_states_have_a_process() -> None:
    assert {State.RUNNING, State.STOPPED, State.FAILED} == SETTLED
    assert {State.STARTING, State.RUNNING, State.DRAINING} == LIVE


def reachable_from(start: State) -> set[State]:
    found, todo = {start}, [start]
    while todo:
        new = TRANSITIONS[todo.pop()] - found
        found |= new
        todo += new
    return found
