"""Who is told of what other nodes hold: those who may see it, and nobody else."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from controlplane.cluster.roster import Elsewhere, Node, Roster
from controlplane.model import Principal, Role

HERE, THERE, DEAD = (UUID(int=number) for number in (1, 2, 3))
FOUND = Elsewhere(uuid4(), "ada", "memory", THERE)


def roster() -> Roster:
    made = Roster(HERE, is_alone=False)
    made.take_held([FOUND])
    return made


def principal(owner: str, role: Role = Role.DEPLOYER, **more: object) -> Principal:
    return Principal(owner=owner, role=role, token_id="t", **more)


@pytest.mark.parametrize(
    ("who", "ref", "is_told"),
    [
        (principal("ada"), "memory", True),
        (principal("ada"), "Memory", True),
        (principal("ada"), str(FOUND.id), True),
        (principal("ada"), "other", False),
        (principal("bob"), "memory", False),
        (principal("bob"), str(FOUND.id), False),
        (principal("bob"), "ada/memory", False),
        (principal("root", Role.ADMIN), "ada/memory", True),
        (principal("root", Role.ADMIN), str(FOUND.id), True),
        (principal("root", Role.ADMIN), "memory", False),
        (principal("ada", instances=frozenset({FOUND.id})), "memory", True),
        (principal("ada", instances=frozenset({uuid4()})), "memory", False),
    ],
)
def test_an_instance_elsewhere_is_found_by_those_who_may_see_it(who: Principal, ref: str, is_told: bool) -> None:
    assert roster().find(who, ref) == (FOUND if is_told else None)


def test_what_comes_here_is_elsewhere_no_more_and_the_other_way_round() -> None:
    kept = roster()
    kept.drop(FOUND.id)
    assert kept.find(principal("ada"), "memory") is None
    kept.drop(FOUND.id)
    kept.add(FOUND)
    assert kept.find(principal("ada"), "memory") == FOUND


def test_a_name_that_was_given_anew_is_not_lost_with_the_old_one() -> None:
    kept = roster()
    newer = Elsewhere(uuid4(), "ada", "memory", THERE)
    kept.add(newer)
    kept.drop(FOUND.id)
    assert kept.find(principal("ada"), "memory") == newer


def test_the_others_are_those_that_live_and_not_oneself() -> None:
    kept = roster()
    kept.take_nodes(
        Node(id=node_id, url="http://n", version="1", is_live=node_id != DEAD) for node_id in (THERE, HERE, DEAD)
    )
    assert [node.id for node in kept.others()] == [THERE]
    assert set(kept.nodes) == {HERE, THERE, DEAD}
