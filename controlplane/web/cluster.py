"""What control planes on one database ask each other: whether this one can renew its lease, and may run anything.

Not in the document: no token of a client's opens it, only the key that the nodes derive from their SECRET_KEY.
"""

from __future__ import annotations

from attrs import frozen

from controlplane.cluster import asking
from controlplane.errors import NotFound
from controlplane.web.call import Call, Reply, json_reply
from controlplane.web.route import Route


@frozen(kw_only=True)
class PeerOut:
    """See `asking.Word`."""

    can_renew: bool
    runs: bool


async def get_lease(call: Call) -> Reply:
    """Answers within a second; to anybody but another node there is no such thing."""
    membership = call.services.membership
    if membership is None or not asking.is_peer(membership.asker.key(), call.head.fields.get(b"authorization")):
        raise NotFound("There is nothing here.")
    return json_reply(PeerOut(can_renew=await membership.can_renew(), runs=membership.runs))


ROUTES = (
    Route(
        "GET",
        asking.PATH,
        get_lease,
        operation="getPeerLease",
        summary="Whether this node can renew its lease",
        tag="System",
        role=None,
        answers={200: PeerOut},
    ),
)
