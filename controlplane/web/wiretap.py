"""An instance's JSON-RPC traffic, live, as an event stream: `tcpdump` for MCP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

import trio
from attrs import define, field, frozen

from controlplane.errors import Busy, NotAcceptable
from controlplane.model import Role
from controlplane.supervise.wiretap import WATCHERS_MAX, Wanted
from controlplane.web.call import SSE_TYPE, Call, Reply
from controlplane.web.request import accepts_events
from controlplane.web.route import Route
from controlplane.web.sse import SSE_HEADERS, frames
from controlplane.wire.fields import bounded

if TYPE_CHECKING:
    from types import TracebackType

    from controlplane.hub import Subscription
    from controlplane.supervise.wiretap import Wiretap

METHODS_MAX = 32


@frozen(kw_only=True)
class WireQuery:
    """Which messages; all that is given must hold."""

    method: list[str] | None = bounded(
        None,
        maxItems=METHODS_MAX,
        items={"minLength": 1, "maxLength": 128},
        description=(
            "Only messages of these methods, and answers to them; `tools/*` is all that begin so. Repeat it or use commas."
        ),
    )
    direction: Literal["to_server", "from_server"] | None = bounded(None, description="Only one way.")

    @property
    def wanted(self) -> Wanted:
        return Wanted(frozenset(self.method or ()), self.direction)


async def stream_wire(call: Call) -> Reply:
    """Follow what passes between Corral and an instance's processes."""
    runner = call.find_runner()
    if not accepts_events(call.head.get(b"accept")):
        raise NotAcceptable("This route answers text/event-stream only.")
    if call.head.method == "HEAD":
        return Reply(200, b"", SSE_TYPE, SSE_HEADERS)
    if runner.wiretap.is_crowded:
        raise Busy(f"{WATCHERS_MAX} readers watch this instance already", retry_after_s=30)
    is_back = call.head.get(b"last-event-id") is not None
    source = WireSource(runner.wiretap, call.query.wanted, is_back)
    return Reply(200, frames(source, call.principal, call.services.tokens), SSE_TYPE, SSE_HEADERS)


@define(eq=False)
class WireSource:
    """Listens from the moment in which it is entered: an answer that nobody begins to read costs nothing."""

    _wiretap: Wiretap
    _wanted: Wanted
    _is_back: bool
    _subscription: Subscription | None = field(default=None, init=False)

    async def take(self) -> bytes:
        """Wait for frames; raises trio.EndOfChannel at the end."""
        if self._subscription is None:
            raise trio.EndOfChannel
        return await self._subscription.take()

    def close(self) -> None:
        if self._subscription is not None:
            self._subscription.close()

    def __enter__(self) -> Self:
        self._subscription = self._wiretap.listen(self._wanted, is_back=self._is_back)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._subscription is not None:
            self._subscription.__exit__(kind, error, traceback)


ROUTES = (
    Route(
        "GET",
        "/instances/{id}/wire",
        stream_wire,
        operation="streamWire",
        summary="Watch an instance's JSON-RPC traffic",
        description=(
            "Server-sent events without `event:` names: `connected`, then a `wire` for each message between Corral and any of"
            " the instance's processes, both ways, as it passes; nothing is kept. `frame` is the message's text without"
            " secrets, cut at 65,536 characters (`truncated`); `method` and `ms` of an answer are those of its request."
            " Heartbeats, `gap`, `lagged` and `shutdown` as in the other streams. It shows what other callers send and get,"
            " so it takes the role `deployer`."
        ),
        tag="Events",
        role=Role.DEPLOYER,
        query=WireQuery,
        answers={200: "text/event-stream"},
        problems=("not_found", "not_acceptable", "busy"),
        audited=True,
        headers={
            "Last-Event-ID": {"description": "Any: the reader is back, and is told of a `gap`; nothing is replayed."}
        },
    ),
)
