"""A client's end of an event stream, without a socket: what was written, and a hand on the tap."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import trio
from attrs import define, field

from controlplane.web.mcp.outlet import ClientLeft
from controlplane.wire.sse import SseEvent, SseParser

if TYPE_CHECKING:
    from controlplane.web.mcp.outlet import Headers

CONNECTION_S = 600.0
"""No connection of a test lasts longer."""


@define(eq=False)
class Client:
    """An `Outlet` that keeps what it was sent."""

    sent: list[bytes] = field(factory=list)
    headers: Headers | None = None
    gone: bool = False
    ended: bool = False
    tap: trio.Event | None = None
    """While it is set to an unset event, the client takes nothing."""

    def is_gone(self) -> bool:
        return self.gone

    def outlive(self) -> None:
        pass

    async def begin(self, headers: Headers = ()) -> None:
        assert self.headers is None, "the head is sent once"
        self.headers = headers
        await trio.lowlevel.checkpoint()

    async def send(self, frame: bytes) -> None:
        assert self.headers is not None, "the head comes first"
        assert frame
        await trio.lowlevel.checkpoint()
        if self.tap is not None:
            with trio.fail_after(CONNECTION_S):
                await self.tap.wait()
        if self.gone:
            raise ClientLeft
        self.sent.append(frame)

    async def end(self) -> None:
        assert not self.ended
        self.ended = True
        await trio.lowlevel.checkpoint()

    @property
    def data(self) -> bytes:
        return b"".join(self.sent)

    @property
    def events(self) -> list[SseEvent]:
        return SseParser().feed(self.data)

    @property
    def messages(self) -> list[Any]:
        return [json.loads(event.data) for event in self.events if event.data and event.event == "message"]

    @property
    def last_id(self) -> str:
        return self.events[-1].id


def message(value: Any) -> bytes:
    return json.dumps(value).encode()
