"""The routes that are served in front of Quart, as ASGI handlers: `execute`, `stream`, `events`, the MCP endpoint.

Everything works through these alone; the hot lane only answers plain POSTs
sooner, with the same `Executor` and the same `McpEndpoint`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, cast

import trio
from attrs import define, field

from controlplane.errors import CorralError, MethodNotAllowed, NotAcceptable
from controlplane.model import Role
from controlplane.web import guards, sse, traced
from controlplane.web.asgi import send_answer, send_body, send_start
from controlplane.web.asgi_exchange import Caller, Exchange, read_body
from controlplane.web.asgi_mcp import AsgiMcp
from controlplane.web.execute import Executor
from controlplane.web.limited import OnlySource
from controlplane.web.mcp.answers import frame as frame_of
from controlplane.web.mcp.answers import notification
from controlplane.web.mcp_path import MCP_PATH
from controlplane.web.problems import STEADY_HEADERS, Answer, problem
from controlplane.web.request import accepts_events, prefers_events

if TYPE_CHECKING:
    from controlplane.hub import Subscription
    from controlplane.model import Principal
    from controlplane.web.meters import Route
    from controlplane.web.request import Head
    from controlplane.web.services import Services

NOTIFICATIONS_MAX = 256
"""Notifications of one call that wait for its caller; what does not fit is dropped, the answer never is."""
PROTOCOL_FIELDS = frozenset({b"mcp-session-id", b"mcp-protocol-version"})
"""Either of them says that an MCP client is speaking."""
KEEPALIVE_S = 15.0
"""An event stream says something at least this often, so that proxies keep it."""
Kind = Literal["execute", "stream", "events", "mcp", "sse", "messages"]
METHODS: Mapping[Kind, tuple[str, ...]] = {
    "execute": ("POST", "OPTIONS"),
    "stream": ("GET", "HEAD", "OPTIONS"),
    "events": ("GET", "HEAD", "OPTIONS"),
    "mcp": ("POST", "GET", "DELETE", "OPTIONS"),
    "sse": ("GET", "OPTIONS"),
    "messages": ("POST", "OPTIONS"),
}
"""What each route takes; the first is the one to use."""


def match(head: Head) -> tuple[Kind, str] | None:
    """The route served here and the instance it names; None when the request is Quart's.

    A DELETE on an endpoint that carries no field of the protocol is no MCP client's: it removes the instance.
    """
    if head.path == "/events":
        return "events", ""
    found = MCP_PATH.fullmatch(head.path)
    if found is None:
        return None
    kind = cast("Kind", found[2] or "mcp")
    if kind == "mcp" and head.method == "DELETE" and head.fields.keys().isdisjoint(PROTOCOL_FIELDS):
        return None
    return kind, found[1]


def meter_of(found: tuple[Kind, str] | None) -> Route:
    """The name that an answer is counted under."""
    if found is None:
        return "api"
    kind = found[0]
    return "mcp" if kind == "sse" or kind == "messages" else kind  # noqa: PLR1714 - mypy narrows by these alone


@define(eq=False)
class AsgiRoutes:
    """The handlers. Each raises the error that is its answer, unless it has begun to answer."""

    services: Services
    executor: Executor = field(init=False)
    mcp: AsgiMcp = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.executor = Executor(self.services)
        self.mcp = AsgiMcp(self.services)

    async def handle(self, kind: Kind, ref: str, exchange: Exchange) -> None:
        """Answer one request that `match` found; Host and Origin have been checked."""
        allowed = METHODS[kind]
        if exchange.head.method == "OPTIONS":
            await self._options(exchange, allowed)
            return
        if exchange.head.method not in allowed:
            self.services.guards.authenticate(exchange.head)
            methods = " or ".join(method for method in allowed if method not in {"HEAD", "OPTIONS"})
            raise MethodNotAllowed(f"Use {methods}.", evidence={"allow": allowed})
        match kind:
            case "execute":
                await self._execute(ref, exchange)
            case "mcp":
                await self.mcp.endpoint(ref, exchange)
            case "sse":
                await self.mcp.sse(ref, exchange)
            case "messages":
                await self.mcp.messages(ref, exchange)
            case _:
                await self._stream(ref if kind == "stream" else None, exchange)

    async def _options(self, exchange: Exchange, allowed: tuple[str, ...]) -> None:
        fields = self.services.guards.preflight(exchange.head, allowed)
        await send_answer(exchange.send, Answer(204, (*fields, *STEADY_HEADERS), b""))

    # -- streams

    async def _stream(self, ref: str | None, exchange: Exchange) -> None:
        head, services = exchange.head, self.services
        principal = services.guards.authenticate(head)
        services.guards.check_role(head, principal, Role.VIEWER)
        guards.check_no_query(head)
        if not accepts_events(head.get(b"accept")):
            raise NotAcceptable("This route answers text/event-stream only.")
        if head.method == "HEAD":
            if ref is not None:
                services.supervisor.find(principal, ref)
            await send_answer(exchange.send, Answer(200, sse.SSE_HEADERS, b""))
            return
        source: sse.Source = self._subscribe(ref, principal, head)
        if ref is None and principal.is_limited:
            source = OnlySource(source, principal, services.supervisor)
        await sse.stream(source, principal, services.tokens, exchange.receive, exchange.send)

    def _subscribe(self, ref: str | None, principal: Principal, head: Head) -> Subscription:
        last = head.get(b"last-event-id")
        last_event_id = last.decode("latin-1") if last is not None else None
        hub = self.services.hub
        if ref is None:
            owner = None if principal.crosses_owners else principal.owner
            return hub.subscribe(owner=owner, last_event_id=last_event_id)
        runner = self.services.supervisor.find(principal, ref)
        return hub.subscribe(instance_id=runner.instance.id, last_event_id=last_event_id)

    # -- calls

    async def _execute(self, ref: str, exchange: Exchange) -> None:
        principal = self.executor.admit(exchange.head).principal
        self.services.supervisor.find(principal, ref)  # a wrong name is answered before the body is read
        with self.services.guards.bodies.reserved(guards.content_length(exchange.head)):
            body = await read_body(exchange.receive)
            if prefers_events(exchange.head.get(b"accept")):
                await _EventAnswer(self.executor, principal, ref, body, exchange).run()
            else:
                await self._answer(principal, ref, body, exchange)

    async def _answer(self, principal: Principal, ref: str, body: bytes, exchange: Exchange) -> None:
        caller = Caller(exchange.receive)
        answer = b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller.watch, nursery.cancel_scope)
            answer = await self.executor.answer(
                principal, ref, body, caller.is_gone, traced_by=traced.fields_of(exchange.head)
            )
            nursery.cancel_scope.cancel()
        if not caller.gone:
            headers = ((b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode()))
            await send_answer(exchange.send, Answer(200, (*headers, *STEADY_HEADERS), answer))


@define(eq=False)
class _EventAnswer:
    """One call answered as an event stream: notifications as they come, then the answer.

    The status is sent with the first event, so a call that fails before it said
    anything is a plain problem; after that, a failure is a last event `problem`.
    """

    executor: Executor
    principal: Principal
    ref: str
    body: bytes
    exchange: Exchange
    _caller: Caller = field(init=False)
    _started: bool = field(default=False, init=False)
    _relayed: trio.Event = field(factory=trio.Event, init=False)

    async def run(self) -> None:
        self._caller = Caller(self.exchange.receive)
        inlet, outlet = trio.open_memory_channel[bytes](NOTIFICATIONS_MAX)
        last: bytes | CorralError = b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._caller.watch, nursery.cancel_scope)
            nursery.start_soon(self._relay, outlet)
            last = await self._call(inlet)
            inlet.close()
            await self._relayed.wait()
            nursery.cancel_scope.cancel()
        if not self._caller.gone:
            await self._finish(last)

    async def _call(self, inlet: trio.MemorySendChannel[bytes]) -> bytes | CorralError:
        def notify(method: str, params: bytes | None) -> None:
            # Dropped when the caller reads too slowly or the call is over: notifications are not promised.
            with suppress(trio.WouldBlock, trio.ClosedResourceError):
                inlet.send_nowait(notification(method, params))

        try:
            traced_by = traced.fields_of(self.exchange.head)
            return await self.executor.answer(
                self.principal, self.ref, self.body, self._caller.is_gone, notify, traced_by=traced_by
            )
        except CorralError as error:
            return error

    async def _relay(self, outlet: trio.MemoryReceiveChannel[bytes]) -> None:
        """Write what the call says, and something every `KEEPALIVE_S`."""
        while True:
            frame = b": still waiting\n\n"
            with trio.move_on_after(KEEPALIVE_S):
                try:
                    frame = frame_of(await outlet.receive())
                except trio.EndOfChannel:
                    break
            await self._write(frame)
        self._relayed.set()

    async def _write(self, frame: bytes) -> None:
        if not self._started:
            self._started = True
            await send_start(self.exchange.send, 200, sse.SSE_HEADERS)
        await send_body(self.exchange.send, frame, more=True)

    async def _finish(self, last: bytes | CorralError) -> None:
        if isinstance(last, CorralError):
            if not self._started:
                raise last
            last_frame = b"event: problem\n" + frame_of(problem(last, request_id=self.exchange.request_id).body)
        else:
            last_frame = frame_of(last)
        await self._write(last_frame)
        await send_body(self.exchange.send, b"")
