"""What a node may do, and until when: pure decisions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from controlplane.cluster import lease
from controlplane.cluster.lease import Blind, Standing

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def taken(at: float = 100.0) -> Standing:
    """One that was sent at `at` and answered 0.1 s later."""
    return lease.taken(1, sent=at, answered=at + 0.1, at=NOON)


def renewed_after(before: Standing, seconds: float, *, clock_s: float | None = None, took: float = 0.1) -> Standing:
    """Sent so long after `before` was; the database's clock says `clock_s` more, by default the same."""
    sent = before.sent + seconds
    passed = seconds if clock_s is None else clock_s
    return lease.renewed(before, sent=sent, answered=sent + took, at=before.at + timedelta(seconds=passed))


def test_the_fence_falls_before_the_lease_can_have_ended_however_long_the_answer_took() -> None:
    standing = renewed_after(taken(), 2.0, took=1.4)
    assert standing.fence == 102.0 + lease.LEASE_S - lease.FENCE_MARGIN_S
    assert standing.fence < standing.sent + lease.LEASE_S


def test_times_leave_room_for_each_other() -> None:
    assert lease.RENEW_S + lease.RENEW_LIMIT_S + lease.ASK_LIMIT_S <= lease.LEASE_S - lease.FENCE_MARGIN_S
    assert lease.PEER_RENEW_LIMIT_S < lease.ASK_LIMIT_S


@pytest.mark.parametrize(
    ("seconds", "clock_s", "keeps"),
    [
        (2.0, 2.0, True),
        (5.5, 5.5, True),
        (6.0, 6.0, False),  # it had ended: others may have taken something, or everybody's had
        (30.0, 30.0, False),
        (2.0, 4.0, False),  # the database's clock was set forward
        (2.0, 0.0, False),  # and back
        (2.0, 2.9, True),  # clocks that do not run alike, an answer that took a while
        (2.0, 1.0, True),
    ],
)
def test_a_lease_stands_without_a_gap_only_if_it_had_not_ended_and_nobody_set_the_clock(
    seconds: float, clock_s: float, keeps: bool
) -> None:
    before = taken()
    standing = renewed_after(before, seconds, clock_s=clock_s)
    assert standing.since == (before.since if keeps else standing.answered)


def test_after_a_failed_renewal_there_is_a_gap_though_the_next_one_works() -> None:
    failed = lease.failed(taken())
    assert failed.since is None
    assert renewed_after(failed, 2.0).since == 102.1


def test_nothing_is_taken_from_the_dead_before_ones_own_lease_has_stood_as_long_as_a_lease_is() -> None:
    standing = taken()
    assert not lease.may_take(standing, 106.0)
    assert lease.may_take(standing, 106.2)
    assert not lease.may_take(lease.failed(standing), 1000.0)


def test_one_that_goes_on_by_anothers_word_has_ended_before_that_one_may_take_anything() -> None:
    asked = 200.0
    other = renewed_after(lease.failed(taken(190.0)), 10.2)  # it said no after it was asked, and can at once
    first_claim = next(second for second in range(400) if lease.may_take(other, asked + second / 10)) / 10
    assert lease.fence_after(asked) <= asked + first_claim - lease.FENCE_MARGIN_S


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        ([], Blind.GO_ON),
        ([False], Blind.GO_ON),
        ([False, False], Blind.GO_ON),
        ([True], Blind.LET_FALL),
        ([None], Blind.LET_FALL),
        ([False, None], Blind.LET_FALL),
        ([False, True], Blind.LET_FALL),
    ],
)
def test_a_blind_node_goes_on_only_if_every_other_one_says_that_it_cannot_renew(
    answers: list[bool | None], verdict: Blind
) -> None:
    assert lease.decide(answers) is verdict


def test_a_lease_is_certain_until_its_fence_and_not_after_a_failure() -> None:
    standing = taken()
    assert lease.is_certain(standing, 104.9)
    assert not lease.is_certain(standing, 105.0)
    assert not lease.is_certain(lease.failed(standing), 101.0)
