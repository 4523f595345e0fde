"""When a node may take what another one held, and until when it may run what it holds itself; pure.

Two clocks are involved. The database's says whether a lease stands. Each node's own says until when its processes may
live (the fence) and how long its lease has stood; it is read before a renewal is sent and after it was answered, so
that the fence falls before the lease ends, and nothing is taken too early, whatever the way to the database takes.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import Enum

from attrs import frozen

LEASE_S = 6.0
"""A lease stands so long after its last renewal, by the database's clock."""
RENEW_S = 2.0
"""Between two renewals: two may fail before the lease ends."""
RENEW_LIMIT_S = 1.5
"""For a renewal: one that takes longer counts as failed, so that there is time left to ask the others."""
PEER_RENEW_LIMIT_S = 0.7
"""The same for one that another node waits for, within its own `ASK_LIMIT_S`."""
ASK_LIMIT_S = 1.0
"""For another node's answer whether it can renew."""
CLAIM_EVERY_S = 1.0
"""How often a node looks whether there is something to take."""
CLAIM_AGAIN_S = 0.1
"""The same after it took something: there may be more."""
LEFT_S = 3.0
"""What has been free for so long, others do not take: who looks takes more than a fair share of it."""
FENCE_MARGIN_S = 1.0
"""The fence falls so long before the lease ends: for SIGKILL to be done, and for clocks that do not run alike."""
CLOCK_SLACK_S = 1.0
"""The database's clock may differ so much from one's own between two renewals; beyond that somebody has set it, and
who has a lease by it is anybody's guess."""
FORGET_NODE_S = 7 * 24 * 3600.0
"""A node that has been dead for so long, and holds nothing, is forgotten."""


@frozen(kw_only=True)
class Standing:
    """A lease as its node knows it. Times are its own clock's, in seconds, but for `at`, which is the database's."""

    epoch: int
    sent: float
    """Before the last renewal that worked was sent."""
    answered: float
    """After it was answered."""
    at: datetime
    since: float | None
    """It has stood without a gap since then; None: the last renewal failed, or took too long to tell."""

    @property
    def fence(self) -> float:
        """Until when processes may live."""
        return fence_after(self.sent)


class Blind(Enum):
    """What a node does that cannot renew."""

    GO_ON = "nobody can renew, so nobody can take anything"
    LET_FALL = "somebody can, or may be able to: this node is the one that is cut off"


def fence_after(sent: float) -> float:
    """Until when processes may live by a renewal, or by the others' answers, that was sent (asked for) at `sent`."""
    return sent + LEASE_S - FENCE_MARGIN_S


def taken(epoch: int, *, sent: float, answered: float, at: datetime) -> Standing:
    """A lease that was taken just now: nothing is known of what was before."""
    return Standing(epoch=epoch, sent=sent, answered=answered, at=at, since=answered)


def renewed(before: Standing, *, sent: float, answered: float, at: datetime) -> Standing:
    """The lease after a renewal. It has a gap if it had ended, had not been renewable, or the clock was set meanwhile."""
    passed = (at - before.at).total_seconds()
    least, most = sent - before.answered - CLOCK_SLACK_S, answered - before.sent + CLOCK_SLACK_S
    has_gap = before.since is None or passed >= LEASE_S or not least <= passed <= most
    return Standing(
        epoch=before.epoch, sent=sent, answered=answered, at=at, since=answered if has_gap else before.since
    )


def failed(before: Standing) -> Standing:
    """The lease after a renewal that did not come about: whatever comes next, it has a gap."""
    return Standing(epoch=before.epoch, sent=before.sent, answered=before.answered, at=before.at, since=None)


def may_take(standing: Standing, now: float) -> bool:
    """Whether a node may take what dead ones held.

    After a standstill of the database every lease looks expired, and whoever lives renews within `LEASE_S`. So long one
    waits as well from when one could not renew, as others that could not either go on by one's word (see `decide`).
    """
    return standing.since is not None and now - standing.since >= LEASE_S


def is_certain(standing: Standing, now: float) -> bool:
    """Whether the lease stands for all that this node can know."""
    return standing.since is not None and now < standing.fence


def decide(answers: Iterable[bool | None]) -> Blind:
    """What to do while blind, by what the other live nodes say to whether they can renew; None: no answer."""
    return Blind.GO_ON if all(can is False for can in answers) else Blind.LET_FALL
