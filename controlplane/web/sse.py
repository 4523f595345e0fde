"""A hub subscription as an SSE response (WHATWG HTML, section 9.2).

Frames come from the hub already encoded and joined; here they are only written.
A stream ends when the client leaves, when the hub closes the subscription (it
lagged, or the control plane stops) and when the token behind it is revoked or
expires. How long one write may stall is the server's business: it cuts a
connection that takes nothing for `hypercorn_server.WRITE_STALL_S`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

import trio

from controlplane.web.asgi import Receive, Send, send_body, send_start, wait_disconnected

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from types import TracebackType

    from controlplane.model import Principal
    from controlplane.web.auth import TokenTable
    from controlplane.web.problems import Headers

LIVENESS_CHECK_S = 2.0
"""How often a generator (not a `stream`, which is told) looks whether its token still holds."""

SSE_HEADERS: Headers = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx must not hold events back
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class Source(Protocol):
    """Where frames come from: `hub.Subscription`, or something that filters one."""

    async def take(self) -> bytes:
        """Wait for frames; raises trio.EndOfChannel at the end."""

    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


async def stream(
    source: Source, principal: Principal, tokens: TokenTable, receive: Receive, send: Send, *, extra: Headers = ()
) -> None:
    """Answer an ASGI request with the frames of `source` until one side ends it.

    Args:
        source: A subscription; it is closed here.
        principal: Who opened the stream; it ends when that credential does.
        tokens: Where that is known.
        receive: ASGI receive; the request's body must have been read.
        send: ASGI send.
        extra: More headers: request id, CORS.
    """
    gone = False

    async def watch_client(scope: trio.CancelScope) -> None:
        nonlocal gone
        await wait_disconnected(receive)
        gone = True
        scope.cancel()

    with source:
        await send_start(send, 200, (*SSE_HEADERS, *extra))
        async with trio.open_nursery() as nursery:
            unwatch = tokens.on_revoked(principal, nursery.cancel_scope.cancel)
            try:
                nursery.start_soon(watch_client, nursery.cancel_scope)
                await _write_frames(source, send)
            finally:
                unwatch()
            nursery.cancel_scope.cancel()
    if not gone:
        await send_body(send, b"")


async def _write_frames(source: Source, send: Send) -> None:
    while True:
        try:
            data = await source.take()
        except trio.EndOfChannel:
            return
        await send_body(send, data, more=True)


async def frames(source: Source, principal: Principal, tokens: TokenTable) -> AsyncGenerator[bytes, None]:
    """The same as a generator, for a framework's response; set its `timeout` to None, and `SSE_HEADERS`.

    Slower per event than `stream`, and the end of the credential is noticed within `LIVENESS_CHECK_S`.
    """
    with source:
        while tokens.is_live(principal):
            data = b""
            with trio.move_on_after(LIVENESS_CHECK_S):
                try:
                    data = await source.take()
                except trio.EndOfChannel:
                    return
            if data:
                yield data
