"""Where a request is answered: here, or by the node that holds the instance that its path names.

Asked before the body is read, so that it can be handed on as it comes. A name
that this node does not know may be new on another: before that is a 404, the
database is asked who holds it.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

import trio
from attrs import define

from controlplane.cluster.roster import Elsewhere, HeldElsewhere, held_elsewhere
from controlplane.errors import NotFound, StorageUnavailable, Unauthorized
from controlplane.web.call import as_uuid
from controlplane.web.forward import Forwarding
from controlplane.web.peers import NODE_HEADER
from controlplane.web.routes import ROUTES

if TYPE_CHECKING:
    from controlplane.model import Principal
    from controlplane.web.asgi import Receive, Scope, Send
    from controlplane.web.request import Head
    from controlplane.web.services import Services

OVERTIME_S = 60.0
"""How much longer than a call may take the holder may say nothing: an answer of its own comes before."""
LOOK_UP_S = 1.0
"""For the database to say whose a name is that this node does not know."""


def _ref(root: str) -> str:
    """An instance below `root`: a name, or `owner/name`, whose second part is none of the words that stand there."""
    words = sorted(
        {route.path.removeprefix(f"{root}{{id}}/") for route in ROUTES if route.path.startswith(f"{root}{{id}}/")}
    )
    return rf"{root}([^/]+(?:/(?!(?:{'|'.join(words)})(?:/|$))[^/]+)?)(?:/.*)?"


_PATH = re.compile(f"{_ref('/mcp/')}|{_ref('/instances/')}")


def ref_of(path: str) -> str | None:
    """The instance that a path names, as `app.RefConverter` and `asgi_routes.match` read it; None: it names none.

    What is no route at all may be read as one: the 404 is the holder's then.
    """
    found = _PATH.fullmatch(path)
    return None if found is None else found[1] or found[2]


@define(eq=False)
class Placing:
    """Hands on what is not this node's to answer."""

    services: Services

    async def hand_on(self, head: Head, scope: Scope, receive: Receive, send: Send) -> bool:
        """Answer a request by way of the node that holds what it names; False: it is answered here.

        Raises:
            HeldElsewhere: nobody can answer it at this moment.
            InstanceUnavailable, InstanceCrashed: its holder is away, or went away.
            ClientLeft: there is nobody to answer any more, or the answer broke off.
        """
        if self.services.roster.is_alone or head.method == "OPTIONS" or NODE_HEADER in head.fields:
            return False
        ref = ref_of(head.path)
        principal = None if ref is None else self._principal(head)
        if ref is None or principal is None:
            return False
        found = await self._find(principal, ref)
        if found is None:
            return False
        await self._to_holder(found, head, scope, receive, send)
        return True

    def _principal(self, head: Head) -> Principal | None:
        """Who asks; None: nobody who is let in, which is answered (and counted) here."""
        try:
            return self.services.tokens.grant(head.fields.get(b"authorization")).principal
        except Unauthorized:
            return None

    async def _find(self, principal: Principal, ref: str) -> Elsewhere | None:
        services = self.services
        try:
            services.supervisor.find(principal, ref)
        except HeldElsewhere as held:
            return held.elsewhere
        except NotFound:
            return await self._look_up(principal, ref)
        return None

    async def _look_up(self, principal: Principal, ref: str) -> Elsewhere | None:
        """Ask the database, for a name that may be new; what memory knows is no older than a second."""
        services, found = self.services, None
        if not services.roster.others():
            return None  # nobody else makes any
        owner, slash, name = ref.rpartition("/") if principal.crosses_owners else ("", "", ref)
        with trio.move_on_after(LOOK_UP_S), suppress(StorageUnavailable):
            found = await services.store.whereabouts(
                as_uuid(ref), owner if slash else principal.owner, name if slash else ref.lower()
            )
        if found is None or found.node_id == services.roster.node_id:
            return None
        if not principal.sees(found.owner, found.name, found.id):
            return None
        known = Elsewhere(found.id, found.owner, found.name, found.node_id)
        services.roster.add(known)
        return known

    async def _to_holder(self, found: Elsewhere, head: Head, scope: Scope, receive: Receive, send: Send) -> None:
        services, roster = self.services, self.services.roster
        peer = roster.nodes.get(found.node_id) if found.node_id is not None else None
        if peer is None or not peer.is_live or peer.id == roster.node_id:
            raise held_elsewhere(found)
        silence_s = services.config.max_call_timeout_s + OVERTIME_S
        with services.peers.watched(peer) as lost:
            forwarding = Forwarding(services.peers, peer, roster.node_id, silence_s, head, scope, receive, send)
            await forwarding.run(lost)
