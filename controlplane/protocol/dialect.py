"""What a call looks like on the wire of each era, and what comes back of it. Pure.

Legacy servers get the caller's parameters as they are. Modern servers need the
envelope's `_meta` in every request. Bare servers get no `_meta`, and their
answers are mended into what MCP promises. Only the members in question are
touched: every other value stays the bytes that its author wrote.
"""

from __future__ import annotations

from typing import Any

import msgspec

from controlplane.core.jsonrpc import INTERNAL_ERROR
from controlplane.core.rawjson import decode_or_none, encode, items, members
from controlplane.protocol.handshake import Era, ProtocolFacts, modern_meta

MESSAGE_MAX_CHARS = 2_000
"""Of an error that a bare server gives as something else than a message."""


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


def with_progress_token(params: bytes | None, token: str) -> tuple[bytes | None, bytes | None]:
    """Put Corral's own progress token in; returns the parameters and the caller's raw token, None if it had none."""
    found = {} if params is None else members(params)
    if found is None:
        return params, None
    meta = _object(found.get("_meta"))
    theirs = meta.get("progressToken")
    return encode(found | {"_meta": meta | {"progressToken": token}}), None if theirs is None else bytes(theirs)


def with_callers_token(params: bytes | None, theirs: bytes | None) -> bytes | None:
    """Put the caller's own progress token back into a progress notification's parameters."""
    found = None if params is None or theirs is None else members(params)
    if found is None or theirs is None:
        return params
    return encode(found | {"progressToken": msgspec.Raw(theirs)})


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
    name, _, raw = member.partition(b":")
    if name == b'"error"':
        return b'"error":' + encode(_mended_error(raw))
    found = members(raw)
    if method == "tools/call":
        return member if found is not None and "content" in found else b'"result":' + encode(_as_content(raw))
    if found is None:  # no object, or one that cannot be read and is best left as it is
        return member if raw.startswith(b"{") else b'"result":{"value":' + raw + b"}"
    if method == "tools/list":
        tools = items(bytes(found.get("tools", b""))) or []
        return b'"result":' + encode(found | {"tools": [_mended_tool(tool) for tool in tools]})
    return member


def _as_content(raw: bytes) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": raw.decode("utf-8", "replace")}]}


def _mended_error(raw: bytes) -> dict[str, Any]:
    found = members(raw)
    if found is None:
        return {"code": INTERNAL_ERROR, "message": _words(raw)}
    code = decode_or_none(bytes(found.get("code", b"null")))
    error: dict[str, Any] = {
        "code": code if isinstance(code, int) and not isinstance(code, bool) else INTERNAL_ERROR,
        "message": _words(bytes(found.get("message", b"null"))),
    }
    return error | ({"data": found["data"]} if "data" in found else {})


def _words(raw: bytes) -> str:
    """A message as text, whatever it is."""
    if raw == b"null":
        return "error"
    value = decode_or_none(raw)
    return (
        value if isinstance(value, str) else raw[: MESSAGE_MAX_CHARS * 4].decode("utf-8", "replace")[:MESSAGE_MAX_CHARS]
    )


def _mended_tool(tool: bytes) -> Any:
    found = members(tool)
    if found is None or bytes(found.get("inputSchema", b"")).startswith(b"{"):
        return msgspec.Raw(tool)
    return found | {"inputSchema": {"type": "object"}}


def _without_meta(params: bytes | None) -> bytes | None:
    if params is None or (b"_meta" not in params and b"\\u" not in params):
        return params
    found = members(params)
    if found is None or "_meta" not in found:
        return params
    del found["_meta"]
    return encode(found)


def _with_meta(params: bytes | None, meta: dict[str, Any]) -> bytes:
    raw = b"{}" if params is None or params == b"null" else params.lstrip()
    if not raw.startswith(b"{"):
        return raw
    found = members(raw)
    if found is None:  # nested too deep to read: put in front what the caller may well have written itself
        return b'{"_meta":' + encode(meta) + b"," + raw[1:]
    theirs = _object(found.pop("_meta", None))
    return encode({"_meta": theirs | meta} | found)


def _object(raw: msgspec.Raw | None) -> dict[str, Any]:
    return (None if raw is None else members(bytes(raw))) or {}
