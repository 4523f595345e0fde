"""What MCP clients of both eras send over Streamable HTTP, as requests for the load programs."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from attrs import frozen

from bench import rest

LEGACY_VERSION = "2025-06-18"
"""The newest that all peers serve."""
MODERN_VERSION = "2026-07-28"
BOTH_TYPES = {"Accept": "application/json, text/event-stream"}
LEGACY_FIELDS = BOTH_TYPES | {"MCP-Protocol-Version": LEGACY_VERSION}
HELLO = {
    "jsonrpc": "2.0",
    "id": "hello",
    "method": "initialize",
    "params": {
        "protocolVersion": LEGACY_VERSION,
        "capabilities": {},
        "clientInfo": {"name": "bench", "version": "1"},
    },
}
THANKS = {"jsonrpc": "2.0", "method": "notifications/initialized"}
_META = "io.modelcontextprotocol/"
ENVELOPE = {
    _META + "protocolVersion": MODERN_VERSION,
    _META + "clientInfo": {"name": "bench", "version": "1"},
    _META + "clientCapabilities": {},
}


class Era(Enum):
    """How one side speaks: with handshake and sessions, or with neither."""

    LEGACY = "legacy"
    MODERN = "modern"


@frozen
class Pair:
    """A client of one era and a server of one."""

    client: Era
    server: Era

    @property
    def name(self) -> str:
        return f"{self.client.value} → {self.server.value}"


NATIVE_LEGACY = Pair(Era.LEGACY, Era.LEGACY)
PAIRS = (Pair(Era.MODERN, Era.MODERN), NATIVE_LEGACY, Pair(Era.MODERN, Era.LEGACY), Pair(Era.LEGACY, Era.MODERN))
"""First the two whose messages pass through, then the two that are bridged."""


def requests(era: Era, port: int, path: str, connections: int, fields: Mapping[str, str] | None = None) -> list[bytes]:
    """One complete `echo` call per connection; a legacy client has a session on each.

    Args:
        era: The client's.
        port: Where the gateway listens.
        path: Of its MCP endpoint.
        connections: How many.
        fields: Sent with everything.
    """
    own = dict(fields or {})
    if era is Era.MODERN:
        mirrored = {"MCP-Protocol-Version": MODERN_VERSION, "Mcp-Method": "tools/call", "Mcp-Name": "echo"}
        body = _call(rest.echo_params(rest.MARK) | {"_meta": ENVELOPE})
        return [rest.request(port, "POST", path, body, own | BOTH_TYPES | mirrored)] * connections
    body = _call(rest.echo_params(rest.MARK))
    sessions = [open_session(port, path, own) for _ in range(connections)]
    return [
        rest.request(port, "POST", path, body, own | LEGACY_FIELDS | {"Mcp-Session-Id": str(session)})
        for session in sessions
    ]


def _call(params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": rest.MARK, "method": "tools/call", "params": params}


def open_session(port: int, path: str, fields: Mapping[str, str] | None = None) -> str | None:
    """Introduce a legacy client; returns its session's id, None while the gateway is not ready."""
    own = LEGACY_FIELDS | dict(fields or {})
    answer = rest.ask(port, "POST", path, HELLO, own)
    session = answer.fields.get("mcp-session-id")
    if answer.status == 200 and session is not None:
        rest.ask(port, "POST", path, THANKS, own | {"Mcp-Session-Id": session})
    return session
