"""What a client says twice, in the body and in HTTP fields: the checks of modern requests, and the choice of the era.

Pure. Intermediaries route and limit by the fields while servers act on the
body, so both must say the same (MCP 2026-07-28, Streamable HTTP, Request
Metadata). Fields come as one value per name, in which a field that came twice
is joined by a comma and so equals nothing.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from functools import lru_cache

import msgspec

from controlplane.core.jsonrpc import INVALID_PARAMS, INVALID_REQUEST, UNSUPPORTED_PROTOCOL_VERSION
from controlplane.core.rawjson import members
from controlplane.protocol.handshake import META
from controlplane.protocol.inbound import HEADER_MISMATCH, Inbound, Refusal, read, text_of
from controlplane.protocol.versions import LEGACY_VERSIONS, MODERN_VERSION, SUPPORTED, is_legacy

Fields = Mapping[bytes, bytes]

VERSION_FIELD = b"mcp-protocol-version"
METHOD_FIELD = b"mcp-method"
NAME_FIELD = b"mcp-name"
SESSION_FIELD = b"mcp-session-id"

NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""Methods whose object is mirrored in `Mcp-Name`, and the parameter that names it."""

_SPELT = {VERSION_FIELD: "MCP-Protocol-Version", METHOD_FIELD: "Mcp-Method"}
_VERSION = META + "protocolVersion"
_CAPABILITIES = META + "clientCapabilities"
_MODERN = MODERN_VERSION.encode()
_RAW_MODERN = msgspec.Raw(b'"%b"' % _MODERN)
_LEGACY = frozenset(version.encode() for version in LEGACY_VERSIONS)
_META_MARK = META.rstrip("/").encode()
_OWS = b" \t"
_VISIBLE = re.compile(rb"[\t\x20-\x7e]*")
_ENCODED = re.compile(rb"=\?base64\?(.*)\?=")
_WEIGHT = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")
_BOTH_TYPES = (("application/json", "application/*", "*/*"), ("text/event-stream", "text/*", "*/*"))
_ACCEPTS_KEPT = 256
"""Distinct Accept fields whose verdict is kept; a client library always sends the same."""
_ECHO_MAX_CHARS = 100
"""Of a value that is shown in a message."""

_MISSING_META = f"params._meta must hold {_VERSION} (a string) and {_CAPABILITIES} (an object) in every request."


class ModernRequest(msgspec.Struct, frozen=True, gc=False):
    """A request whose envelope and fields are in order.

    Args:
        id: Raw JSON.
        method: As sent.
        params: Raw, as sent.
        members: Of `params`, each raw.
        name: What `Mcp-Name` says and the body too; None for methods that have none.
        meta: Members of `params._meta`, each raw.
    """

    id: bytes
    method: str
    params: bytes
    members: Mapping[str, msgspec.Raw]
    name: str | None
    meta: Mapping[str, msgspec.Raw]


def modern_request(fields: Fields, body: bytes) -> ModernRequest | None:
    """Read and check a whole POST of the modern era; None for a notification, which is accepted and needs no more.

    Raises:
        Refusal: as `read` and `check_modern` do.
    """
    return check_modern(fields, read(body))


def check_modern(fields: Fields, message: Inbound) -> ModernRequest | None:
    """Check a message of the modern era against its envelope and its fields; None for a notification.

    Order: `_meta`, version, method and name in both places, version supported.
    A version that is not ours has rules that are not ours: where such a request
    lacks what ours asks of `_meta`, what is told is the versions.

    Raises:
        Refusal: `_meta` is incomplete or the request names nothing (-32602), fields are missing or differ (-32020),
            the version is not spoken (-32022), or it is a response (-32600).

    Source: MCP 2026-07-28, Overview (Per-request protocol fields) and Streamable HTTP (Server Validation).
    """
    raw_id, method, params = message.id, message.method, message.params or b"{}"
    if raw_id is None or method is None:
        _check_unanswered(fields, message)
        return None
    own = members(params) or {}
    meta = _members_of(own, "_meta")
    version = _checked_version(fields, meta, raw_id)
    for mirror, text in ((VERSION_FIELD, version), (METHOD_FIELD, method)):
        value = fields.get(mirror)
        if value is None or value.strip(_OWS) != text.encode() or not text.isascii():
            raise _not_mirrored(mirror, value, text, raw_id)
    name = _checked_name(fields, NAMED_BY[method], own, raw_id) if method in NAMED_BY else None
    if version != MODERN_VERSION:
        raise _unsupported(version, raw_id)
    return ModernRequest(raw_id, method, params, own, name, meta)


def is_legacy_version_header(value: bytes | None) -> bool:
    """Whether `MCP-Protocol-Version` leads to the legacy era: it names a legacy version, or was not sent at all.

    Any other value leads to the modern one, so that clients of an unknown version are told which ones there are.
    """
    return value is None or value.strip(_OWS) in _LEGACY


def is_modern(fields: Fields, message: Inbound) -> bool:
    """Whether a posted message is of the modern era.

    A request that carries a modern `_meta` is, whatever its fields say (MCP 2026-07-28, Versioning): it is told
    what is wrong with them. In a session the session decides.
    """
    if not is_legacy_version_header(fields.get(VERSION_FIELD)):
        return True
    params = message.params
    if SESSION_FIELD in fields or message.kind != "request" or params is None or _META_MARK not in params:
        return False
    version = text_of(_members_of(members(params) or {}, "_meta").get(_VERSION))
    return version is not None and not is_legacy(version)


def check_accept(fields: Fields) -> None:
    """Check that the client takes both kinds of answer; no Accept field accepts everything (RFC 9110 section 12.5.1).

    Raises:
        Refusal: with status 406.
    """
    if not _accepts_both(fields.get(b"accept", b"")):
        raise Refusal(
            INVALID_REQUEST, "The client must accept both application/json and text/event-stream.", status=406
        )


def header_text(value: bytes) -> str | None:
    """What a field's value stands for, `=?base64?…?=` decoded (MCP 2026-07-28, Value Encoding).

    None for what stands for nothing: characters that no field may hold, bad Base64 or padding, no UTF-8.
    """
    value = value.strip(_OWS)
    found = _ENCODED.fullmatch(value) if value.startswith(b"=") else None
    if found is None:
        return value.decode("ascii") if _VISIBLE.fullmatch(value) else None
    try:
        decoded = base64.b64decode(found[1], validate=True)
        return decoded.decode() if base64.b64encode(decoded) == found[1] else None
    except ValueError:
        return None


def mismatch(what: str, raw_id: bytes | None) -> Refusal:
    """The refusal of a request whose fields and body differ."""
    return Refusal(HEADER_MISMATCH, f"Header mismatch: {what}", raw_id)


def shown(value: str | bytes) -> str:
    """A client's own value, as its error message quotes it."""
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    return repr(text if len(text) <= _ECHO_MAX_CHARS else text[:_ECHO_MAX_CHARS] + "…")


def _check_unanswered(fields: Fields, message: Inbound) -> None:
    """Notifications need no envelope, and of the fields only the version that led here."""
    if message.kind == "response":
        raise Refusal(INVALID_REQUEST, f"Clients of {MODERN_VERSION} send no responses.")
    version = fields.get(VERSION_FIELD, b"").strip(_OWS)
    if version != _MODERN:
        raise _unsupported(version.decode("latin-1"), None)


def _checked_version(fields: Fields, meta: Mapping[str, msgspec.Raw], raw_id: bytes) -> str:
    raw_version, capabilities = meta.get(_VERSION), meta.get(_CAPABILITIES)
    version = MODERN_VERSION if raw_version == _RAW_MODERN else text_of(raw_version)
    if version is not None and capabilities is not None and bytes(capabilities).startswith(b"{"):
        return version
    told = fields.get(VERSION_FIELD, b"").strip(_OWS)
    foreign = told and told != _MODERN and told not in _LEGACY and b"," not in told
    if foreign and (raw_version is None or version == told.decode("latin-1")):
        raise _unsupported(told.decode("latin-1"), raw_id)
    raise Refusal(INVALID_PARAMS, _MISSING_META, raw_id)


def _not_mirrored(field: bytes, value: bytes | None, text: str, raw_id: bytes) -> Refusal:
    if value is None:
        return mismatch(f"the {_SPELT[field]} header is missing", raw_id)
    return mismatch(f"{_SPELT[field]} header value {shown(value)} does not match body value {shown(text)}", raw_id)


def _checked_name(fields: Fields, key: str, own: Mapping[str, msgspec.Raw], raw_id: bytes) -> str:
    name, value = text_of(own.get(key)), fields.get(NAME_FIELD)
    if name is not None and value is not None and header_text(value) == name:
        return name
    if value is not None:
        body = "none" if name is None else shown(name)
        raise mismatch(f"Mcp-Name header value {shown(value)} does not match body value {body}", raw_id)
    if name is None:
        raise Refusal(INVALID_PARAMS, f"params.{key} must be a string.", raw_id)
    raise mismatch("the Mcp-Name header is missing", raw_id)


def _members_of(found: Mapping[str, msgspec.Raw], name: str) -> Mapping[str, msgspec.Raw]:
    raw = found.get(name)
    return {} if raw is None else members(bytes(raw)) or {}


def _unsupported(version: str, raw_id: bytes | None) -> Refusal:
    data = {"supported": list(SUPPORTED), "requested": version}
    return Refusal(UNSUPPORTED_PROTOCOL_VERSION, "Unsupported protocol version", raw_id, data=data)


@lru_cache(maxsize=_ACCEPTS_KEPT)
def _accepts_both(accept: bytes) -> bool:
    if not accept.strip(_OWS):
        return True
    weights = dict(_media_range(part) for part in accept.decode("latin-1").split(",") if part.strip())
    return all(next((weights[name] for name in names if name in weights), 0.0) > 0 for names in _BOTH_TYPES)


def _media_range(text: str) -> tuple[str, float]:
    """A media range and its weight; a weight that is none rules it out."""
    media, *parameters = (part.strip().lower() for part in text.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            return media, float(parameter[2:]) if _WEIGHT.fullmatch(parameter[2:]) else 0.0
    return media, 1.0
