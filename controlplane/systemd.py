"""What a service says to systemd (`sd_notify`), and the sockets it may be given by it (`sd_listen_fds`).

Without systemd, neither variable is set and nothing happens.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress

FIRST_FD = 3
"""Of those that are handed over (`SD_LISTEN_FDS_START`)."""
NOTIFY_LIMIT_S = 1.0
"""For a datagram on this host: it may wait for room in the other's queue."""
READY, STOPPING = "READY=1", "STOPPING=1"


def tell(*states: str) -> None:
    """Say how it goes; one line each. That nobody listens is no error."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
        notify.settimeout(NOTIFY_LIMIT_S)
        notify.connect("\0" + address[1:] if address[0] == "@" else address)
        notify.send("\n".join(states).encode())


def take_sockets(environ: MutableMapping[str, str]) -> tuple[socket.socket, ...]:
    """The listening sockets of the unit's `.socket`; none if there is none. The variables go, as they are for us alone."""
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return ()
    taken = []
    for number in range(FIRST_FD, FIRST_FD + int(count)):
        os.set_inheritable(number, False)
        listener = socket.socket(fileno=number)
        listener.setblocking(False)
        taken.append(listener)
    return tuple(taken)
