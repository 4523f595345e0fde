"""A plain request that another node must answer, handed on from the hot lane: its answer comes back on the same connection.

So a connection stays in the lane whoever answers, which a proxy's pool of them depends on.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import trio
from attrs import define, field

from controlplane.web.asgi import REQUEST_ID_KEY
from controlplane.web.hot_outlet import lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from controlplane.web.asgi import Message, Scope
    from controlplane.web.hot import HotLane
    from controlplane.web.hot_head import PlainHead
    from controlplane.web.hot_wire import Wire

LOOK_S = 0.25
"""How often it is looked whether the client has left, which the door's sweeper finds out as often."""
_BODILESS = frozenset({204, 304})


def scope_of(plain: PlainHead, request_id: str) -> Scope:
    """The request as an ASGI scope, as far as `placing` reads it."""
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": plain.path,
        "raw_path": plain.path.encode("ascii"),
        "query_string": b"",
        "headers": list(plain.fields.items()),
        REQUEST_ID_KEY: request_id,
    }


@define(eq=False)
class HotExchange:
    """One request, whose body is whole, and the way back, as ASGI's `receive` and `send`."""

    _wire: Wire
    _lane: HotLane
    _request_id: str
    _body: bytes
    keep: bool
    """Whether the connection may go on after this answer."""
    _count: Callable[[int], None]
    """Gets the status, before the client can have the whole answer."""
    status: int = field(default=0, init=False)
    """Of the answer; 0: it has not begun."""
    _is_read: bool = field(default=False, init=False)
    _is_chunked: bool = field(default=False, init=False)
    _head: bytes = field(default=b"", init=False)
    """Of the answer, until it is sent with the first piece of the body."""

    async def receive(self) -> Message:
        """The body; after that, wait until the client is gone."""
        if not self._is_read:
            self._is_read = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        while not self._wire.gone:  # noqa: ASYNC110  (the sweeper sets it for all connections, and wakes nobody)
            await trio.sleep(LOOK_S)
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Write the answer, piece by piece. Raises ClientLeft."""
        if message["type"] == "http.response.start":
            self._begin(message)
            if self._is_chunked:  # a stream may have nothing to say for long
                await self._wire.send(self._head)
                self._head = b""
            return
        piece, more = message.get("body", b""), message.get("more_body", False)
        data, self._head = self._head + self._framed(piece), b""
        if not more:
            data += b"0\r\n\r\n" if self._is_chunked else b""
            self._count(self.status)
        if data:
            await self._wire.send(data)

    def _begin(self, message: Message) -> None:
        self.status = status = message["status"]
        fields = list(message["headers"])
        self._is_chunked = status not in _BODILESS and all(name != b"content-length" for name, _ in fields)
        self.keep = self.keep and not self._lane.draining
        if self._is_chunked:
            fields.append((b"transfer-encoding", b"chunked"))
        if not self.keep:
            fields.append((b"connection", b"close"))
        fields += ((b"x-request-id", self._request_id.encode("ascii")), (b"date", self._lane.date))
        self._head = b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, _phrase(status), lines(tuple(fields)))

    def _framed(self, piece: bytes) -> bytes:
        if not piece or not self._is_chunked:
            return piece
        return b"%x\r\n%b\r\n" % (len(piece), piece)


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b""
