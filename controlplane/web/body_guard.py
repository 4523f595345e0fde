"""What an ASGI application cannot be trusted to do with a request's body, done around it.

Hypercorn on Trio puts a body into a queue of ten messages and waits; Quart-Trio
takes it all into memory. So here, around every application:

- the limit counts bytes, declared or chunked, and ends the request with 413;
- who reads a body piece by piece may say how far it may run ahead (`BodyFlow`);
- what nobody read is drained, or the connection would hang on the full queue;
- `http.disconnect` is held back while the last piece of the answer is sent:
  Quart-Trio (0.12 and 0.13) would cancel that very send, and then the
  connection is neither reused nor closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from attrs import define, field

from controlplane.web.asgi import BODY_FLOW_KEY, REQUEST_ID_KEY, App, Message, Receive, Scope, Send, send_answer
from controlplane.web.guards import too_large
from controlplane.web.problems import problem
from controlplane.web.request import new_request_id

if TYPE_CHECKING:
    from collections.abc import Callable

KEEP_DRAIN_BYTES = 64 * 1024
"""A body up to this size that nobody wants is read before the answer ends, so that the connection can be kept."""
KEEP_DRAIN_S = 1.0
LATE_DRAIN_S = 10.0
"""How long a larger one is swallowed after the answer; the server closes the connection meanwhile."""


@define(eq=False)
class BodyFlow:
    """Keeps a body from arriving faster than it is used; without `hold` it arrives as fast as it can."""

    _window: int | None = field(default=None, init=False)
    _ahead: int = field(default=0, init=False)
    _room: trio.Event = field(factory=trio.Event, init=False)

    def hold(self, window_bytes: int) -> None:
        """Let no more than this arrive before it is used, but for one piece."""
        self._window = window_bytes

    def used(self, size_bytes: int) -> None:
        """So much of what arrived is done with."""
        self._ahead -= size_bytes
        self._room.set()
        self._room = trio.Event()

    def arrived(self, size_bytes: int) -> None:
        self._ahead += size_bytes

    async def wait_room(self) -> None:
        """Until more may arrive."""
        while self._window is not None and self._ahead > self._window:
            await self._room.wait()


@define(eq=False)
class BodyGuard:
    """ASGI middleware. `limit_for` gives the limit in bytes for a request's scope."""

    app: App
    limit_for: Callable[[Scope], int]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        flow = scope[BODY_FLOW_KEY] = BodyFlow()
        exchange = _Exchange(receive, send, self.limit_for(scope), _declared(scope), flow)
        await exchange.run(self.app, scope)


@define(eq=False)
class _Exchange:
    """One request and its answer."""

    _receive: Receive
    _send: Send
    _limit: int
    _declared: int | None
    _flow: BodyFlow
    _seen: int = field(default=0, init=False)
    _receiving: int = field(default=0, init=False)
    _started: bool = field(default=False, init=False)
    _ending: bool = field(default=False, init=False)
    _over: bool = field(default=False, init=False)
    _complete: trio.Event = field(factory=trio.Event, init=False)
    _scope: trio.CancelScope = field(factory=trio.CancelScope, init=False)

    async def run(self, app: App, scope: Scope) -> None:
        self._over = self._declared is not None and self._declared > self._limit
        if not self._over:
            with self._scope:
                await app(scope, self.receive, self.send)
        if self._over and not self._started:
            request_id = scope.get(REQUEST_ID_KEY) or new_request_id()
            await send_answer(self.send, problem(too_large(self._limit), request_id=request_id))
        with trio.move_on_after(LATE_DRAIN_S):
            await self._drain()

    async def receive(self) -> Message:
        self._receiving += 1
        try:
            await self._flow.wait_room()
            message = await self._receive()
        finally:
            self._receiving -= 1
        if message["type"] == "http.disconnect":
            self._complete.set()
            if self._ending:
                await trio.sleep_forever()
            return message
        self._note(message)
        self._flow.arrived(len(message.get("body", b"")))
        if self._seen > self._limit:
            self._over = True
            self._scope.cancel()
            await trio.sleep_forever()
        return message

    async def send(self, message: Message) -> None:
        self._started = True
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._ending = True
            if not self._complete.is_set() and self._declared is not None and self._declared <= KEEP_DRAIN_BYTES:
                with trio.move_on_after(KEEP_DRAIN_S):
                    await (self._complete.wait() if self._receiving else self._drain())
        await self._send(message)

    def _note(self, message: Message) -> None:
        self._seen += len(message.get("body", b""))
        if not message.get("more_body", False):
            self._complete.set()

    async def _drain(self) -> None:
        while not self._complete.is_set():
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._complete.set()
            else:
                self._note(message)


def _declared(scope: Scope) -> int | None:
    """The declared size in bytes; 0 when the request says by its fields that it has no body."""
    names: dict[bytes, bytes] = dict(scope["headers"])
    value = names.get(b"content-length")
    if value is not None:
        return int(value) if value.isdigit() and len(value) < 19 else None
    return None if b"transfer-encoding" in names else 0
