"""The way to the package registry for containers on a network that leads nowhere: a proxy that knows CONNECT alone."""

from __future__ import annotations

import select
import socket
import subprocess
import threading
from contextlib import contextmanager, suppress
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWER_LIMIT_S = 60
IDLE_LIMIT_S = 120
PIECE_BYTES = 65536


class _Server(ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    allowed: str


class _Handler(StreamRequestHandler):
    timeout = ANSWER_LIMIT_S
    server: _Server

    def handle(self) -> None:
        method, _, rest = self.rfile.readline(4096).decode("latin-1").partition(" ")
        target = rest.partition(" ")[0]
        while self.rfile.readline(4096).strip():
            pass
        if method != "CONNECT" or target != self.server.allowed:
            self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            return
        host, _, port = target.rpartition(":")
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=ANSWER_LIMIT_S) as out:
            self.wfile.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            _join(self.connection, out)


def _join(one: socket.socket, other: socket.socket) -> None:
    """Hand on what comes, either way, until one side ends."""
    peers = {one: other, other: one}
    while readable := select.select(list(peers), [], [], IDLE_LIMIT_S)[0]:
        for sock in readable:
            data = sock.recv(PIECE_BYTES)
            if not data:
                return
            peers[sock].sendall(data)


@contextmanager
def open_proxy(host: str, port: int) -> Iterator[None]:
    """Serve on one address of this machine, for connections to the registry that npm is set to."""
    configured = subprocess.run(
        ["npm", "config", "get", "registry"], capture_output=True, text=True, timeout=ANSWER_LIMIT_S, check=True
    )
    with _Server((host, port), _Handler) as server:
        server.allowed = f"{urlsplit(configured.stdout.strip()).hostname}:443"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
