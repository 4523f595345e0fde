"""The listening sockets, and the options that every accepted connection inherits from them."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from controlplane.config import ConfigError

if TYPE_CHECKING:
    from controlplane.config import Config

BACKLOG = 1024
"""Connections that the kernel completes for us before they are accepted."""
USER_TIMEOUT_MS = 30_000
"""The kernel drops a connection whose peer acknowledges nothing for so long: it is gone, or will not read."""
MAX_PORT_TRIES = 10


def listen(config: Config) -> list[socket.socket]:
    """Listen where the settings say.

    Raises:
        ConfigError: that cannot be had.
    """
    try:
        return open_listeners(config.host, config.port)
    except OSError as error:
        where = f"{config.host}:{config.port}"
        raise ConfigError([f"cannot listen on {where}: {error}. HOST and PORT choose another address"]) from error


def open_listeners(host: str, port: int) -> list[socket.socket]:
    """Listen on every address that `host` means, all on the same port.

    Args:
        host: A name or an address; empty is every interface.
        port: 0 takes any free one.

    Raises:
        OSError: an address cannot be had; nothing stays open.
    """
    for attempt in range(MAX_PORT_TRIES):
        try:
            return _open_all(host, port)
        except OSError as error:
            # A free port of one address family may be taken in the other.
            if port != 0 or error.errno != errno.EADDRINUSE or attempt == MAX_PORT_TRIES - 1:
                raise
    raise AssertionError("unreachable")


def _open_all(host: str, port: int) -> list[socket.socket]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners: list[socket.socket] = []
    try:
        for family, _kind, protocol, _name, (ip, _port, *more) in dict.fromkeys(found):
            free_or_given = listeners[0].getsockname()[1] if listeners else port
            listener = _open(family, protocol, (ip, free_or_given, *more))
            if listener is not None:
                listeners.append(listener)
        if not listeners:
            raise OSError(errno.EADDRNOTAVAIL, f"{host} has no address on this machine")
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _open(family: int, protocol: int, address: tuple[object, ...]) -> socket.socket | None:
    """None when the host does not have this address family, as many containers have no IPv6."""
    try:
        listener = socket.socket(family, socket.SOCK_STREAM, protocol)
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            return None
        raise
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.setblocking(False)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRNOTAVAIL and family == socket.AF_INET6:
            return None
        raise
    return listener
