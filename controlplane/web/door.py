"""The front door: owns the listening sockets and every client connection.

A connection begins in the hot lane (or, with the lane switched off, at once in
Hypercorn) and is handed over when it sends anything else. One sweeper keeps the
deadlines of all of them and notices callers that left during a call; one cap
bounds their number. Nothing that happens on a connection ends the door.

`overflow` tells those beyond the cap that there is no room.
"""

from __future__ import annotations

import errno
import logging
import select
from typing import TYPE_CHECKING, Protocol

import trio
from attrs import define, field, frozen

from controlplane.web.hot import HotConnection, HotLane
from controlplane.web.hypercorn_server import Handover, HypercornConnection, Pushback
from controlplane.web.overflow import Overflow

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from controlplane.web.asgi import App
    from controlplane.web.services import Services

log = logging.getLogger("corral.web")

TICK_S = 0.25
"""How often deadlines and vanished callers are looked at."""
TOKEN_SWEEP_S = 1.0
"""How often the credentials behind open streams are looked at for expiry; a revocation is seen at once."""
PATIENCE_S = 0.25
"""Younger calls are not asked whether their caller is still there."""
GONE_GRACE_S = 1.0
"""How long a call may go on after its caller was seen to have left."""
DRAIN_S = 4.5
"""For calls in flight, after the last connection was accepted: half a second longer than their instances wait for them
(`child.DRAIN_S`), so that those that do not end by themselves are still answered, whichever lane they came in by."""
CLOSE_S = 1.0
"""For connections to end after they were cut."""
ACCEPT_BATCH = 64
"""Connections accepted before others get their turn."""
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_LEFT_AGAIN = frozenset(
    {errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.EINTR, errno.ENETDOWN, errno.EHOSTUNREACH}
)


class Connection(Protocol):
    """What the sweeper needs of one. `deadline` is Trio time; `idle`: no request is under way."""

    deadline: float
    idle: bool

    def cut(self) -> None: ...


@frozen(kw_only=True)
class DoorStatistics:
    """Connections open now, and how many of them wait for an answer to a hot call."""

    connections: int
    calls: int
    overflow: int


@define(eq=False)
class Door:
    """Made by `serve`. `drain` ends it."""

    listeners: Sequence[socket.socket]
    services: Services
    handover: Handover
    hot: bool
    lane: HotLane = field(init=False)
    connections: set[Connection] = field(factory=set, init=False)
    _open: int = field(default=0, init=False)
    """Connections within the cap, those included whose task has not begun."""
    _overflow: Overflow = field(init=False)
    _gone_since: dict[HotConnection, float] = field(factory=dict, init=False)
    _accepting: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    _empty: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)
    drained: trio.Event = field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self.lane = HotLane(self.services)
        self._overflow = Overflow(self.services.meters, self._serve_hypercorn)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """What it listens on, for the banner: host and port."""
        return [listener.getsockname()[:2] for listener in self.listeners]

    def statistics(self) -> DoorStatistics:
        calls = sum(1 for c in self.connections if isinstance(c, HotConnection) and c.call_since)
        return DoorStatistics(connections=len(self.connections), calls=calls, overflow=self._overflow.heard)

    # -- accepting

    async def run(self) -> None:
        """Accept and serve until drained, or cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._sweep)
                nursery.start_soon(self._accept_all, nursery)
                await self.drained.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._overflow.close()

    async def _accept_all(self, nursery: trio.Nursery) -> None:
        with self._accepting:
            async with trio.open_nursery() as acceptors:
                for listener in self.listeners:
                    acceptors.start_soon(self._accept, listener, nursery)

    async def _accept(self, listener: socket.socket, nursery: trio.Nursery) -> None:
        while listener.fileno() >= 0:  # a stop may come before the first look
            try:
                await trio.lowlevel.wait_readable(listener)
                for _ in range(ACCEPT_BATCH):
                    sock, address = listener.accept()
                    self._admit(sock, _address_text(address), nursery)
            except BlockingIOError:
                continue
            except trio.ClosedResourceError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    await self._overflow.shed(listener)
                elif error.errno not in _LEFT_AGAIN:
                    raise

    def _admit(self, sock: socket.socket, peer: str, nursery: trio.Nursery) -> None:
        sock.setblocking(False)
        self.services.meters.accepted += 1
        if self._open < self.services.config.max_connections:
            self._count(1)
            nursery.start_soon(self._serve, sock, peer)
        else:
            self._overflow.take(sock, nursery)

    # -- connections

    async def _serve(self, sock: socket.socket, peer: str) -> None:
        try:
            data: bytes | None = b""
            if self.hot:
                data = await self._serve_hot(HotConnection(sock, lane=self.lane, peer=peer))
            if data is not None:
                await self._serve_hypercorn(sock, data)
        except Exception:
            log.exception("a connection was ended by an error")
        finally:
            sock.close()
            self._count(-1)

    async def _serve_hot(self, connection: HotConnection) -> bytes | None:
        self.connections.add(connection)
        try:
            return await connection.serve()
        finally:
            self._gone_since.pop(connection, None)
            self._leave(connection)

    async def _serve_hypercorn(self, sock: socket.socket, data: bytes) -> None:
        connection = HypercornConnection(self.handover, Pushback(sock, data))
        self.connections.add(connection)
        try:
            await connection.run()
        finally:
            self._leave(connection)

    def _count(self, change: int) -> None:
        self._open += change
        self.services.meters.connections = self._open

    def _leave(self, connection: Connection) -> None:
        self.connections.discard(connection)
        if not self.connections:
            self._empty.unpark_all()

    # -- the sweeper

    async def _sweep(self) -> None:
        """Service loop: the clock of all connections."""
        due = 0.0
        while True:
            await trio.sleep(TICK_S)
            self.lane.tick()
            now = self.lane.now
            if now >= due:
                due = now + TOKEN_SWEEP_S
                self.services.tokens.sweep()
                self.services.audit.sweep()
            self._overflow.sweep(now)
            waiting: list[HotConnection] = []
            for connection in list(self.connections):
                if connection.deadline <= now:
                    self.services.meters.cut += 1
                    connection.cut()
                elif isinstance(connection, HotConnection) and 0 < connection.call_since <= now - PATIENCE_S:
                    waiting.append(connection)
            self._look_for_the_gone(waiting, now)

    def _look_for_the_gone(self, waiting: list[HotConnection], now: float) -> None:
        """Mark the connections whose client has closed its end, and cancel calls that do not heed it, unless they outlive it."""
        for connection in _hung_up(waiting):
            connection.gone = True
            since = self._gone_since.setdefault(connection, now)
            if now - since > GONE_GRACE_S and not connection.outlives:
                connection.cut()

    # -- the end

    async def drain(self, timeout_s: float = DRAIN_S) -> None:
        """Stop accepting, end streams, let calls in flight answer, then close everything; returns when that is done.

        Args:
            timeout_s: Seconds for the answers.
        """
        self.lane.draining = True
        self._accepting.cancel()
        self.close_listeners()
        self.services.hub.close()
        self.services.mcp.close()
        await self.handover.stop()
        for connection in list(self.connections):
            if connection.idle:
                connection.cut()
        with trio.move_on_after(timeout_s):
            await self._wait_empty()
        for connection in list(self.connections):
            connection.cut()
        with trio.move_on_after(CLOSE_S):
            await self._wait_empty()
        self.drained.set()

    async def _wait_empty(self) -> None:
        while self.connections:
            await self._empty.park()

    def close_listeners(self) -> None:
        """Accept nobody any more; idempotent."""
        for listener in self.listeners:
            if listener.fileno() >= 0:
                trio.lowlevel.notify_closing(listener)
                listener.close()


async def serve(
    listeners: Sequence[socket.socket],
    asgi_app: App,
    services: Services,
    *,
    hot: bool = True,
    task_status: trio.TaskStatus[Door] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `Door.drain` (or until cancelled, which closes everything at once).

    Args:
        listeners: From `listeners.open_listeners`; closed here.
        asgi_app: What `mount.mount` made.
        services: What the handlers work with.
        hot: Answer plain calls in the hot lane; off, everything goes through Hypercorn.
        task_status: Gets the `Door` once connections are accepted.
    """
    handover = Handover.of(asgi_app)
    lifespan = handover.lifespan()
    door = Door(listeners, services, handover, hot)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(lifespan.handle_lifespan)
            await lifespan.wait_for_startup()
            task_status.started(door)
            await door.run()
            await lifespan.wait_for_shutdown()
            nursery.cancel_scope.cancel()
    finally:
        door.close_listeners()


def _hung_up(waiting: list[HotConnection]) -> list[HotConnection]:
    """Those whose client has closed at least its sending side, which no HTTP client does that waits for an answer."""
    if not waiting:
        return []
    by_fd = {connection.fd: connection for connection in waiting}
    poll = select.poll()
    for fd in by_fd:
        poll.register(fd, select.POLLRDHUP)
    return [by_fd[fd] for fd, _event in poll.poll(0)]


def _address_text(address: tuple[str, int] | str) -> str:
    """The client's address; empty for a unix socket."""
    return address[0].removeprefix("::ffff:") if isinstance(address, tuple) else ""
