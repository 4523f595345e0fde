"""What a call looks like on the wire of each era, and what comes back of it. Pure.

Legacy servers get the caller's parameters as they are. Modern servers need the
envelope's `_meta` in every request. Bare servers get no `_meta`, and their
answers are mended into what MCP promises.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controlplane.core.jsonrpc import decode_json, encode, member_value
from controlplane.protocol.handshake import Era, ProtocolFacts, modern_meta

INTERNAL_ERROR = -32603


def outgoing_params(era: Era, params: bytes | None, version: str) -> bytes | None:
    """Turn a caller's raw parameters into what the server needs.

    Args:
        era: How the server is talked to.
        params: Raw JSON, an object or an array, or None.
        version: Corral's own version, for the modern envelope.
    """
    if era is Era.LEGACY:
        return params
    if era is Era.BARE:
        return _without_meta(params)
    return _with_meta(params, modern_meta(version))


def with_progress_token(params: bytes | None, token: str) -> tuple[bytes, Any]:
    """Put Corral's own progress token in; returns the parameters and the caller's token, None if it had none."""
    value = decode_json(params) if params else {}
    if not isinstance(value, dict):
        return params or b"{}", None
    meta = value.get("_meta")
    meta = dict(meta) if isinstance(meta, dict) else {}
    theirs = meta.get("progressToken")
    meta["progressToken"] = token
    return encode(value | {"_meta": meta}), theirs


def synthesized(facts: ProtocolFacts, method: str) -> bytes | None:
    """The answer to a method that is Corral's own business, None if the server is to be asked.

    The handshake is done, so `initialize` answers what was found; `ping` does
    not exist in the modern era and the bare dialect.
    """
    if method == "initialize":
        result: dict[str, Any] = {
            "protocolVersion": facts.version or "2024-11-05",
            "capabilities": dict(facts.capabilities),
            "serverInfo": dict(facts.server_info) or {"name": "unknown", "version": "0"},
        }
        if facts.instructions is not None:
            result["instructions"] = facts.instructions
        return b'"result":' + encode(result)
    if method == "ping" and facts.era is not Era.LEGACY:
        return b'"result":{}'
    return None


def mended(method: str, member: bytes) -> bytes:
    """Turn a bare server's answer into one that MCP clients accept."""
    name, _, _ = member.partition(b":")
    value = member_value(member)
    if name == b'"error"':
        return b'"error":' + encode(_mended_error(value))
    if method == "tools/call" and not (isinstance(value, dict) and "content" in value):
        value = {"content": [{"type": "text", "text": encode(value).decode()}]}
    elif method == "tools/list" and isinstance(value, dict):
        value = value | {"tools": [_mended_tool(tool) for tool in value.get("tools") or []]}
    elif not isinstance(value, dict):
        value = {"value": value}
    return b'"result":' + encode(value)


def _mended_error(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {"code": INTERNAL_ERROR, "message": str(value)}
    code = value.get("code")
    error: dict[str, Any] = {
        "code": code if isinstance(code, int) and not isinstance(code, bool) else INTERNAL_ERROR,
        "message": str(value.get("message", "error")),
    }
    return error | ({"data": value["data"]} if "data" in value else {})


def _mended_tool(tool: Any) -> Any:
    if isinstance(tool, dict) and not isinstance(tool.get("inputSchema"), dict):
        return tool | {"inputSchema": {"type": "object"}}
    return tool


def _without_meta(params: bytes | None) -> bytes | None:
    if params is None or b'"_meta"' not in params:
        return params
    value = decode_json(params)
    if not isinstance(value, dict):
        return params
    value.pop("_meta", None)
    return encode(value)


def _with_meta(params: bytes | None, meta: Mapping[str, Any]) -> bytes:
    raw = (params or b"{}").strip()
    if b'"_meta"' not in raw and raw.startswith(b"{"):
        # Splice instead of decoding: the caller's bytes pass through exactly.
        rest = raw[1:].lstrip()
        return b'{"_meta":' + encode(meta) + (b"" if rest.startswith(b"}") else b",") + rest
    value = decode_json(raw)
    if not isinstance(value, dict):
        return raw
    theirs = value.get("_meta")
    return encode(value | {"_meta": (dict(theirs) if isinstance(theirs, dict) else {}) | dict(meta)})
