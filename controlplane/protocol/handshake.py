"""Find out what a stdio server speaks: the modern era, a legacy version, or the bare dialect.

Pure: replies and time-outs in, the next step out. The order follows MCP
2026-07-28 (stdio, era detection): `server/discover` first; a DiscoverResult or
an unsupported-version error means modern, anything else means `initialize`.
A server may lock its era at the first frame, so only a first answer counts.

The bare dialect is what simple line servers speak: replies of only `result` or
`error`, without `jsonrpc` and `id`, one to every line in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from attrs import define, field, frozen

from controlplane.core.jsonrpc import (
    METHOD_NOT_FOUND,
    UNSUPPORTED_PROTOCOL_VERSION,
    Response,
    error_code,
    member_value,
    own_id,
)

MODERN_VERSION = "2026-07-28"
LEGACY_VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
PROBE_ID = 1
INITIALIZE_ID = 2
FIRST_CALL_ID = 16
META = "io.modelcontextprotocol/"


class Era(Enum):
    """How to talk to a server."""

    MODERN = "modern"
    LEGACY = "legacy"
    BARE = "bare"


@frozen(kw_only=True)
class ProtocolFacts:
    """What the handshake found. `version` is None where the server names none."""

    era: Era
    version: str | None = None
    server_info: Mapping[str, Any] = field(factory=dict)
    capabilities: Mapping[str, Any] = field(factory=dict)
    instructions: str | None = None
    raw: bytes = field(default=b"{}", repr=False, eq=False)
    """The result of the handshake as the server wrote it."""


@frozen
class Wait:
    """Nothing to do until the next reply."""


@frozen
class SendInitialize:
    """Write the legacy `initialize` request."""


@frozen
class Ready:
    """The handshake is done."""

    facts: ProtocolFacts


@frozen
class Refused:
    """The server answered, but cannot be talked to; `reason` is one sentence."""

    reason: str


Step = Wait | SendInitialize | Ready | Refused


def client_info(version: str) -> dict[str, str]:
    """How Corral introduces itself to servers."""
    return {"name": "corral", "version": version}


def modern_meta(version: str) -> dict[str, Any]:
    """The `_meta` that every modern request carries."""
    return {
        META + "protocolVersion": MODERN_VERSION,
        META + "clientCapabilities": {},
        META + "clientInfo": client_info(version),
    }


def initialize_params(version: str) -> dict[str, Any]:
    """Offer the newest legacy version and no client capabilities."""
    return {"protocolVersion": LEGACY_VERSIONS[0], "capabilities": {}, "clientInfo": client_info(version)}


@define
class Handshake:
    """Folds replies into steps; `initialize` is asked for once at most.

    With `is_direct` there is no probe: the server is to speak the legacy era, and
    any error says that it does not.
    """

    is_direct: bool = False
    _initialize_sent: bool = field(default=False, init=False)
    _probe_answered: bool = field(default=False, init=False)

    def on_reply(self, reply: Response) -> Step:
        """Fold one reply of the server."""
        if reply.id is None:
            return Refused("the server answers without ids") if self.is_direct else Ready(ProtocolFacts(era=Era.BARE))
        if reply.id == b"null":  # JSON-RPC: the request could not be read; a late one of these answers the probe too
            return self._initialize()
        number = own_id(reply.id)
        if number == PROBE_ID:
            return self._on_probe_reply(reply)
        return self._on_initialize_reply(reply) if number == INITIALIZE_ID else Wait()

    def on_probe_timeout(self) -> Step:
        """The probe stays unanswered: an old server may ignore what it does not know."""
        return self._initialize()

    def _initialize(self) -> Step:
        if self._initialize_sent:
            return Wait()
        self._initialize_sent = True
        return SendInitialize()

    def _on_probe_reply(self, reply: Response) -> Step:
        self._probe_answered = True
        value = member_value(reply.member)
        if not isinstance(value, dict):
            return self._initialize()
        if reply.is_error:
            if value.get("code") == UNSUPPORTED_PROTOCOL_VERSION:
                return Refused(_no_common_version(value.get("data")))
            return self._initialize()
        if MODERN_VERSION not in _list(value.get("supportedVersions")):
            return self._initialize()
        meta = _dict(value.get("_meta"))
        return Ready(
            ProtocolFacts(
                era=Era.MODERN,
                version=MODERN_VERSION,
                server_info=_dict(meta.get(META + "serverInfo")),
                capabilities=_dict(value.get("capabilities")),
                instructions=_text(value.get("instructions")),
                raw=reply.member.partition(b":")[2],
            )
        )

    def _on_initialize_reply(self, reply: Response) -> Step:
        value = member_value(reply.member)
        if reply.is_error:
            return self._on_initialize_error(error_code(reply.member), _dict(value))
        if not isinstance(value, dict):
            return Refused("the server's answer to initialize is not an object")
        return Ready(
            ProtocolFacts(
                era=Era.LEGACY,
                version=_text(value.get("protocolVersion")),
                server_info=_dict(value.get("serverInfo")),
                capabilities=_dict(value.get("capabilities")),
                instructions=_text(value.get("instructions")),
                raw=reply.member.partition(b":")[2],
            )
        )

    def _on_initialize_error(self, code: int | None, error: Mapping[str, Any]) -> Step:
        if self.is_direct:
            return Refused(f"the server refused initialize: {error.get('message') or code}")
        if code == METHOD_NOT_FOUND:  # speaks JSON-RPC with ids, but no handshake: calls work all the same
            return Ready(ProtocolFacts(era=Era.LEGACY))
        if code == UNSUPPORTED_PROTOCOL_VERSION:
            # A dual-era server that took the probe first: its answer is on the way, unless it has come already.
            return Refused(_no_common_version(error.get("data"))) if self._probe_answered else Wait()
        return Refused(f"the server refused initialize: {error.get('message') or code}")


def _no_common_version(data: Any) -> str:
    supported = ", ".join(str(v) for v in _list(_dict(data).get("supported"))) or "none named"
    return f"the server speaks no protocol version that Corral does (it offers: {supported})"


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
