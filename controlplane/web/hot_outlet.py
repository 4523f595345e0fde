"""An event stream on a hot connection, written as the chunks of one answer (RFC 9112 section 7.1).

Nothing waits here but a write that the client does not take at once, and that
is bounded by the wire's deadline; a stream that has nothing to say may be quiet
for as long as it likes. When the token behind it is revoked, the stream ends in
order, and with it the connection.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio
from attrs import define, field

from controlplane.web.mcp.outlet import ClientLeft
from controlplane.web.sse import SSE_HEADERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from controlplane.model import Principal
    from controlplane.supervise.accounts import Account
    from controlplane.web.hot import HotLane
    from controlplane.web.hot_wire import Wire
    from controlplane.web.mcp.outlet import Headers

TURN_BYTES = 64 * 1024
"""Written in one go before other tasks get their turn."""

_LAST_CHUNK = b"0\r\n\r\n"


def lines(headers: Headers) -> bytes:
    """Header fields as they stand on the wire."""
    return b"".join(b"%b: %b\r\n" % pair for pair in headers)


_START = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n" + lines(SSE_HEADERS)


@define(eq=False)
class HotOutlet:
    """The `Outlet` of one request. Once that is over, nothing is written any more, whoever still holds this."""

    _wire: Wire
    _lane: HotLane
    _principal: Principal
    _request_id: str
    keep: bool
    """Whether the connection may go on after this answer; as the head says, once it is sent."""
    account: Account | None = field(default=None, init=False)
    begun: bool = field(default=False, init=False)
    outlives: bool = field(default=False, init=False)
    _over: bool = field(default=False, init=False)
    _turn_bytes: int = field(default=0, init=False)
    _unwatch: Callable[[], None] | None = field(default=None, init=False)

    def is_gone(self) -> bool:
        return self._wire.gone

    def outlive(self) -> None:
        self.outlives = True

    async def begin(self, headers: Headers = ()) -> None:
        self._check(begun=False)
        lane = self._lane
        self._unwatch = lane.services.tokens.on_revoked(self._principal, self._wire.cut)
        self.keep = self.keep and not lane.draining
        close = b"" if self.keep else b"connection: close\r\n"
        own = b"x-request-id: %b\r\n%bdate: %b\r\n\r\n" % (self._request_id.encode(), close, lane.date)
        await self._write(_START + lines(headers) + own)
        self.begun = True

    async def send(self, frame: bytes) -> None:
        self._check(begun=True)
        if self.account is not None:
            self.account.bytes_out += len(frame)
        if frame:  # an empty chunk would be the last one
            await self._write(b"%x\r\n%b\r\n" % (len(frame), frame))

    async def end(self) -> None:
        if not self._over:
            self._check(begun=True)
            await self._write(_LAST_CHUNK)
            self.release()

    def release(self) -> None:
        """The request is over: nothing is written from now on."""
        self._over = True
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None

    def say_goodbye(self) -> None:
        """The connection is being cut: end the stream in order if that needs no waiting."""
        wire = self._wire
        if self.begun and not (self._over or wire.gone or wire.torn):
            with suppress(ClientLeft):
                wire.send_now(_LAST_CHUNK)
        self.release()

    def _check(self, *, begun: bool) -> None:
        """Raises ClientLeft when nothing can be written; a stream that is begun twice, or not at all, is a bug."""
        if self._over or self._wire.gone or self._wire.torn:
            raise ClientLeft
        if self.begun is not begun:
            raise RuntimeError("a stream begins once, before anything is sent on it")

    async def _write(self, data: bytes) -> None:
        self._turn_bytes += len(data)
        if self._turn_bytes > TURN_BYTES:
            self._turn_bytes = 0
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        await self._wire.send(data)
