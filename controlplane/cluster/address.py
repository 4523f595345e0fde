"""Where the other control planes reach this one."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import NAMESPACE_OID, UUID, uuid5

if TYPE_CHECKING:
    from controlplane.config import Config


def node_id(owner_id: str) -> UUID:
    """The node's id: its home's, so that it stays the same over restarts."""
    try:
        return UUID(owner_id)
    except ValueError:  # somebody wrote it by hand
        return uuid5(NAMESPACE_OID, owner_id)


def node_url(config: Config, port: int) -> str:
    """NODE_URL, or what HOST and the port say: an address that means every interface stands for this machine's name.

    Args:
        config: The settings.
        port: Of the listener. 0 while it is not known yet, which nobody reaches.
    """
    if config.node_url is not None:
        return config.node_url
    host = socket.gethostname() if _is_wildcard(config.host) else config.host
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def node_name(config: Config) -> str:
    """The name or address in it, which is one of this server's own."""
    return urlsplit(node_url(config, config.port)).hostname or ""


def _is_wildcard(host: str) -> bool:
    try:
        return not host or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
