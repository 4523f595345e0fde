"""Puts a bearer token into every request on its way to a control plane; the suite cannot send one itself.

Everything else passes byte for byte, in both directions and as it comes: Host and Origin, streams, the end of a
connection. Knows only requests whose length is told, which is what the suite sends; refuses chunked ones.
"""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HEAD_MAX_BYTES = 64 * 1024
"""Of a request's head; more than any HTTP client sends."""
READ_BYTES = 64 * 1024

_LENGTH = re.compile(rb"^content-length:[ \t]*(\d+)[ \t]*$", re.IGNORECASE | re.MULTILINE)
_CHUNKED = re.compile(rb"^transfer-encoding:", re.IGNORECASE | re.MULTILINE)


@asynccontextmanager
async def forwarding(port: int, token: str, *fields: str) -> AsyncIterator[str]:
    """Yield the URL of a forwarder on a free port of 127.0.0.1, in front of another port there.

    Args:
        port: Where requests go.
        token: What they are given to carry.
        fields: More header fields for each, as lines without their ends.
    """
    lines = (f"Authorization: Bearer {token}", *fields)
    handler = partial(_forward, port=port, field="".join(f"{line}\r\n" for line in lines).encode())
    async with trio.open_nursery() as nursery:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        own_port = listener.socket.getsockname()[1]
        nursery.start_soon(partial(trio.serve_listeners, handler, [listener]))
        yield f"http://127.0.0.1:{own_port}"
        nursery.cancel_scope.cancel()


async def _forward(client: trio.SocketStream, *, port: int, field: bytes) -> None:
    """Carry one connection; when one side goes, so does the other."""
    try:
        async with await trio.open_tcp_stream("127.0.0.1", port) as server, trio.open_nursery() as nursery:

            async def answers() -> None:
                async for data in server:
                    await client.send_all(data)
                nursery.cancel_scope.cancel()

            nursery.start_soon(answers)
            await _requests(client, server, field)
            nursery.cancel_scope.cancel()
    except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
        pass


async def _requests(client: trio.SocketStream, server: trio.SocketStream, field: bytes) -> None:
    held = b""
    while True:
        while b"\r\n\r\n" not in held:
            assert len(held) < HEAD_MAX_BYTES, "the head of a request does not end"
            data = await client.receive_some(READ_BYTES)
            if not data:
                return
            held += data
        head, _, held = held.partition(b"\r\n\r\n")
        assert not _CHUNKED.search(head), "a request of untold length"
        line, _, fields = head.partition(b"\r\n")
        await server.send_all(line + b"\r\n" + field + fields + b"\r\n\r\n")
        told = _LENGTH.search(head.replace(b"\r", b""))
        held = await _body(client, server, held, int(told[1]) if told else 0)


async def _body(client: trio.SocketStream, server: trio.SocketStream, held: bytes, length: int) -> bytes:
    """Carry a body that may have come in part with its head; returns what is beyond it."""
    await server.send_all(held[:length])
    left, beyond = length - len(held[:length]), held[length:]
    while left:
        data = await client.receive_some(min(left, READ_BYTES))
        if not data:
            raise trio.BrokenResourceError("the client left in the middle of a body")
        await server.send_all(data)
        left -= len(data)
    return beyond
