"""Parked calls: claimed once, in time, by whoever was asked, for the request it was asked for."""

from __future__ import annotations

from uuid import UUID

import pytest
from attrs import define, field

from controlplane.web.mcp import parked as module
from controlplane.web.mcp.parked import PER_INSTANCE_MAX, PER_USER_MAX, TTL_S, Parked, StateRefused

COW = UUID(int=1)
GOAT = UUID(int=2)
DIGEST = b"tools/call of add"


@define
class Field:
    """A table on a clock that the test holds, and what was dropped from it."""

    now: float = 1000.0
    dropped: list[str] = field(factory=list)
    table: Parked[str] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.table = Parked(self.dropped.append, lambda: self.now)

    def park(self, value: str, *, user: str = "ada", instance_id: UUID = COW, digest: bytes = DIGEST) -> str:
        return self.table.park(value, user=user, instance_id=instance_id, digest=digest)

    def claim(self, token: str, *, user: str = "ada", instance_id: UUID = COW, digest: bytes = DIGEST) -> str:
        return self.table.claim(token, user, instance_id, digest)


@pytest.fixture
def parked() -> Field:
    return Field()


def test_a_parked_call_is_claimed_with_its_token(parked: Field) -> None:
    token = parked.park("call")

    assert parked.claim(token) == "call"
    assert parked.dropped == []
    assert len(parked.table) == 0


def test_a_token_counts_once(parked: Field) -> None:
    token = parked.park("call")
    parked.claim(token)

    with pytest.raises(StateRefused):
        parked.claim(token)


def test_tokens_are_random_visible_ascii_of_256_bits(parked: Field) -> None:
    tokens = {parked.park(str(number), instance_id=UUID(int=number)) for number in range(50)}

    assert len(tokens) == 50
    assert all(len(token) >= 43 and token.isascii() and token.isprintable() for token in tokens)


def test_every_wrong_claim_is_refused_in_the_same_words_and_takes_nothing(parked: Field) -> None:
    token = parked.park("call")
    expired = parked.park("old", instance_id=GOAT)
    wrong = [
        ("no-such-token", {}),
        ("", {}),
        (token[:-1], {}),
        (token, {"user": "bob"}),
        (token, {"instance_id": GOAT}),
        (token, {"digest": b"tools/call of wipe"}),
    ]

    refusals = set()
    for attempt, more in wrong:
        with pytest.raises(StateRefused) as refused:
            parked.claim(attempt, **more)
        refusals.add(str(refused.value))
    assert parked.claim(token) == "call", "the wrong claims left it to the right one"

    parked.now += TTL_S
    with pytest.raises(StateRefused) as refused:
        parked.claim(expired, instance_id=GOAT)
    refusals.add(str(refused.value))
    assert len(refusals) == 1


def test_a_call_that_nobody_claims_in_time_is_dropped_even_if_nobody_looks_but_its_client(parked: Field) -> None:
    token = parked.park("call")

    parked.now += TTL_S
    with pytest.raises(StateRefused):
        parked.claim(token)

    assert parked.dropped == ["call"]


def test_expiry_drops_what_is_due_and_nothing_else(parked: Field) -> None:
    parked.park("early")
    parked.now += 10
    late = parked.park("late")

    parked.table.expire(parked.now + TTL_S - 10.001)
    assert parked.dropped == []
    parked.table.expire(parked.now + TTL_S - 10)

    assert parked.dropped == ["early"]
    assert parked.claim(late) == "late"


def test_a_full_instance_drops_its_oldest(parked: Field) -> None:
    elsewhere = parked.park("elsewhere", instance_id=GOAT)
    tokens = [parked.park(str(number)) for number in range(PER_INSTANCE_MAX + 2)]

    assert parked.dropped == ["0", "1"]
    assert parked.claim(tokens[2]) == "2"
    assert parked.claim(elsewhere, instance_id=GOAT) == "elsewhere"


def test_a_full_user_drops_its_oldest_and_nobody_elses(parked: Field) -> None:
    other = parked.park("bob's", user="bob", instance_id=UUID(int=999))
    for number in range(PER_USER_MAX + 1):
        parked.park(str(number), instance_id=UUID(int=number))

    assert parked.dropped == ["0"]
    assert parked.claim(other, user="bob", instance_id=UUID(int=999)) == "bob's"


def test_closing_drops_everything_once(parked: Field) -> None:
    parked.park("a")
    parked.park("b", user="bob", instance_id=GOAT)

    parked.table.close()
    parked.table.close()

    assert parked.dropped == ["a", "b"]
    assert parked.table.statistics() == module.ParkedStatistics(parked=0, dropped=2)


def test_nothing_is_left_of_what_is_gone(parked: Field) -> None:
    for number in range(20):
        token = parked.park("x", user=f"user-{number}", instance_id=UUID(int=number))
        if number % 2:
            parked.claim(token, user=f"user-{number}", instance_id=UUID(int=number))
    parked.table.expire(parked.now + TTL_S)

    assert not parked.table._by_user
    assert not parked.table._by_instance
