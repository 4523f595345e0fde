"""`subscriptions/listen` (MCP 2026-07-28): a stream of what changes, for as long as a modern client stays.

A modern server keeps the subscription itself; it has Corral's own id, which is
replaced by the client's. For servers that know no such thing Corral filters
what they tell, and subscribes to the resources that somebody listens to.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio
from attrs import define, field

from controlplane.core.jsonrpc import INVALID_PARAMS
from controlplane.core.rawjson import encode
from controlplane.errors import CorralError
from controlplane.protocol.audience import TooManySubscriptions
from controlplane.protocol.listening import listen_ended, listen_filter, tagged
from controlplane.protocol.members import error, is_error
from controlplane.protocol.pending import CALLER_GONE, Told
from controlplane.supervise import calls
from controlplane.web.mcp.answers import answer, frame
from controlplane.web.mcp.streams import KEEPALIVE, KEEPALIVE_S

if TYPE_CHECKING:
    from controlplane.protocol.listening import ListenFilter
    from controlplane.protocol.pending import Asked, Call
    from controlplane.supervise.lane import Lane
    from controlplane.web.mcp.exchange import Exchange
    from controlplane.web.mcp.outlet import Reply

QUEUE_MAX = 256
"""Notifications that wait for one listener; one that falls further behind loses its stream, and listens anew."""
QUEUE_MAX_BYTES = 2 * 2**20
"""And their size; a larger one passes alone."""


@define(eq=False)
class Listening:
    """One listen request, on the lane that its client is served by."""

    exchange: Exchange
    lane: Lane

    # -- a modern server keeps the subscription

    async def relay(self) -> Reply | None:
        """Pass the server's own stream on."""
        exchange, request = self.exchange, self.exchange.request
        pending = self.lane.session.pending
        call = await calls.subscribe(
            self.lane, request.method, request.params, asker=exchange.asker, is_gone=exchange.outlet.is_gone
        )
        try:
            return await self._relay(call)
        except CorralError:
            if not exchange.begun:
                raise
            await exchange.outlet.end()  # without a result: the server is gone, or the client
            return None
        finally:
            pending.give_up(call, CALLER_GONE)

    async def _relay(self, call: Call) -> Reply | None:
        exchange = self.exchange
        raw_id = exchange.request.id
        pending = self.lane.session.pending
        while not isinstance(said := await pending.next(call, trio.current_time() + KEEPALIVE_S), bytes):
            if isinstance(said, Told):
                await exchange.tell(frame(tagged(said.method, said.params, raw_id)))
            elif exchange.begun:
                await exchange.tell(KEEPALIVE)
        return await exchange.finish(said if is_error(said) else listen_ended(raw_id))

    # -- for another server, Corral does

    async def bridge(self) -> Reply | None:
        """Filter what the server tells all its clients."""
        exchange, lane = self.exchange, self.lane
        try:
            wanted = listen_filter(exchange.request.params)
        except ValueError as wrong:
            return exchange.reply(error(INVALID_PARAMS, str(wrong)))
        calls.check_subscriptions(lane)
        listener = Listener(wanted.honoured(lane.facts.capabilities))
        lane.subscriptions += 1
        lane.join(listener)
        try:
            self._subscribe(listener)
            await exchange.tell(frame(listener.filter.acknowledged(exchange.request.id)))
            await self._tell(listener)
            return None
        except TooManySubscriptions:
            return await exchange.finish(error(INVALID_PARAMS, "this server has too many subscriptions already"))
        finally:
            lane.subscriptions -= 1
            lane.leave(listener)

    def _subscribe(self, listener: Listener) -> None:
        session = self.lane.session
        for uri in sorted(listener.filter.uris):
            if session.audience.subscribe(uri, listener):
                session.request_nowait("resources/subscribe", encode({"uri": uri}))

    async def _tell(self, listener: Listener) -> None:
        exchange, raw_id = self.exchange, self.exchange.request.id
        while not exchange.outlet.is_gone():
            told = await listener.next(KEEPALIVE_S)
            if told is not None:
                await exchange.tell(frame(tagged(told.method, told.params, raw_id)))
            elif listener.is_over:
                break
            else:
                await exchange.tell(KEEPALIVE)
        if listener.is_stopped:
            await exchange.tell(frame(answer(raw_id, listen_ended(raw_id))))
        await exchange.outlet.end()


@define(eq=False)
class Listener:
    """A member of a lane's audience that hears what it asked for."""

    filter: ListenFilter
    is_stopped: bool = field(default=False, init=False)
    """The server has come to its end: the subscription ends in order."""
    is_over: bool = field(default=False, init=False)
    _queue: deque[Told] = field(factory=deque, init=False)
    _queued_bytes: int = field(default=0, init=False)
    _changed: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)

    async def next(self, timeout_s: float) -> Told | None:
        """What was told next; None after `timeout_s` seconds, or when it is over."""
        if not self._queue and not self.is_over:
            with trio.move_on_after(timeout_s):
                await self._changed.park()
        if not self._queue:
            return None
        told = self._queue.popleft()
        self._queued_bytes -= len(told.params or b"")
        return told

    @property
    def asker(self) -> object:
        return self

    def on_told(self, method: str, params: bytes | None) -> None:
        if not self.filter.wants(method, params):
            return
        self._queued_bytes += len(params or b"")
        if len(self._queue) >= QUEUE_MAX or (self._queue and self._queued_bytes > QUEUE_MAX_BYTES):
            self._queue.clear()
            self.is_over = True
        elif not self.is_over:
            self._queue.append(Told(method, params))
        self._changed.unpark_all()

    def on_asked(self, asked: Asked) -> bool:  # noqa: ARG002  (a listen stream carries no requests)
        return False

    def on_withdrawn(self, asked_id: bytes, params: bytes | None) -> None:
        """Nothing was asked here."""

    def on_end(self, reason: str) -> None:  # noqa: ARG002
        self.is_over = self.is_stopped = True
        self._changed.unpark_all()
