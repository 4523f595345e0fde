"""A control plane hands its listening sockets to the one that takes over from it, so that no caller is refused.

The old one offers them on a unix socket in the home to whoever has the administrator's token, which is kept in a file
that instances cannot read. From then on both hold them: whoever connects while one stops and the other starts waits in
the kernel's queue. One line of JSON each way:

    new to old: {"token": "…"}
    old to new: {"host": "127.0.0.1", "version": "0.1.0"}, with the sockets as SCM_RIGHTS
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path

import trio
from attrs import define, field, frozen

SOCKET_NAME = "takeover.sock"
EXCHANGE_S = 2.0
"""For both lines: milliseconds, unless the other one hangs."""
LINE_MAX_BYTES = 4096
WARN_EVERY_S = 60.0
"""Between two lines of the log about those who get nothing."""
MAX_ASKING = 16
"""Connections that have not shown the token yet. The next one costs the oldest its place: who has the token shows it at
once, so whoever would keep its place from it must open as many connections in that moment, and again at each attempt."""
MAX_LISTENERS = 16
"""One for each address that HOST means."""
log = logging.getLogger("corral")


class NoOffer(Exception):
    """The other one hands nothing over: an older version, one that hangs, or one that has ended meanwhile."""


@frozen
class Inheritance:
    """What was handed over: the sockets, and the HOST that they were opened for."""

    host: str
    version: str
    listeners: tuple[socket.socket, ...] = field(repr=False)

    def fits(self, host: str, port: int) -> bool:
        """Whether this is where one is to listen that is configured so; port 0 takes any."""
        return host == self.host and port in (0, *(listener.getsockname()[1] for listener in self.listeners))

    def close(self) -> None:
        for listener in self.listeners:
            listener.close()


# -- the old one


async def offer(
    run: Path,
    token: str,
    about: dict[str, str],
    listeners: Sequence[socket.socket],
    on_handed: Callable[[], None] = lambda: None,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Service loop: hand the listeners to everybody who shows the token.

    Args:
        run: The folder for the socket.
        token: The administrator's.
        about: `host` and `version`.
        listeners: Stay this one's as well.
        on_handed: Called when somebody has got them.
    """
    reception = _Reception(token, about, listeners, on_handed)
    with _path(run) as path:
        (run / SOCKET_NAME).unlink(missing_ok=True)  # of a control plane that was killed
        with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
            os.fchmod(door.fileno(), 0o600)  # before it has a name
            await door.bind(path)
            door.listen()
            task_status.started()
            try:
                async with trio.open_nursery() as nursery:
                    while True:
                        connection, _ = await door.accept()
                        nursery.start_soon(reception.receive, connection, reception.seat())
            finally:
                (run / SOCKET_NAME).unlink(missing_ok=True)


@define(eq=False)
class _Reception:
    """Hears those who ask, beside each other: who says nothing keeps nobody from being heard."""

    token: str
    about: dict[str, str]
    listeners: Sequence[socket.socket]
    on_handed: Callable[[], None]
    _seats: deque[trio.CancelScope] = field(factory=deque, init=False)
    """One for each connection that has not shown the token yet, the oldest first."""
    _quiet_until: float = field(default=-inf, init=False)

    def seat(self) -> trio.CancelScope:
        """A place for one more; the one that has said nothing for longest goes for it."""
        while len(self._seats) >= MAX_ASKING:
            self._seats.popleft().cancel()
        scope = trio.CancelScope(deadline=trio.current_time() + EXCHANGE_S)
        self._seats.append(scope)
        return scope

    async def receive(self, connection: trio.socket.SocketType, scope: trio.CancelScope) -> None:
        """Hear one. Instances of this user may reach the socket: nothing that they say may end more than their connection."""
        with connection:
            with scope, suppress(OSError, ValueError, RecursionError):
                if await self._hand(connection, scope):
                    return
            self._leave(scope)
        if trio.current_time() >= self._quiet_until:  # who asks again and again must not push all else out of the log
            self._quiet_until = trio.current_time() + WARN_EVERY_S
            log.warning("somebody asked for the listening sockets, and got none")

    async def _hand(self, connection: trio.socket.SocketType, scope: trio.CancelScope) -> bool:
        """Whether they were handed over."""
        asked = json.loads(await _line(connection))
        shown = asked.get("token") if isinstance(asked, dict) else None
        if not isinstance(shown, str) or not hmac.compare_digest(shown.encode(), self.token.encode()):
            return False
        self._leave(scope)  # no stranger takes this one's place any more
        numbers = [listener.fileno() for listener in self.listeners]
        if min(numbers, default=-1) < 0:  # it is stopping already
            return False
        answer = json.dumps(self.about).encode() + b"\n"
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, b"".join(n.to_bytes(4, sys.byteorder) for n in numbers))
        await connection.sendmsg([answer], [rights])  # one short line: it goes whole
        log.info("handed the listening sockets to another control plane, which takes over")
        self.on_handed()
        return True

    def _leave(self, scope: trio.CancelScope) -> None:
        with suppress(ValueError):
            self._seats.remove(scope)


async def _line(connection: trio.socket.SocketType) -> bytes:
    text = b""
    while not text.endswith(b"\n"):
        part = await connection.recv(LINE_MAX_BYTES)
        text += part
        if not part or len(text) > LINE_MAX_BYTES:
            raise ValueError("no line")
    return text


# -- the new one


def ask(run: Path, token: str, holder: int) -> Inheritance:
    """Ask the control plane that runs for its listening sockets. Blocks, at most for `EXCHANGE_S`.

    Args:
        run: The folder of the socket.
        token: The administrator's, as the home keeps it.
        holder: The pid that must be at the other end.

    Raises:
        NoOffer: it gives none.
    """
    with _path(run) as path, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(EXCHANGE_S)
        try:
            connection.connect(path)
            if _peer(connection) != holder:
                raise NoOffer("somebody else is at its socket")
            connection.sendall(json.dumps({"token": token}).encode() + b"\n")
            text, numbers, _flags, _address = socket.recv_fds(connection, LINE_MAX_BYTES, MAX_LISTENERS)
        except OSError as error:
            raise NoOffer(str(error)) from error
    listeners = tuple(_listener(number) for number in numbers)
    try:
        about = json.loads(text)
        inheritance = Inheritance(str(about["host"]), str(about["version"]), listeners)
        if not listeners:
            raise NoOffer("it is stopping already")
    except BaseException as error:
        for listener in listeners:
            listener.close()
        if isinstance(error, (ValueError, KeyError, TypeError)):
            raise NoOffer("it refused") from error
        raise
    return inheritance


def _listener(number: int) -> socket.socket:
    os.set_inheritable(number, False)  # what comes by SCM_RIGHTS would go to children
    listener = socket.socket(fileno=number)
    listener.setblocking(False)
    return listener


def _peer(connection: socket.socket) -> int:
    """The pid at the other end (`struct ucred`: pid, uid, gid)."""
    return int.from_bytes(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)


@contextmanager
def _path(run: Path) -> Iterator[str]:
    """A name for the socket that is short enough, however deep the home lies (107 bytes)."""
    folder = os.open(run, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{SOCKET_NAME}"
    finally:
        os.close(folder)
