"""The bytes of one hot connection: taking them in and sending them out on a plain socket.

Every wait is bounded by `deadline`, which the door's sweeper enforces: a body
must arrive, and a client must take its answer; how long it takes until there is
an answer, or until a stream has something to say, is not its fault.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from math import inf

import trio
from attrs import define, field

from controlplane.web.hypercorn_server import LINGER_BYTES, LINGER_S, WRITE_SLICE_BYTES, WRITE_STALL_S
from controlplane.web.mcp.outlet import ClientLeft

BODY_S = 60.0
"""For the whole body of a call."""
READ_BYTES = 64 * 1024
SKIP_MAX_BYTES = 64 * 1024
"""A refused body up to this size is read and dropped, so that the connection can be kept."""


@define(eq=False)
class Wire:
    """A non-blocking socket, with one reader and one writer at a time. `deadline` is Trio time.

    `gone`: the client has closed its end, as far as the sweeper has seen. `torn`:
    a write was cancelled in the middle, so that nothing more can be sent.
    """

    sock: socket.socket
    deadline: float = field(default=inf, init=False)
    gone: bool = field(default=False, init=False)
    torn: bool = field(default=False, init=False)
    fd: int = field(init=False)
    _scope: trio.CancelScope = field(factory=trio.CancelScope, init=False)

    def __attrs_post_init__(self) -> None:
        self.fd = self.sock.fileno()

    def is_gone(self) -> bool:
        """Whether the client has left, as far as the sweeper has seen."""
        return self.gone

    def cut(self) -> None:
        """End the connection now, whatever it is doing."""
        self._scope.cancel()

    # -- in

    async def receive(self, max_bytes: int) -> bytes:
        """What has come in; nothing once the client has closed or reset the connection."""
        while True:
            await trio.lowlevel.wait_readable(self.fd)
            try:
                return self.sock.recv(max_bytes)
            except BlockingIOError:
                continue
            except OSError:
                return b""

    async def rest(self, body: bytes, unread: int) -> bytes:
        """Read the missing part of a body; raises ClientLeft."""
        self.deadline = trio.current_time() + BODY_S
        chunks = [body]
        while unread:
            data = await self.receive(min(unread, READ_BYTES * 4))
            if not data:
                raise ClientLeft
            chunks.append(data)
            unread -= len(data)
        self.deadline = inf
        return b"".join(chunks)

    async def skip(self, unread: int) -> bool:
        """Drop the rest of a refused body; False when it is too long, and the connection must end instead."""
        if unread > SKIP_MAX_BYTES:
            return False
        if unread:
            await self.rest(b"", unread)
        return True

    # -- out

    async def send(self, data: bytes) -> None:
        """Send everything; raises ClientLeft."""
        sent = self.send_now(data)
        if sent < len(data):
            await self._send_rest(memoryview(data)[sent:])

    def send_now(self, data: bytes | memoryview) -> int:
        """Send what the socket takes without waiting; return how much that was."""
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            raise ClientLeft from None

    async def _send_rest(self, view: memoryview) -> None:
        """The slow path: the client must take `WRITE_SLICE_BYTES` in each `WRITE_STALL_S`."""
        self.torn = True
        due = len(view)
        while view:
            if len(view) <= due:
                due = len(view) - WRITE_SLICE_BYTES
                self.deadline = trio.current_time() + WRITE_STALL_S
            await trio.lowlevel.wait_writable(self.fd)
            view = view[self.send_now(view) :]
        self.deadline = inf
        self.torn = False

    async def linger(self) -> None:
        """Half close, and drop what still comes, so that the answer is not lost to a reset."""
        self.deadline = trio.current_time() + LINGER_S
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
        dropped = 0
        while dropped <= LINGER_BYTES and (data := await self.receive(READ_BYTES)):
            dropped += len(data)
