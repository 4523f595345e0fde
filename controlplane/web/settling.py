"""A request's outcome, waited for in silence, or with the instance's events on the way to it.

As events: what happens to the instance, its build's output included, comes as on
its own stream; the last event is the answer that the request would have had.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

import msgspec
import trio
from attrs import define, field, frozen

from controlplane.errors import CorralError
from controlplane.web.call import SSE_TYPE, Reply, encode
from controlplane.web.problems import problem
from controlplane.web.sse import SSE_HEADERS, frames

if TYPE_CHECKING:
    from types import TracebackType

    from controlplane.hub import Hub, Subscription
    from controlplane.web.auditing import Entry
    from controlplane.web.call import Call

_LAGGED = b'"type":"lagged"'
_END = b"\n\n"


@frozen(kw_only=True)
class Outcome:
    """Something that an instance is on its way to.

    Args:
        wait: Returns when it is there, or after so many seconds; may be asked again and again.
        reply: The answer as things are now. Raises the `CorralError` that is the answer instead.
    """

    wait: Callable[[float], Awaitable[None]]
    reply: Callable[[], Reply]


async def answer(call: Call, outcome: Outcome, events: Subscription | None) -> Reply:
    """Wait for it as long as the caller asks (`wait`), and answer; with `events` as a stream."""
    if events is None:
        await outcome.wait(call.query.wait)
        return outcome.reply()
    if call.entry is not None:
        call.entry.has_outcome = True
    until = trio.current_time() + call.query.wait
    source = _Settling(call.services.hub, events, outcome, until, call.request_id, call.entry)
    return Reply(200, frames(source, call.principal, call.services.tokens), SSE_TYPE, SSE_HEADERS)


@define(eq=False)
class _Settling:
    """The events of an instance up to the outcome, then the outcome. A `sse.Source`."""

    _hub: Hub
    _events: Subscription
    _outcome: Outcome
    _until: float
    _request_id: str
    _entry: Entry | None
    _ready: list[bytes] = field(factory=list, init=False)
    """Taken, and not yet handed out: whoever takes may be cancelled in between."""
    _settled: bool = field(default=False, init=False)
    _over: bool = field(default=False, init=False)

    async def take(self) -> bytes:
        """Wait for frames; raises trio.EndOfChannel at the end."""
        if self._over:
            raise trio.EndOfChannel
        if not self._ready and not self._settled:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._wait_outcome, nursery.cancel_scope)
                await self._take_events()
                nursery.cancel_scope.cancel()
        if self._settled:
            while self._events.queued_bytes:
                await self._take_events()
            self._ready.append(self._last())
            self._over = True
        data = b"".join(self._ready)
        self._ready.clear()
        return data

    async def _wait_outcome(self, scope: trio.CancelScope) -> None:
        await self._outcome.wait(max(0.0, self._until - trio.current_time()))
        self._settled = True
        scope.cancel()

    async def _take_events(self) -> None:
        """Put the next frames into `_ready`; where there are no more, only the outcome is waited for."""
        try:
            data = await self._events.take()
        except trio.EndOfChannel:
            await trio.sleep_forever()
        if self._events.closed and _LAGGED in data:
            data = self._catch_up(data)
        self._ready.append(data)

    def _catch_up(self, data: bytes) -> bytes:
        """A build can print faster than anybody reads: go on in the ring, and say how much is not there any more."""
        topic = self._events.topic
        assert topic is None or isinstance(topic, UUID)
        last_event_id = f"{self._hub.epoch}-{self._events.reached}"
        self._events = self._hub.subscribe(instance_id=topic, last_event_id=last_event_id)
        kept = [frame for frame in data.split(_END) if frame and _LAGGED not in frame]
        return b"".join(frame + _END for frame in kept)

    def _last(self) -> bytes:
        try:
            reply = self._outcome.reply()
        except CorralError as error:
            document = problem(error, request_id=self._request_id)
            last: dict[str, Any] = {"type": "problem", "status": document.status, "problem": msgspec.Raw(document.body)}
        else:
            assert isinstance(reply.body, bytes)
            last = {"type": "result", "status": reply.status, "instance": msgspec.Raw(reply.body)}
        if self._entry is not None:
            self._entry.close(last["status"])
        return b"data: %b\n\n" % encode(last)

    def close(self) -> None:
        self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._events.__exit__(kind, error, traceback)
