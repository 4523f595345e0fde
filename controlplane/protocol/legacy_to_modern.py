"""A legacy client and a server that speaks the modern version: what each of them gets of the other.

Pure. The client's handshake, `ping` and `logging/setLevel` are answered here;
the server gets the envelope with every request, and the client gets results
without what its version does not know. What the server asks for is in
`input_rounds`, what it tells unasked in `listening`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from controlplane.core.jsonrpc import INTERNAL_ERROR, INVALID_REQUEST
from controlplane.core.rawjson import decode_or_none, encode, items, members
from controlplane.protocol.capabilities import (
    CACHED_ENTRIES,
    CACHED_MAX_BYTES,
    for_modern_server,
    offered,
    without_task_support,
)
from controlplane.protocol.handshake import META, MODERN_VERSION, Era, ProtocolFacts
from controlplane.protocol.input_rounds import Ask, Final, InputRequest, InputRounds
from controlplane.protocol.listening import list_listen, subscribe_listen, untagged
from controlplane.protocol.members import (
    EMPTY_RESULT,
    SERVER_INFO,
    each_item,
    error,
    in_front,
    is_error,
    is_object,
    object_members,
    value,
    without_meta,
)
from controlplane.protocol.modern_to_legacy import CACHEABLE

__all__ = [
    "Ask",
    "Final",
    "InputRequest",
    "InputRounds",
    "ends_here",
    "initialize_result",
    "legacy_member",
    "list_listen",
    "modern_params",
    "subscribe_listen",
    "synthesized",
    "untagged",
]

_ENDS_HERE = frozenset({"notifications/initialized", "notifications/progress", "notifications/roots/list_changed"})
_ENVELOPE = frozenset(META + name for name in ("protocolVersion", "clientCapabilities", "clientInfo", "logLevel"))
_RECODED = {
    -32020: INTERNAL_ERROR,  # header mismatch, and
    -32022: INTERNAL_ERROR,  # unsupported version: about what Corral wrote, not the client
    -32021: INVALID_REQUEST,  # missing client capability: this client cannot make this request
}
_NULL = msgspec.Raw(b"null")
_UNKNOWN_SERVER = {"name": "unknown", "version": "0"}


def initialize_result(facts: ProtocolFacts, version: str) -> bytes:
    """The raw result of `initialize`, for a client of any server.

    Args:
        facts: What the handshake with the server found.
        version: What was negotiated with this client.
    """
    result: dict[str, Any] = {
        "protocolVersion": version,
        "capabilities": offered(facts, native=facts.era is Era.LEGACY),
        "serverInfo": _UNKNOWN_SERVER | dict(facts.server_info),
    }
    return encode(result | ({} if facts.instructions is None else {"instructions": facts.instructions}))


def synthesized(method: str) -> bytes | None:
    """The answer to what the modern era has no method for, None if the server is to be asked.

    The level of `logging/setLevel` is the caller's to keep: it goes with every later request.
    """
    return EMPTY_RESULT if method in {"ping", "logging/setLevel"} else None


def ends_here(method: str) -> bool:
    """Whether a client's notification means nothing to a modern server, and is not passed on."""
    return method in _ENDS_HERE


# -- what the server gets


def modern_params(
    params: bytes | None, *, client_info: bytes | None, capabilities: bytes | None, log_level: str | None
) -> bytes:
    """A legacy client's raw parameters as a modern server needs them: with the envelope.

    Args:
        params: As the client wrote them; its own `_meta` stays (`progressToken`, `traceparent`).
        client_info: Raw, from its `initialize`.
        capabilities: Raw, from its `initialize`.
        log_level: From its last `logging/setLevel`; None where it sent none, and gets no log messages.
    """
    envelope = _envelope(client_info, capabilities, log_level)
    if params is None or params == b"null":
        return b'{"_meta":{' + envelope + b"}}"
    if not is_object(params):
        return params
    found = None if b"_meta" not in params and b"\\u" not in params else members(params)
    if found is None or "_meta" not in found:  # not there, or not to be read
        return in_front(b'"_meta":{' + envelope + b"}", params)
    theirs = {name: raw for name, raw in object_members(found.pop("_meta")).items() if name not in _ENVELOPE}
    return in_front(b'"_meta":' + in_front(envelope, encode(theirs)), encode(found))


def _envelope(client_info: bytes | None, capabilities: bytes | None, log_level: str | None) -> bytes:
    """The envelope's members, without braces."""
    size = len(client_info or b"") + len(capabilities or b"")
    make = _cached_envelope if size <= CACHED_MAX_BYTES else _new_envelope
    return make(client_info, capabilities, log_level)


def _new_envelope(client_info: bytes | None, capabilities: bytes | None, log_level: str | None) -> bytes:
    meta: dict[str, Any] = {
        META + "protocolVersion": MODERN_VERSION,
        META + "clientCapabilities": msgspec.Raw(for_modern_server(capabilities)),
    }
    if client_info is not None and is_object(client_info):
        meta[META + "clientInfo"] = msgspec.Raw(client_info)
    if log_level is not None:
        meta[META + "logLevel"] = log_level
    return encode(meta)[1:-1]


_cached_envelope = lru_cache(CACHED_ENTRIES)(_new_envelope)


# -- what the client gets


def legacy_member(method: str, member: bytes) -> bytes:
    """A modern server's final answer as a legacy client knows it.

    Up to 2025-11-25 structured output is an object, and clients refuse the whole answer where it is not: other output
    goes as text, and its schema is left out of the tool.

    Args:
        method: Of the request.
        member: The raw `"result":…` or `"error":…`; not one that asks for input.
    """
    if is_error(member):
        return _legacy_error(member)
    found = members(value(member))
    if found is None:  # no object, or too deep to read; a legacy client looks over what it does not know
        return member
    kind = decode_or_none(bytes(found.pop("resultType", _NULL)))
    if kind not in (None, "complete"):  # a tuple: it may be anything
        return error(INTERNAL_ERROR, f"the server's result is of a kind that this protocol version lacks: {kind}")
    for name in ("ttlMs", "cacheScope") if method in CACHEABLE else ():
        found.pop(name, None)
    without_meta(found, lambda name: name == SERVER_INFO)
    if method == "tools/call":
        _structured_as_text(found)
    elif method == "tools/list":
        each_item(found, "tools", _legacy_tool)
    return b'"result":' + encode(found)


def _structured_as_text(found: dict[str, Any]) -> None:
    raw = found.get("structuredContent")
    if raw is None or is_object(bytes(raw)):
        return
    del found["structuredContent"]
    if raw != _NULL and items(bytes(found.get("content", b"[]"))) == []:
        found["content"] = [{"type": "text", "text": bytes(raw).decode("utf-8", "replace")}]


def _legacy_tool(tool: dict[str, Any]) -> bool:
    asked_for_tasks = without_task_support(tool)
    return _without_odd_schema(tool) or asked_for_tasks


def _without_odd_schema(tool: dict[str, Any]) -> bool:
    schema = tool.get("outputSchema")
    if schema is None or decode_or_none(bytes(object_members(schema).get("type", _NULL))) == "object":
        return False
    del tool["outputSchema"]
    return True


def _legacy_error(member: bytes) -> bytes:
    found = object_members(value(member))
    code = decode_or_none(bytes(found.get("code", _NULL)))
    recoded = _RECODED.get(code) if isinstance(code, int) else None
    return member if recoded is None else b'"error":' + encode(found | {"code": recoded})
