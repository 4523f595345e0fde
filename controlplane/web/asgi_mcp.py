"""`/mcp/{ref}` as ASGI: every method of the MCP endpoint, with the way back to the client that it may stream on.

What is said is the endpoint's business (`mcp.endpoint`); here are the checks
that need no endpoint, the body, and the end of a stream: it ends in order when
the token behind it is revoked, and at once when the client leaves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import trio
from attrs import define, field, frozen

from controlplane.errors import NotAcceptable
from controlplane.web import guards
from controlplane.web.asgi import send_answer, send_body, send_start
from controlplane.web.asgi_exchange import Caller, Exchange, read_body
from controlplane.web.mcp.outlet import ClientLeft, Reply
from controlplane.web.problems import STEADY_HEADERS, Answer
from controlplane.web.query import parse_query
from controlplane.web.sse import SSE_HEADERS
from controlplane.wire.fields import bounded

if TYPE_CHECKING:
    from controlplane.model import Principal
    from controlplane.supervise.accounts import Account
    from controlplane.web.mcp.outlet import Headers, Outlet
    from controlplane.web.request import Head
    from controlplane.web.services import Services


@frozen(kw_only=True)
class MessagesQuery:
    """Of `/mcp/{ref}/messages`."""

    session: str | None = bounded(
        None, minLength=1, maxLength=256, description="As the first event of the stream says."
    )


Handler = Callable[["Outlet"], Awaitable[Reply | None]]


@define(eq=False)
class AsgiMcp:
    """The handlers. Each raises the error that is its answer, unless it has begun to answer."""

    services: Services

    async def endpoint(self, ref: str, exchange: Exchange) -> None:
        """POST, GET or DELETE of `/mcp/{ref}`; a DELETE that is not the protocol's is not for here (`asgi_routes.match`)."""
        mcp, head = self.services.mcp, exchange.head
        if head.method == "GET" and _is_browser(head):
            raise NotAcceptable(
                "This URL is the MCP endpoint of an instance: MCP clients post JSON-RPC messages to it.",
                hint="Give it to an MCP client, together with a token; /docs describes it.",
            )
        grant = mcp.admit(head)
        self.services.supervisor.find(grant.principal, ref)  # a wrong name is answered before the body is read
        if head.method == "DELETE":
            await _send(exchange, await mcp.delete(grant, ref, head))
        elif head.method == "GET":
            await self._answer(exchange, grant.principal, partial(mcp.get, grant, ref, head))
        else:
            with self.services.guards.bodies.reserved(guards.content_length(head)):
                post = partial(mcp.post, grant, ref, head, await read_body(exchange.receive))
                await self._answer(exchange, grant.principal, post)

    async def sse(self, ref: str, exchange: Exchange) -> None:
        """GET of `/mcp/{ref}/sse`."""
        mcp, head = self.services.mcp, exchange.head
        grant = mcp.admit(head)
        self.services.supervisor.find(grant.principal, ref)
        await self._answer(exchange, grant.principal, partial(mcp.get_sse, grant, ref, head))

    async def messages(self, ref: str, exchange: Exchange) -> None:
        """POST of `/mcp/{ref}/messages`."""
        mcp, head = self.services.mcp, exchange.head
        grant = mcp.admit(head)
        parse_query(head.query, MessagesQuery)
        self.services.supervisor.find(grant.principal, ref)
        with self.services.guards.bodies.reserved(guards.content_length(head)):
            post = partial(mcp.post_message, grant, ref, head, await read_body(exchange.receive))
            await self._answer(exchange, grant.principal, post)

    async def _answer(self, exchange: Exchange, principal: Principal, handler: Handler) -> None:
        caller = Caller(exchange.receive)
        outlet = AsgiOutlet(exchange, caller)
        reply: Reply | None = None
        left = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller.watch, nursery.cancel_scope)
            outlet.on_begin = partial(self.services.tokens.on_revoked, principal, nursery.cancel_scope.cancel)
            try:
                reply = await handler(outlet)
            except ClientLeft:
                left = True
            finally:
                outlet.release()
            nursery.cancel_scope.cancel()
        if left or caller.gone:
            raise ClientLeft
        if outlet.begun:
            await outlet.finish()
        elif reply is not None:
            await _send(exchange, reply)
        else:
            raise RuntimeError("the MCP endpoint gave no answer")


async def _send(exchange: Exchange, reply: Reply) -> None:
    await send_answer(exchange.send, Answer(reply.status, (*reply.fields, *STEADY_HEADERS), reply.body))


def _is_browser(head: Head) -> bool:
    """Whether a person has opened this in a browser, which is told what it is, with a token or without."""
    accept = head.get(b"accept") or b""
    return b"text/html" in accept and b"text/event-stream" not in accept


@define(eq=False)
class AsgiOutlet:
    """The `Outlet` of one request. Once that is over, nothing is written any more, whoever still holds this."""

    _exchange: Exchange
    _caller: Caller
    on_begin: Callable[[], Callable[[], None]] | None = field(default=None, init=False)
    """Starts to watch the token; returns what stops that."""
    account: Account | None = field(default=None, init=False)
    begun: bool = field(default=False, init=False)
    _ended: bool = field(default=False, init=False)
    _over: bool = field(default=False, init=False)
    _unwatch: Callable[[], None] | None = field(default=None, init=False)

    def is_gone(self) -> bool:
        return self._caller.gone

    def outlive(self) -> None:
        self._caller.outlives = True

    async def begin(self, headers: Headers = ()) -> None:
        self._check(begun=False)
        if self.on_begin is not None:
            self._unwatch = self.on_begin()
        self.begun = True
        await send_start(self._exchange.send, 200, (*SSE_HEADERS, *headers))

    async def send(self, frame: bytes) -> None:
        self._check(begun=True)
        if self.account is not None:
            self.account.bytes_out += len(frame)
        await send_body(self._exchange.send, frame, more=True)

    async def end(self) -> None:
        if not self._over:
            self._check(begun=True)
            await self.finish()
            self.release()

    async def finish(self) -> None:
        """Send the end of the stream, unless it has been."""
        if not self._ended:
            self._ended = True
            await send_body(self._exchange.send, b"")

    def release(self) -> None:
        """The request is over: the endpoint writes nothing from now on."""
        self._over = True
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None

    def _check(self, *, begun: bool) -> None:
        """Raises ClientLeft when nothing can be written; a stream that is begun twice, or not at all, is a bug."""
        if self._over or self._caller.gone:
            raise ClientLeft
        if self.begun is not begun:
            raise RuntimeError("a stream begins once, before anything is sent on it")
