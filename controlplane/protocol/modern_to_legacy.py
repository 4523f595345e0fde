"""A modern client and a server that speaks a legacy version: what each of them gets of the other.

Pure. The server never sees the modern envelope; the client gets results and
errors as its version has them. What the server asks during a call becomes a
result that asks for input, and the client's retry brings the answers.
Who is asked, and who waits, is decided elsewhere (MCP 2026-07-28).
"""

from __future__ import annotations

from typing import Any

import msgspec
from attrs import frozen

from controlplane.core.jsonrpc import INTERNAL_ERROR, INVALID_PARAMS
from controlplane.core.rawjson import UNDECODABLE, decode_or_none, encode, members
from controlplane.protocol.capabilities import NONE, CapabilitySet, capability_set, offered, without_task_support
from controlplane.protocol.handshake import META, ProtocolFacts
from controlplane.protocol.input_required import RETRY_KEYS, Asks, Retry, digest, input_required, retry_of
from controlplane.protocol.listening import ListenFilter, listen_ended, listen_filter, tagged
from controlplane.protocol.members import (
    EMPTY_RESULT,
    SERVER_INFO,
    each_item,
    in_front,
    is_error,
    is_object,
    object_members,
    value,
)
from controlplane.protocol.versions import SUPPORTED

__all__ = [
    "CACHEABLE",
    "RETRY_KEYS",
    "Asks",
    "ListenFilter",
    "RequestMeta",
    "Retry",
    "digest",
    "discover_result",
    "discovered",
    "input_required",
    "is_removed",
    "legacy_params",
    "listen_ended",
    "listen_filter",
    "modern_member",
    "request_meta",
    "retry_of",
    "tagged",
]

CACHEABLE = frozenset(
    {
        "server/discover",
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "resources/read",
    }
)
"""Their results must say how long they may be kept, and by whom."""
_REMOVED = frozenset(
    {
        "initialize",
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
        "tasks/list",
        "tasks/result",
        "notifications/initialized",
        "notifications/roots/list_changed",
        "notifications/elicitation/complete",
        "notifications/tasks/status",
    }
)
_RESOURCE_NOT_FOUND = -32002
_MISSING_CAPABILITY = -32021
_URL_ELICITATION_REQUIRED = -32042
_RESERVED = range(-32099, -32019)
"""Codes that the modern era gives a meaning, or will; a legacy server cannot mean it."""
_NOT_CACHED: dict[str, Any] = {"ttlMs": 0, "cacheScope": "private"}
"""A legacy server says nothing about it, so nothing is promised."""


def discover_result(facts: ProtocolFacts) -> bytes:
    """The raw result of `server/discover`, from what the handshake found.

    Args:
        facts: Of a legacy or bare server.
    """
    result: dict[str, Any] = {
        "resultType": "complete",
        "supportedVersions": SUPPORTED,
        "capabilities": offered(facts, native=False),
    }
    if facts.instructions is not None:
        result["instructions"] = facts.instructions
    result |= _NOT_CACHED
    return encode(result | ({"_meta": {SERVER_INFO: facts.server_info}} if facts.server_info else {}))


def discovered(member: bytes) -> bytes:
    """A modern server's own answer to `server/discover`: Corral serves the legacy versions beside those that it names."""
    found = None if is_error(member) else members(value(member))
    if found is None:
        return member
    theirs = decode_or_none(_raw(found.get("supportedVersions")))
    own = [version for version in theirs if version not in SUPPORTED] if isinstance(theirs, list) else []
    return b'"result":' + encode(found | {"supportedVersions": [*SUPPORTED, *own]})


def is_removed(method: str) -> bool:
    """Whether the modern era has taken this method out: `-32601`, whatever the server behind would say to it."""
    return method in _REMOVED


# -- what the server gets


def legacy_params(params: bytes | None) -> bytes | None:
    """A modern client's raw parameters as a legacy server knows them: without the envelope and the retry's members.

    Others' `_meta` keys stay (`progressToken`, `traceparent`).
    """
    found = None if params is None else members(params)
    if found is None:
        return params
    meta = object_members(found.get("_meta"))
    theirs = {name: raw for name, raw in meta.items() if not name.startswith(META)}
    had_envelope = len(theirs) < len(meta)
    if not had_envelope and RETRY_KEYS.isdisjoint(found):
        return params
    dropped = RETRY_KEYS | {"_meta"} if had_envelope and not theirs else RETRY_KEYS
    kept: dict[str, Any] = {name: raw for name, raw in found.items() if name not in dropped}
    return encode(kept | {"_meta": theirs} if had_envelope and theirs else kept)


@frozen(kw_only=True)
class RequestMeta:
    """The envelope of one modern request; `progress_token` and `client_info` are raw JSON."""

    version: str | None = None
    capabilities: CapabilitySet = NONE
    log_level: str | None = None
    progress_token: bytes | None = None
    client_info: bytes | None = None


def request_meta(params: bytes | None) -> RequestMeta:
    """Read the envelope; whether it is complete was looked at when the request came in."""
    meta = object_members(object_members(params).get("_meta"))
    return RequestMeta(
        version=_text(meta.get(META + "protocolVersion")),
        capabilities=capability_set(_raw(meta.get(META + "clientCapabilities"))),
        log_level=_text(meta.get(META + "logLevel")),
        progress_token=_raw(meta.get("progressToken")),
        client_info=_raw(meta.get(META + "clientInfo")),
    )


# -- what the client gets


class _Conflicts(msgspec.Struct):
    """The members that this bridge adds, should the server have written them itself."""

    result_type: msgspec.Raw | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="resultType")
    meta: msgspec.Raw | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="_meta")
    ttl_ms: msgspec.Raw | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="ttlMs")
    cache_scope: msgspec.Raw | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="cacheScope")


_NO_CONFLICTS = _Conflicts()
_conflicts = msgspec.json.Decoder(_Conflicts).decode


def modern_member(method: str, member: bytes, facts: ProtocolFacts) -> bytes:
    """A legacy server's answer as a modern client knows it.

    Args:
        method: Of the request.
        member: The raw `"result":…` or `"error":…`.
        facts: Of the server.
    """
    if is_error(member):
        return _modern_error(member)
    raw = value(member)
    if not is_object(raw):  # a result is an object in the modern era; a null one is what some servers say for nothing
        return modern_member(method, EMPTY_RESULT, facts) if raw == b"null" else member
    ours = {"resultType": "complete"} | (_NOT_CACHED if method in CACHEABLE else {})
    meta = {SERVER_INFO: facts.server_info} if facts.server_info else {}
    lists_tools = method == "tools/list" and b"execution" in raw
    found = members(raw) if lists_tools or not _is_free(raw) else None
    if found is None:  # what nests too deep to be read may hold a member of ours as well; of two, the last counts
        return b'"result":' + in_front(encode(ours | ({"_meta": meta} if meta else {}))[1:-1], raw)
    if lists_tools:
        each_item(found, "tools", without_task_support)
    meta |= object_members(found.pop("_meta", None))
    theirs = {name: raw for name, raw in found.items() if name not in ours}
    return b'"result":' + encode(ours | ({"_meta": meta} if meta else {}) | theirs)


def _is_free(raw: bytes) -> bool:
    """Whether all that is added can simply be put in front."""
    try:
        return _conflicts(raw) == _NO_CONFLICTS
    except UNDECODABLE:
        return False


def _modern_error(member: bytes) -> bytes:
    found = object_members(value(member))
    code = decode_or_none(_raw(found.get("code")))
    if not isinstance(code, int) or isinstance(code, bool):
        return member
    if code == _RESOURCE_NOT_FOUND:
        return b'"error":' + encode(found | {"code": INVALID_PARAMS})
    if code not in _RESERVED or _names_what_is_missing(code, found.get("data")):
        return member
    recoded = {"code": INVALID_PARAMS if code == _URL_ELICITATION_REQUIRED else INTERNAL_ERROR}
    return b'"error":' + encode(found | recoded | {"data": _with_code(code, found.get("data"))})


def _names_what_is_missing(code: int, data: Any) -> bool:
    """A server that speaks of a missing client capability in the modern form means it, whatever era it is spoken to in."""
    return code == _MISSING_CAPABILITY and "requiredCapabilities" in object_members(data)


def _with_code(code: int, data: Any) -> dict[str, Any]:
    """Say what the error was: which one, and the URLs that a user has to visit, if it named any."""
    theirs = None if data is None else members(bytes(data))
    return {"legacyCode": code} | (({} if data is None else {"data": data}) if theirs is None else theirs)


def _raw(found: msgspec.Raw | None) -> bytes | None:
    return None if found is None else bytes(found)


def _text(found: msgspec.Raw | None) -> str | None:
    text = decode_or_none(_raw(found))
    return text if isinstance(text, str) else None
