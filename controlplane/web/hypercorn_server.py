"""Hypercorn 0.18's HTTP/1.1 for one connection, hardened.

`HypercornConnection` stands in the place of Hypercorn's own `TCPServer` for Trio,
which lets one connection's stray exception end the process (hypercorn#225),
waits for ever for a reader that does not read, and arms a task per request for
the idle timer. Here:

- nothing that goes wrong on a connection leaves it;
- a write that makes no progress for `WRITE_STALL_S` ends the connection, and
  nothing that is shielded can outlive `cut`;
- one deadline per connection, which the door's sweeper enforces: for a request's
  head, for its body, and between requests.

With `http1`, the only module that knows Hypercorn's internals; the version is
pinned to 0.18.
"""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, cast

import h11
import trio
from attrs import define, field
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from controlplane.web.http1 import PlainHttp1

if TYPE_CHECKING:
    from hypercorn.typing import ASGIFramework

    from controlplane.web.asgi import App

log = logging.getLogger("corral.web")

HEAD_S = 10.0
"""From a request's first byte (or the connection's start) to the end of its head."""
BODY_STALL_S = 60.0
"""Between two pieces of a body."""
IDLE_S = 75.0
"""Between requests; longer than nginx keeps an idle upstream connection (60 s), so that nginx closes first."""
WRITE_STALL_S = 15.0
"""For `WRITE_SLICE_BYTES`: who reads more slowly than that (4 KiB/s) is cut."""
WRITE_SLICE_BYTES = 64 * 1024
BULK_BYTES = 16 * 1024
"""Larger writes let other tasks run in between; smaller ones are tried at once."""
READ_BYTES = 64 * 1024
LINGER_S = 2.0
"""A connection that ends in the middle of a request is half closed, and what still comes in is dropped, so that the
client reads the answer before it sees a reset."""
LINGER_BYTES = 8 * 1024 * 1024
HEAD_MAX_BYTES = 32 * 1024
"""Request line and fields; beyond it 431."""


@define(eq=False)
class Handover:
    """What all connections that Hypercorn serves share: the application, settings, and the end of the world."""

    app: ASGIWrapper
    config: Config
    context: WorkerContext

    @classmethod
    def of(cls, app: App) -> Handover:
        """Wrap an ASGI application."""
        config = Config()
        config.accesslog = None
        config.errorlog = logging.getLogger("corral.hypercorn")
        config.include_server_header = False
        config.h11_max_incomplete_size = HEAD_MAX_BYTES
        config.keep_alive_max_requests = 2**31  # connections end for a reason, not for their age
        return cls(ASGIWrapper(cast("ASGIFramework", app)), config, WorkerContext(None))

    async def stop(self) -> None:
        """Keep no connection open after the answer that is under way on it."""
        await self.context.terminated.set()

    def lifespan(self) -> Lifespan:
        return Lifespan(self.app, self.config, {})


class Pushback:
    """A non-blocking socket as a stream whose first bytes were read already."""

    def __init__(self, raw: socket.socket, data: bytes = b"") -> None:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(raw))
        self.socket = stream.socket
        self.send_all = stream.send_all
        self.aclose = stream.aclose
        self._stream = stream
        self._raw = raw
        self._data = data

    async def receive_some(self, max_bytes: int) -> bytes:
        if self._data:
            data, self._data = self._data[:max_bytes], self._data[max_bytes:]
            await trio.lowlevel.checkpoint()
            return data
        return bytes(await self._stream.receive_some(max_bytes))

    def send_now(self, data: bytes) -> int:
        """Send what the socket takes without waiting; return how much that was."""
        try:
            return self._raw.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError from error

    def half_close(self) -> None:
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Close at once; whoever waits on the socket gets trio.ClosedResourceError."""
        self.socket.close()


@define(eq=False)
class HypercornConnection:
    """One connection. `deadline` is Trio time: whoever owns the connection calls `cut` when it has passed.

    `idle` is true between requests.
    """

    handover: Handover
    stream: Pushback
    deadline: float = field(init=False)
    idle: bool = field(default=True, init=False)
    _protocol: PlainHttp1 = field(init=False)
    _scope: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    _send_lock: trio.Lock = field(factory=trio.Lock, init=False)
    _closing: bool = field(default=False, init=False)
    _lingered_bytes: int = field(default=0, init=False)
    _head_begun: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.deadline = trio.current_time() + HEAD_S

    async def run(self) -> None:
        """Serve until either side ends it; never raises an `Exception`."""
        try:
            with self._scope:
                await self._converse()
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client went away in the middle of something
        except* Exception as group:
            log.warning("a connection was ended by an error: %r", group.exceptions, exc_info=group)
        finally:
            self.stream.abort()

    def cut(self) -> None:
        """End the connection now, whatever it is doing."""
        self.stream.abort()
        self._scope.cancel()

    async def _converse(self) -> None:
        raw = self.stream.socket
        client = parse_socket_addr(raw.family, raw.getpeername())
        server = parse_socket_addr(raw.family, raw.getsockname())
        async with TaskGroup() as task_group:
            self._protocol = PlainHttp1(
                self.handover.app,
                self.handover.config,
                self.handover.context,
                task_group,
                ConnectionState({}),
                ssl=False,
                client=client,
                server=server,
                send=self._on_event,
            )
            await self._read()

    async def _on_event(self, event: Event) -> None:
        if isinstance(event, RawData):
            if self._closing:
                await trio.lowlevel.checkpoint()  # an application that writes on for ever can be cancelled here
            elif not await self._write(event.data):
                self._begin_closing()
                await self._protocol.handle(Closed())
        elif isinstance(event, Closed):
            self._begin_closing()
            await self._protocol.handle(Closed())
        elif isinstance(event, Updated):
            self.idle = event.idle
            self._head_begun = False
            if not self._closing:
                self.deadline = trio.current_time() + IDLE_S if event.idle else inf

    async def _write(self, data: bytes) -> bool:
        """Send everything, or close the stream and return False."""
        try:
            if len(data) > BULK_BYTES or self._send_lock.locked():
                await self._write_slowly(memoryview(data))
            elif (sent := self.stream.send_now(data)) < len(data):
                await self._write_slowly(memoryview(data)[sent:])
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.stream.abort()
            return False
        return True

    async def _write_slowly(self, view: memoryview) -> None:
        # Shielded, so that a cancelled handler does not leave half a chunk on the wire; `cut` still ends it.
        with trio.CancelScope(shield=True):
            async with self._send_lock:
                for start in range(0, len(view), WRITE_SLICE_BYTES):
                    with trio.move_on_after(WRITE_STALL_S) as stall:
                        await self.stream.send_all(view[start : start + WRITE_SLICE_BYTES])
                    if stall.cancelled_caught:
                        raise trio.BrokenResourceError

    def _begin_closing(self) -> None:
        """No more is sent. When the request was not read to its end, the reader goes on for a moment to drop the rest."""
        if self._closing:
            return
        self._closing = True
        self.deadline = trio.current_time() + LINGER_S  # also for an application that does not hear of it
        if self._protocol.connection.their_state in {h11.SEND_BODY, h11.ERROR}:
            self.stream.half_close()
        else:
            self.stream.abort()

    async def _read(self) -> None:
        while True:
            try:
                data = await self.stream.receive_some(READ_BYTES)
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                break
            if self._closing:
                self._lingered_bytes += len(data)
                if not data or self._lingered_bytes > LINGER_BYTES:
                    break
                continue
            await self._take(data)
            if not data:
                break
        await self._protocol.handle(Closed())

    async def _take(self, data: bytes) -> None:
        if not self.idle:
            self.deadline = inf  # the application may be slow to take the body: that is not the client's fault
        elif not self._head_begun:
            self._head_begun = True
            self.deadline = trio.current_time() + HEAD_S
        await self._protocol.handle(RawData(data))
        if not self.idle and not self._closing:
            waiting_for_body = self._protocol.connection.their_state is h11.SEND_BODY
            self.deadline = trio.current_time() + BODY_STALL_S if waiting_for_body else inf
