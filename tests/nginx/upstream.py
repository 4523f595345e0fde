"""An HTTP server that stands where a control plane does: it keeps every byte of every head, and answers as it is told.

Where only nginx's behaviour matters. Threads and sockets, as it must break off connections in the middle.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from typing import TYPE_CHECKING

from attrs import define, field, frozen

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_S = 60
"""A hang guard for everything that is waited for."""
LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


@frozen
class Taken:
    """A request as it came. `connection` counts the connections of this server."""

    head: bytes
    body_bytes: int
    connection: int

    @property
    def target(self) -> str:
        return self.head.split(b" ", 2)[1].decode()

    @property
    def fields(self) -> dict[str, str]:
        pairs = (line.split(b": ", 1) for line in self.head.split(b"\r\n")[1:] if line)
        return {name.decode().lower(): value.decode() for name, value in pairs}


def answer(taken: Taken, sock: socket.socket) -> bool:
    """What is answered unless a test says otherwise: which request it was. False would end the connection."""
    body = json.dumps({"connection": taken.connection, "body_bytes": taken.body_bytes}).encode()
    sock.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    return True


@define(eq=False)
class Upstream:
    """One server; `taken` is what came, in order. `begin` is called with a head before the body is read."""

    answer: Callable[[Taken, socket.socket], bool] = answer
    begin: Callable[[bytes, socket.socket], bool] = lambda _head, _sock: True
    taken: list[Taken] = field(factory=list, init=False)
    connections: int = field(default=0, init=False)
    _listener: socket.socket = field(init=False)
    _open: set[socket.socket] = field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        """Take no more, and cut what is open."""
        for sock in (self._listener, *self._open):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        self._listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _address = listener.accept()
            except OSError:
                return
            self.connections += 1
            sock.settimeout(PATIENCE_S)
            threading.Thread(target=self._serve, args=(sock, self.connections), daemon=True).start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        self._open.add(sock)
        try:
            with sock, sock.makefile("rb") as stream:
                while head := _head(stream.readline):
                    if not self.begin(head, sock):
                        return
                    taken = Taken(head, _body(head, stream.read, stream.readline), number)
                    self.taken.append(taken)
                    if not self.answer(taken, sock):
                        return
        except OSError:
            pass  # nginx left, or the test is over
        finally:
            self._open.discard(sock)


def _head(read_line: Callable[[], bytes]) -> bytes:
    head = b""
    while line := read_line():
        head += line
        if line == b"\r\n":
            return head
    return b""


def _body(head: bytes, read: Callable[[int], bytes], read_line: Callable[[], bytes]) -> int:
    """Its size; raises ConnectionError when it breaks off."""
    if not CHUNKED.search(head):
        length = LENGTH.search(head)
        return _exactly(int(length[1]), read) if length else 0
    total = 0
    while line := read_line():
        size = int(line, 16)
        total += _exactly(size, read)
        read_line()
        if size == 0:
            return total
    raise ConnectionError


def _exactly(size: int, read: Callable[[int], bytes]) -> int:
    if len(read(size)) < size:
        raise ConnectionError
    return size
