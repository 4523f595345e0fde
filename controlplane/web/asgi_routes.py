"""The routes that are served in front of Quart: `execute`, `stream` and `events`, as ASGI handlers.

Everything works through these alone; the hot lane only answers plain `execute`
requests sooner, with the same `Executor`.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

import trio
from attrs import define, field, frozen

from controlplane.errors import CorralError, MalformedJson, MethodNotAllowed, NotAcceptable
from controlplane.model import Role
from controlplane.web import guards, sse
from controlplane.web.asgi import Receive, Send, send_answer, send_body, send_start, wait_disconnected
from controlplane.web.execute import Executor, notification
from controlplane.web.problems import STEADY_HEADERS, Answer, problem
from controlplane.web.request import accepts_events, prefers_events

if TYPE_CHECKING:
    from controlplane.hub import Subscription
    from controlplane.model import Principal
    from controlplane.web.meters import Route
    from controlplane.web.request import Head
    from controlplane.web.services import Services

BODY_TIMEOUT_S = 60.0
"""For the whole body of a call."""
NOTIFICATIONS_MAX = 256
"""Notifications of one call that wait for its caller; what does not fit is dropped, the answer never is."""
KEEPALIVE_S = 15.0
"""An event stream says something at least this often, so that proxies keep it."""
GONE_GRACE_S = 1.0
"""How long a call may take to notice `is_gone` before it is cancelled."""

_MCP_PATH = re.compile(r"/mcp/([^/]+(?:/[^/]+)?)/(execute|stream)")


class ClientGone(Exception):
    """The client left before its request was complete: there is nobody to answer."""


@frozen(slots=True)
class Exchange:
    """One request with the means to answer it."""

    head: Head
    request_id: str
    receive: Receive
    send: Send


def match(path: str) -> tuple[Route, str] | None:
    """The route served here and the instance it names; None when the path is Quart's."""
    if path == "/events":
        return "events", ""
    found = _MCP_PATH.fullmatch(path)
    if found is None:
        return None
    return ("execute" if found[2] == "execute" else "stream"), found[1]


@define(eq=False)
class AsgiRoutes:
    """The handlers. Each raises the error that is its answer, unless it has begun to answer."""

    services: Services
    executor: Executor = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.executor = Executor(self.services)

    async def handle(self, route: Route, ref: str, exchange: Exchange) -> None:
        """Answer one request that `match` found; Host and Origin have been checked."""
        allowed = ("POST", "OPTIONS") if route == "execute" else ("GET", "HEAD", "OPTIONS")
        if exchange.head.method == "OPTIONS":
            await self._options(exchange, allowed)
            return
        if exchange.head.method not in allowed:
            self.services.guards.authenticate(exchange.head)
            raise MethodNotAllowed(f"Use {allowed[0]}.", evidence={"allow": allowed})
        if route == "execute":
            await self._execute(ref, exchange)
        else:
            await self._stream(ref if route == "stream" else None, exchange)

    async def _options(self, exchange: Exchange, allowed: tuple[str, ...]) -> None:
        fields = self.services.guards.preflight(exchange.head, allowed)
        await send_answer(exchange.send, Answer(204, (*fields, *STEADY_HEADERS), b""))

    # -- streams

    async def _stream(self, ref: str | None, exchange: Exchange) -> None:
        head, services = exchange.head, self.services
        principal = services.guards.authenticate(head)
        guards.require(principal, Role.VIEWER)
        guards.check_no_query(head)
        if not accepts_events(head.get(b"accept")):
            raise NotAcceptable("This route answers text/event-stream only.")
        if head.method == "HEAD":
            if ref is not None:
                services.supervisor.find(principal, ref)
            await send_answer(exchange.send, Answer(200, sse.SSE_HEADERS, b""))
            return
        subscription = self._subscribe(ref, principal, head)
        await sse.stream(subscription, principal, services.tokens, exchange.receive, exchange.send)

    def _subscribe(self, ref: str | None, principal: Principal, head: Head) -> Subscription:
        last = head.get(b"last-event-id")
        last_event_id = last.decode("latin-1") if last is not None else None
        hub = self.services.hub
        if ref is None:
            return hub.subscribe(owner=None if principal.is_admin else principal.owner, last_event_id=last_event_id)
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
        caller = _Caller(exchange.receive)
        answer = b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller.watch, nursery.cancel_scope)
            answer = await self.executor.answer(principal, ref, body, caller.is_gone)
            nursery.cancel_scope.cancel()
        if not caller.gone:
            headers = ((b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode()))
            await send_answer(exchange.send, Answer(200, (*headers, *STEADY_HEADERS), answer))


async def read_body(receive: Receive) -> bytes:
    """Read a whole body; its size is bounded by the `BodyGuard` around.

    Raises:
        ClientGone: the client left in the middle.
        MalformedJson: it took too long.
    """
    chunks: list[bytes] = []
    with trio.move_on_after(BODY_TIMEOUT_S):
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunks.append(message.get("body", b""))
            if not message.get("more_body", False):
                return b"".join(chunks)
    raise MalformedJson(f"The body did not arrive within {BODY_TIMEOUT_S:g} s.")


@define(eq=False)
class _Caller:
    """Whether the client of one call is still there."""

    _receive: Receive
    gone: bool = field(default=False, init=False)

    def is_gone(self) -> bool:
        return self.gone

    async def watch(self, scope: trio.CancelScope) -> None:
        """Note that the client left; cancel the call if it does not end by itself."""
        await wait_disconnected(self._receive)
        self.gone = True
        await trio.sleep(GONE_GRACE_S)
        scope.cancel()


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
    _caller: _Caller = field(init=False)
    _started: bool = field(default=False, init=False)
    _relayed: trio.Event = field(factory=trio.Event, init=False)

    async def run(self) -> None:
        self._caller = _Caller(self.exchange.receive)
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
            return await self.executor.answer(self.principal, self.ref, self.body, self._caller.is_gone, notify)
        except CorralError as error:
            return error

    async def _relay(self, outlet: trio.MemoryReceiveChannel[bytes]) -> None:
        """Write what the call says, and something every `KEEPALIVE_S`."""
        while True:
            frame = b": still waiting\n\n"
            with trio.move_on_after(KEEPALIVE_S):
                try:
                    frame = _frame(await outlet.receive())
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
            last_frame = b"event: problem\n" + _frame(problem(last, request_id=self.exchange.request_id).body)
        else:
            last_frame = _frame(last)
        await self._write(last_frame)
        await send_body(self.exchange.send, b"")


def _frame(message: bytes) -> bytes:
    """One SSE event; raw JSON of a child may have line breaks between its tokens."""
    return b"data: %b\n\n" % message.replace(b"\r", b" ").replace(b"\n", b" ")
