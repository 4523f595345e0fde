"""A request about an instance that another node holds, handed on to that node as it came.

The same method, path, query, fields and body; its answer comes back piece by
piece. What belongs to one connection alone stays on it, and so do Host and
Origin, which were checked here. The holder checks the credentials itself.

One hop only: a request that carries `NODE_HEADER` is never handed on again, so
that two nodes that take each other for the holder cannot send it to and fro.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import httpx
import trio
from attrs import define, field

from controlplane import tracing
from controlplane.errors import CorralError
from controlplane.web.asgi import REQUEST_ID_KEY, Receive, Scope, Send, send_body, send_start, wait_disconnected
from controlplane.web.mcp.outlet import ClientLeft
from controlplane.web.peers import NODE_HEADER, Peer, Peers, host_of, went_away
from controlplane.web.vouching import VOUCHED

if TYPE_CHECKING:
    from uuid import UUID

    from controlplane.web.meters import HandedOn
    from controlplane.web.problems import Headers
    from controlplane.web.request import Head

log = logging.getLogger("corral.web")

OF_THE_CONNECTION = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
"""RFC 9110 section 7.6.1: what two ends of one connection say to each other."""
KEPT_BACK = OF_THE_CONNECTION | {
    b"host",
    b"origin",  # checked here, and the CORS fields of the answer are ours
    b"access-control-request-method",
    b"access-control-request-headers",
    b"expect",  # answered here
    b"x-request-id",
    b"x-forwarded-for",
    NODE_HEADER,
    VOUCHED,  # whatever the client makes of it
}
OF_THE_TRACE = frozenset({b"traceparent", b"tracestate"})
NOT_HANDED_BACK = OF_THE_CONNECTION | {b"date", b"server", b"x-request-id", b"alt-svc"}
"""What our own server says of itself, once."""
UNFRAMED_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
"""What may have a body; over HTTP/2 it need not say so."""


def handed_on(head: Head, scope: Scope, peer: Peer, by: UUID, vouched: Headers = ()) -> Headers:
    """The fields of the request as the other node gets it.

    Args:
        head: The request.
        scope: The same, with every field as it came, and its id.
        peer: Who gets it.
        by: Our own node.
        vouched: What we say of the client (`Vouching.fields`).
    """
    pairs = [(name.lower(), value) for name, value in scope["headers"]]
    span = _span_fields()
    dropped = KEPT_BACK | _named(pairs) | (OF_THE_TRACE if span else frozenset())
    came = head.fields.get(b"x-forwarded-for")
    own = [
        (b"host", host_of(peer)),
        (b"x-request-id", str(scope[REQUEST_ID_KEY]).encode("ascii")),
        (b"x-forwarded-for", head.peer.encode() if came is None else came + b", " + head.peer.encode()),
        (NODE_HEADER, str(by).encode()),
        *vouched,
        *span,
    ]
    if b"content-length" not in head.fields and _has_body(head, scope):
        own.append((b"transfer-encoding", b"chunked"))
    return (*own, *((name, value) for name, value in pairs if name not in dropped))


def _span_fields() -> Headers:
    """Our own span, below which the other node puts its own; nothing where none is made, and the client's stay."""
    context = tracing.active.get() if tracing.is_on else None
    if context is None:
        return ()
    state = ((b"tracestate", context.state.encode("ascii")),) if context.state else ()
    return ((b"traceparent", context.traceparent.encode("ascii")), *state)


def handed_back(pairs: list[tuple[bytes, bytes]]) -> Headers:
    """The fields of the other node's answer that are the client's as well."""
    lower = [(name.lower(), value) for name, value in pairs]
    dropped = NOT_HANDED_BACK | _named(lower)
    return tuple((name, value) for name, value in lower if name not in dropped)


def _named(pairs: list[tuple[bytes, bytes]]) -> set[bytes]:
    """What `Connection` names belongs to the connection as well; not the body's length, which somebody may name there."""
    values = [value for name, value in pairs if name == b"connection"]
    return {word.strip().lower() for value in values for word in value.split(b",")} - {b"content-length"}


def _has_body(head: Head, scope: Scope) -> bool:
    if b"transfer-encoding" in head.fields:
        return True
    return not str(scope.get("http_version", "1.1")).startswith("1") and head.method in UNFRAMED_METHODS


def target_of(scope: Scope) -> bytes:
    """Path and query as they came."""
    path: bytes = scope["raw_path"]
    query: bytes = scope.get("query_string", b"")
    return path + b"?" + query if query else path


@define(eq=False)
class _Body(httpx.AsyncByteStream):
    """What the client sends, as it comes. `sent` is set once it is all there."""

    _receive: Receive
    sent: trio.Event = field(factory=trio.Event, init=False)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Raises ClientLeft when the client leaves in the middle."""
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            more = message.get("more_body", False)
            if not more:
                self.sent.set()
            if piece := message.get("body", b""):
                yield piece


@define(eq=False)
class Forwarding:
    """One request on its way. Its client leaves: the connection to the other node is closed; that breaks off: so does ours.

    `read_s` is how long the other node may say nothing, in seconds; `by` is our own; `vouched` what we say of the client.
    """

    peers: Peers
    peer: Peer
    by: UUID
    read_s: float
    head: Head
    scope: Scope
    _receive: Receive
    _send: Send
    vouched: Headers = ()
    outcome: HandedOn | None = field(default=None, init=False)
    """Known once `run` is over."""
    _body: _Body = field(init=False)
    _gone: bool = field(default=False, init=False)
    _begun: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._body = _Body(self._receive)

    async def run(self, lost: trio.CancelScope) -> None:
        """Hand it on and the answer back.

        Args:
            lost: Cancelled by whoever knows that the other node is no more; entered here.

        Raises:
            InstanceUnavailable, InstanceCrashed: there is no answer, as the other node is away.
            ClientLeft: the client left, or the answer broke off and so must ours.
        """
        failed: CorralError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            with lost:
                failed = await self._pass()
            nursery.cancel_scope.cancel()
        if lost.cancelled_caught:
            failed = went_away(self.head.method, "its lease ran out")
        self.outcome = self._outcome(failed)
        if self._gone:
            raise ClientLeft
        if failed is None:
            return
        if self._begun:
            log.warning("the answer of node %s broke off: %s", self.peer.id, failed.evidence.get("reason", failed))
            raise ClientLeft
        raise failed

    def _outcome(self, failed: CorralError | None) -> HandedOn:
        if self._gone:
            return "left"
        if failed is None:
            return "answered"
        return "broken" if self._begun else "unreachable"

    async def _pass(self) -> CorralError | None:
        headers = handed_on(self.head, self.scope, self.peer, self.by, self.vouched)
        target = target_of(self.scope)
        try:
            async with self.peers.asking(
                self.peer, self.head.method, target, headers, self._body, read_s=self.read_s
            ) as answer:
                self._body.sent.set()  # it may have answered without reading all of it
                await self._hand_back(answer)
        except ClientLeft:
            self._gone = True
        except CorralError as error:
            return error
        except httpx.TransportError as error:
            return went_away(self.head.method, str(error))
        return None

    async def _hand_back(self, answer: httpx.Response) -> None:
        self._begun = True
        await send_start(self._send, answer.status_code, handed_back(answer.headers.raw))
        length = answer.headers.get("content-length", "")
        left = int(length) if length.isdecimal() else None
        ended = False
        async for piece in answer.aiter_raw():
            if left is not None:
                left -= len(piece)
                ended = left == 0
            await send_body(self._send, piece, more=not ended)
        if not ended:
            await send_body(self._send, b"")

    async def _watch(self, scope: trio.CancelScope) -> None:
        await self._body.sent.wait()
        await wait_disconnected(self._receive)
        self._gone = True
        scope.cancel()
