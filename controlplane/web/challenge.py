"""What is said to clients that may not pass: where they get a token, for what, and with which scope.

`WWW-Authenticate` of RFC 6750, with the pointer to the resource's metadata of RFC 9728, which MCP
clients follow. Without an issuer there is nothing to point to, and the challenge is the plain one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlplane.model import Role
from controlplane.web.mcp_path import MCP_PATH
from controlplane.web.oidc.claims import scope_of

if TYPE_CHECKING:
    from controlplane.web.request import Head

METADATA_PATH = "/.well-known/oauth-protected-resource"
PLAIN = 'Bearer realm="corral"'


def base_url(head: Head, public_url: str | None, *, trusts_peer: bool) -> str:
    """This server's own address for the sender of a request, whose Host has been checked.

    Args:
        head: The request.
        public_url: What the settings say; it wins.
        trusts_peer: Whether the peer is a proxy whose `X-Forwarded-Proto` counts.
    """
    if public_url is not None:
        return public_url
    forwarded = head.fields.get(b"x-forwarded-proto", b"").strip().lower() if trusts_peer else b""
    scheme = "https" if forwarded == b"https" else "http"
    return f"{scheme}://{head.fields.get(b'host', b'').decode('latin-1').lower()}"


def metadata_path(path: str) -> str:
    """Where the metadata are of what a request's path names: an endpoint's own, else the server's."""
    found = MCP_PATH.fullmatch(path)
    return METADATA_PATH if found is None else f"{METADATA_PATH}/mcp/{found[1]}"


def scope_for(path: str) -> str | None:
    """The scope that a client needs for an endpoint; None: the path says nothing of it."""
    found = MCP_PATH.fullmatch(path)
    if found is None:
        return None
    return scope_of(Role.VIEWER if found[2] == "stream" else Role.CALLER)


def challenge(base: str, path: str, *, scope: str | None = None, error: str | None = None) -> str:
    """The field's value. The path's characters are what a quoted string may hold, or the pointer leads to the server's own."""
    pointer = metadata_path(path)
    if not pointer.isascii() or not pointer.isprintable() or '"' in pointer or "\\" in pointer:
        pointer = METADATA_PATH
    words = [PLAIN, f'resource_metadata="{base}{pointer}"']
    if scope is not None:
        words.append(f'scope="{scope}"')
    if error is not None:
        words.append(f'error="{error}"')
    return ", ".join(words)
