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
from attrs import define, evolve, frozen

from controlplane import tracing
from controlplane.cluster.roster import Elsewhere, HeldElsewhere, held_elsewhere
from controlplane.errors import NotFound, StorageUnavailable, Unauthorized
from controlplane.web import traced
from controlplane.web.asgi import REQUEST_ID_KEY
from controlplane.web.asgi_routes import match
from controlplane.web.call import as_uuid
from controlplane.web.execute import EXECUTE_ROUTE
from controlplane.web.forward import Forwarding
from controlplane.web.mcp.endpoint import ENDPOINT_ROUTE, MESSAGES
from controlplane.web.peers import NODE_HEADER
from controlplane.web.routes import ROUTES
from controlplane.web.vouching import Client

if TYPE_CHECKING:
    from controlplane.model import Principal
    from controlplane.web.asgi import Receive, Scope, Send
    from controlplane.web.problems import Headers
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


_ROUTES = {"execute": EXECUTE_ROUTE, "mcp": ENDPOINT_ROUTE, "messages": ENDPOINT_ROUTE + MESSAGES}
_PATH = re.compile(f"{_ref('/mcp/')}|{_ref('/instances/')}")


def ref_of(path: str) -> str | None:
    """The instance that a path names, as `app.RefConverter` and `asgi_routes.match` read it; None: it names none.

    What is no route at all may be read as one: the 404 is the holder's then.
    """
    found = _PATH.fullmatch(path)
    return None if found is None else found[1] or found[2]


def route_of(head: Head) -> str | None:
    """The route of a request that is worth a span, as spans name it; None for all others."""
    found = match(head) if head.method == "POST" else None
    return _ROUTES.get(found[0]) if found is not None else traced.command_of(head)


@frozen
class _Request:
    """See `Placing.hand_on`."""

    head: Head
    scope: Scope
    receive: Receive
    send: Send
    body: bytes
    is_counted: bool


@define(eq=False)
class Placing:
    """Hands on what is not this node's to answer."""

    services: Services

    async def hand_on(
        self,
        head: Head,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        body: bytes = b"",
        is_counted: bool = False,
    ) -> bool:
        """Answer a request by way of the node that holds what it names; False: it is answered here.

        Args:
            head: The request.
            scope: The same, with its id and every field as it came.
            receive: Gives the body.
            send: Takes the answer.
            body: The body, if it has been read, for the sake of what it says of its trace.
            is_counted: It has taken its turn of the rate limit, which the holder need not ask for again.

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
        request = _Request(head, scope, receive, send, body, is_counted)
        route = route_of(head) if tracing.is_on else None
        if route is None:
            await self._to_holder(found, request)
            return True
        with traced.Traced(head.fields, route, ref, body, hands_on=True) as trace:
            trace.put("corral.holder", str(found.node_id))
            await self._to_holder(found, evolve(request, send=trace.watching(send)))
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

    async def _to_holder(self, found: Elsewhere, request: _Request) -> None:
        services, roster, outcomes = self.services, self.services.roster, self.services.meters.handed_on
        peer = roster.nodes.get(found.node_id) if found.node_id is not None else None
        if peer is None or not peer.is_live or peer.id == roster.node_id:
            outcomes["unheld"] += 1
            raise held_elsewhere(found)
        silence_s = services.config.max_call_timeout_s + OVERTIME_S
        with services.peers.watched(peer) as lost:
            forwarding = Forwarding(
                services.peers,
                peer,
                roster.node_id,
                silence_s,
                request.head,
                request.scope,
                request.receive,
                request.send,
                self._vouched(request),
            )
            try:
                await forwarding.run(lost)
            finally:
                if forwarding.outcome is not None:
                    outcomes[forwarding.outcome] += 1

    def _vouched(self, request: _Request) -> Headers:
        services = self.services
        client = Client(services.guards.client(request.head), request.is_counted)
        request_id = str(request.scope[REQUEST_ID_KEY]).encode("ascii")
        return services.vouching.fields(client, str(services.roster.node_id).encode(), request_id)
