"""Connections for which there is no room: beyond the cap, or without a file descriptor.

They are told 503 rather than left to hang. A few are heard out first, because
an operator must be able to ask for the health of a server that is full; the
rest get their answer at once. Nothing here waits long or holds much.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

import trio
from attrs import define, field

from controlplane.errors import Overloaded
from controlplane.web.hypercorn_server import LINGER_S
from controlplane.web.problems import problem
from controlplane.web.rate import RateLimiter
from controlplane.web.request import new_request_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from controlplane.web.meters import Meters

log = logging.getLogger("corral.web")

SLOTS = 64
"""Connections heard out at once, each for at most `HEARING_S`."""
HEARING_S = 1.0
HEARING_BYTES = 16 * 1024
LINGERING_MAX = 1024
"""Connections that were told 503 and are not closed yet, so that the answer is not lost to a reset."""
PAUSE_S = 0.1
"""When not even the spare file descriptor can be had."""
LOG_EVERY_S = 10.0

_HEALTH = tuple(
    b"%b %b" % (method, path) for method in (b"GET", b"HEAD") for path in (b"/health", b"/livez", b"/readyz")
)


def _open_spare() -> int:
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


@define(eq=False)
class Overflow:
    """Turns connections away. `serve` answers one that asks for health, and closes it."""

    meters: Meters
    serve: Callable[[socket.socket, bytes], Awaitable[None]]
    heard: int = field(default=0, init=False)
    """Connections that are being heard out now."""
    _lingering: deque[tuple[float, socket.socket]] = field(factory=deque, init=False)
    _spare_fd: int = field(factory=_open_spare, init=False)
    _logged: RateLimiter = field(factory=lambda: RateLimiter(1 / LOG_EVERY_S, 1), init=False)

    def take(self, sock: socket.socket, nursery: trio.Nursery) -> None:
        """Deal with a connection beyond the cap."""
        if self.heard < SLOTS:
            self.heard += 1
            nursery.start_soon(self._hear_out, sock)
        else:
            self._turn_away(sock)

    async def shed(self, listener: socket.socket) -> None:
        """No descriptor is left: give the spare one up for a moment, to tell whoever is next, and not spin on them."""
        if not self._logged.take("shed"):
            log.warning("no file descriptor is left: turning connections away")
        self._close_spare()
        with suppress(OSError):
            sock, _ = listener.accept()
            with sock:
                sock.setblocking(False)
                self._refuse(sock)
        try:
            self._spare_fd = _open_spare()
        except OSError:
            await trio.sleep(PAUSE_S)
        await trio.lowlevel.checkpoint()

    def sweep(self, now: float) -> None:
        """Close what has lingered long enough; `now` is Trio time."""
        while self._lingering and self._lingering[0][0] <= now:
            self._lingering.popleft()[1].close()

    def close(self) -> None:
        """Let go of everything."""
        self.sweep(float("inf"))
        self._close_spare()

    async def _hear_out(self, sock: socket.socket) -> None:
        lingers = False
        try:
            with suppress(OSError):
                data = await _read_head(sock)
                if data.startswith(_HEALTH):
                    # One answer and no more; `close` wins over a keep-alive that the client sent.
                    await self.serve(sock, data.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
                else:
                    lingers = True
                    self._turn_away(sock)
        finally:
            self.heard -= 1
            if not lingers:
                sock.close()

    def _turn_away(self, sock: socket.socket) -> None:
        """Say 503 without waiting for anything, and leave the socket half open for a moment."""
        self._refuse(sock)
        self._lingering.append((trio.current_time() + LINGER_S, sock))
        if len(self._lingering) > LINGERING_MAX:
            self._lingering.popleft()[1].close()

    def _refuse(self, sock: socket.socket) -> None:
        self.meters.refused += 1
        with suppress(OSError):
            sock.send(_refusal())
            sock.shutdown(socket.SHUT_WR)
            sock.recv(HEARING_BYTES)  # unread bytes would turn the close into a reset

    def _close_spare(self) -> None:
        if self._spare_fd >= 0:
            os.close(self._spare_fd)
            self._spare_fd = -1


async def _read_head(sock: socket.socket) -> bytes:
    """What the client sends first, for at most `HEARING_S`."""
    data = b""
    with trio.move_on_after(HEARING_S):
        while b"\r\n\r\n" not in data and len(data) < HEARING_BYTES:
            await trio.lowlevel.wait_readable(sock)
            more = sock.recv(HEARING_BYTES)
            if not more:
                break
            data += more
    return data


def _refusal() -> bytes:
    answer = problem(Overloaded("Too many connections are open.", retry_after_s=1), request_id=new_request_id())
    fields = b"".join(b"%b: %b\r\n" % pair for pair in answer.headers)
    return b"HTTP/1.1 503 Service Unavailable\r\n%bconnection: close\r\n\r\n%b" % (fields, answer.body)
