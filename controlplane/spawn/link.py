"""One spawner process and the socket to it: start it, send, receive, wait for its end."""

from __future__ import annotations

import errno
import logging
import os
import select
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio
from attrs import define, field

from controlplane.spawn import messages, proctree

log = logging.getLogger(__name__)

SPAWNER = Path(__file__).with_name("spawner.py")
PING_S = 2.0
"""Between two questions whether the spawner still answers."""
SILENT_PINGS = 5
"""So many unanswered ones, 10 s, and it is given up. It never waits for anything, so only a stopped process is silent for
that long; and as pings are counted, not seconds, a control plane that was stopped itself blames nobody."""
MAX_BACKLOG = 4096
"""Messages kept for a spawner that does not read; each may hold four descriptors."""


@define(eq=False)
class Link:
    """The control plane's end. `is_ready` once the spawner has said hello."""

    pid: int
    start_ticks: int
    is_ready: bool = field(default=False, init=False)
    _process: subprocess.Popen[bytes] = field(repr=False, kw_only=True)
    _socket: socket.socket = field(repr=False, kw_only=True)
    _has_answered: bool = field(default=False, init=False, repr=False)
    """Since the last ping."""
    _backlog: deque[tuple[bytes, list[int]]] = field(factory=deque, init=False, repr=False)
    _has_backlog: trio.Event = field(factory=trio.Event, init=False, repr=False)

    def send_nowait(self, packet: bytes, fds: Sequence[int] = ()) -> None:
        """Send now, or keep it for when there is room. The descriptors stay the caller's.

        Raises:
            OSError: the spawner is gone, or has not read for too long.
        """
        if not self._backlog:
            try:
                messages.send(self._socket, packet, fds)
            except BlockingIOError:
                pass
            else:
                return
        if len(self._backlog) >= MAX_BACKLOG:
            raise OSError(errno.EAGAIN, "it does not read")
        self._backlog.append((packet, [os.dup(fd) for fd in fds]))
        self._has_backlog.set()

    async def run(self, on_message: Callable[[dict[str, Any]], None]) -> None:
        """Hand on what comes, until the spawner's end is closed."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_backlog)
            nursery.start_soon(self._watch)
            await self._receive(on_message)
            nursery.cancel_scope.cancel()

    async def _receive(self, on_message: Callable[[dict[str, Any]], None]) -> None:
        while True:
            try:
                received = messages.receive(self._socket)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)
                continue
            except OSError:
                return
            if received is None:
                return
            self._has_answered = True
            on_message(received[0])

    async def _watch(self) -> None:
        """Kill a spawner that does not answer: its jobs run on, but none could be started, ended or heard of."""
        silent = 0
        while silent < SILENT_PINGS:
            self._has_answered = False
            with suppress(OSError):  # it does not read; that is silence, too
                self.send_nowait(messages.encode({"op": "ping"}))
            await trio.sleep(PING_S)
            silent = 0 if self._has_answered or not self.is_ready else silent + 1
        log.error("the spawner has not answered for %g s: killing it", SILENT_PINGS * PING_S)
        os.kill(self.pid, signal.SIGKILL)  # not reaped yet, so the pid is its own

    async def _send_backlog(self) -> None:
        while True:
            await self._has_backlog.wait()
            await trio.lowlevel.wait_writable(self._socket)
            packet, fds = self._backlog[0]
            try:
                messages.send(self._socket, packet, fds)
            except BlockingIOError:
                continue
            except OSError:
                return  # the receiving side sees the end as well
            self._backlog.popleft()
            _close_all(fds)
            if not self._backlog:
                self._has_backlog = trio.Event()  # only this task waits for it

    def shut_down(self) -> None:
        """Say that nothing more comes: the spawner kills all it has, tells how it went, and ends."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    async def reap(self, grace_s: float) -> None:
        """Wait for the process to end, kill it after `grace_s` seconds, and release everything."""
        fd = os.pidfd_open(self.pid)
        try:
            with trio.move_on_after(grace_s):
                await trio.lowlevel.wait_readable(fd)
            if not select.select([fd], [], [], 0)[0]:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                await trio.lowlevel.wait_readable(fd)
        finally:
            os.close(fd)
        self._process.wait()
        self._socket.close()
        while self._backlog:
            _close_all(self._backlog.popleft()[1])


def open_link(marker: str, held_fds: Sequence[int] = ()) -> Link:
    """Start a spawner process.

    Args:
        marker: The owner id.
        held_fds: Descriptors that it keeps open for as long as it lives.

    Raises:
        OSError: it cannot be started.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        ours.setblocking(False)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(SPAWNER), str(theirs.fileno()), marker],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={messages.OWNER_VARIABLE: marker},
            cwd="/",
            pass_fds=(theirs.fileno(), *held_fds),
            start_new_session=True,  # a terminal's Ctrl-C is the control plane's to handle
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    found = proctree.look(process.pid)
    return Link(process.pid, found.start_ticks if found else 0, process=process, socket=ours)


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
