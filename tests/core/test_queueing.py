"""Who goes next: urgency, turns between owners, and an end to every wait."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.queueing import PATIENCE_S, PATIENCE_TURNS, SOMEBODY_WAITS, Line, Priority, Waiting

CALL, COMMAND, RESTART, BOOT = Priority


def line_of(*words: str) -> tuple[Line, dict[str, Waiting]]:
    """`ada1:boot` is the first that ada waits with; they came a millisecond after one another."""
    line, names = Line(), {}
    for number, word in enumerate(words):
        name, _, priority = word.partition(":")
        names[name] = Waiting(name.rstrip("0123456789"), Priority[priority.upper()], number / 1000)
        line.join(names[name])
    return line, names


def drained(line: Line, names: dict[str, Waiting], now: float = 1.0) -> list[str]:
    """Everybody's name, in the order in which they go."""
    order = []
    while (one := line.next(now)) is not None:
        line.take(one)
        order.append(next(name for name, waiting in names.items() if waiting is one))
    return order


@pytest.mark.parametrize(
    ("come", "go"),
    [
        ("", ""),
        ("ada1:boot ada2:boot ada3:boot", "ada1 ada2 ada3"),
        ("ada1:boot ada2:restart ada3:command ada4:call", "ada4 ada3 ada2 ada1"),
        ("ada1:boot ada2:boot ada3:boot bob1:boot bob2:boot", "ada1 bob1 ada2 bob2 ada3"),
        ("ada1:boot bob1:boot cay1:boot ada2:boot bob2:boot", "ada1 bob1 cay1 ada2 bob2"),
        ("ada1:boot ada2:boot bob1:boot ada3:call", "ada3 bob1 ada1 ada2"),
        ("ada1:call ada2:call bob1:command", "ada1 ada2 bob1"),
    ],
)
def test_the_order(come: str, go: str) -> None:
    line, names = line_of(*come.split())

    assert [next(name for name, one in names.items() if one is waiting) for waiting in line.order()] == go.split()
    assert drained(line, names) == go.split()
    assert len(line) == 0


def test_who_is_promoted_goes_with_the_urgent_and_in_front_of_them_if_it_came_first() -> None:
    line, names = line_of("ada1:boot", "ada2:call", "ada3:call")

    names["ada1"].priority = CALL

    assert drained(line, names) == ["ada1", "ada2", "ada3"]


def test_who_leaves_is_gone_and_who_comes_back_has_kept_its_place_among_its_owners() -> None:
    line, names = line_of("ada1:boot", "ada2:boot", "ada3:boot")

    line.leave(names["ada1"])
    assert names["ada1"] not in line
    line.join(names["ada1"])

    assert drained(line, names) == ["ada1", "ada2", "ada3"]


def test_where_there_is_a_place_for_some_classes_only_the_others_are_passed_over() -> None:
    line, names = line_of("ada1:boot", "ada2:restart", "bob1:command")

    assert line.next(1.0, SOMEBODY_WAITS) is names["bob1"]
    line.take(names["bob1"])
    assert line.next(1.0, SOMEBODY_WAITS) is None
    assert line.next(1.0) is names["ada2"]


def test_an_owner_who_comes_again_and_again_has_no_more_turns_than_one_with_a_queue() -> None:
    line, _names = line_of(*(f"ada{number}:command" for number in range(6)))
    turns = []
    for number in range(12):
        if all(one.owner != "bob" for one in line.order()):
            line.join(Waiting("bob", COMMAND, 1.0 + number))
        one = line.next(2.0)
        assert one is not None
        line.take(one)
        turns.append(one.owner)
        if "ada" not in [waiting.owner for waiting in line.order()]:
            break

    assert turns[:10] == ["ada", "bob"] * 5


@pytest.mark.parametrize("stale_s", [PATIENCE_S - 1, PATIENCE_S + 1])
def test_beside_a_steady_stream_of_the_urgent_one_who_has_waited_long_has_every_fourth_turn(stale_s: float) -> None:
    line, names = line_of(*(f"ada{number}:boot" for number in range(3)))
    boots = set(map(id, names.values()))
    turns = []
    for number in range(3 * PATIENCE_TURNS):
        line.join(Waiting("bob", CALL, stale_s))
        one = line.next(stale_s + number / 1000)
        assert one is not None
        line.take(one)
        turns.append(id(one) in boots)

    assert turns == ([False, False, False, True] * 3 if stale_s > PATIENCE_S else [False] * len(turns))


def test_a_block_of_old_boots_holds_a_caller_of_the_same_owner_up_for_one_turn_at_most() -> None:
    line, names = line_of(*(f"ada{number}:boot" for number in range(100)))
    now = 10 * PATIENCE_S
    for _ in range(10):
        one = line.next(now)
        assert one is not None
        line.take(one)
        caller = Waiting("ada", CALL, now)
        line.join(caller)
        for _ in range(2):
            one = line.next(now)
            assert one is not None
            line.take(one)
            if one is caller:
                break
        assert caller not in line
    assert len(names) == 100


arrivals = st.lists(st.tuples(st.sampled_from(["ada", "bob", "cay"]), st.sampled_from(list(Priority))), max_size=30)


@given(arrivals)
def test_nobody_passes_the_more_urgent_or_an_earlier_one_of_the_same_owner(come: list[tuple[str, Priority]]) -> None:
    line = Line()
    for number, (owner, priority) in enumerate(come):
        line.join(Waiting(owner, priority, number / 1000))
    order = line.order()

    assert [one.priority for one in order] == sorted(one.priority for one in order)
    for (_owner, _priority), ones in itertools.groupby(
        sorted(order, key=lambda one: (one.owner, one.priority)), key=lambda one: (one.owner, one.priority)
    ):
        sinces = [one.since for one in ones]
        assert sinces == sorted(sinces)
    taken = []
    while (one := line.next(1.0)) is not None:
        line.take(one)
        taken.append(one)
    assert taken == order


@given(arrivals)
def test_owners_who_wait_in_one_class_have_as_many_turns_as_each_other(come: list[tuple[str, Priority]]) -> None:
    line = Line()
    for number, (owner, _priority) in enumerate(come):
        line.join(Waiting(owner, BOOT, number / 1000))
    turns = dict.fromkeys(("ada", "bob", "cay"), 0)
    while (one := line.next(1.0)) is not None:
        line.take(one)
        turns[one.owner] += 1
        waiting = {other.owner for other in line.order()} | {one.owner}
        left = [turns[owner] for owner in waiting if owner in {other.owner for other in line.order()}]
        assert not left or max(left) - min(left) <= 1


@given(st.integers(0, 5), st.lists(st.sampled_from([CALL, COMMAND]), min_size=60, max_size=60))
def test_every_wait_ends_whatever_else_comes(older: int, stream: list[Priority]) -> None:
    line = Line()
    for number in range(older + 1):
        line.join(Waiting("ada", BOOT, number / 1000))
    last = line.order()[-1]
    now = PATIENCE_S + 1
    for turn, priority in enumerate(stream, 1):
        line.join(Waiting("bob", priority, now))
        one = line.next(now)
        assert one is not None
        line.take(one)
        if one is last:
            assert turn <= PATIENCE_TURNS * (older + 1)
            return
    raise AssertionError("it still waits")
