"""JSON-RPC 2.0 envelopes, as bytes.

Only the envelope is decoded; `params`, `result` and `error` stay the bytes the
other side wrote, so unknown fields and numbers of any size pass through
exactly. Pure: bytes in, values out.
"""

from __future__ import annotations

from typing import Any

import msgspec
from attrs import frozen

METHOD_NOT_FOUND = -32601
UNSUPPORTED_PROTOCOL_VERSION = -32022
"""2026-07-28: the server does not speak the version asked for."""


class _Envelope(msgspec.Struct):
    id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    method: str | msgspec.UnsetType = msgspec.UNSET
    params: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode = msgspec.json.Decoder(_Envelope).decode
_encode = msgspec.json.Encoder().encode
decode_json = msgspec.json.Decoder().decode
UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@frozen
class Response:
    """An answer; `id` is raw JSON, None in the bare dialect. `member` is `"result":…` or `"error":…`."""

    id: bytes | None
    member: bytes
    is_error: bool


@frozen
class Request:
    """The other side asks something; `id` and `params` are raw JSON."""

    id: bytes
    method: str
    params: bytes | None


@frozen
class Notification:
    """The other side tells something; `params` is raw JSON."""

    method: str
    params: bytes | None


Message = Response | Request | Notification


def parse(line: bytes) -> Message | None:
    """Read one line; None when it is no JSON-RPC message at all (noise on stdout)."""
    try:
        envelope = _decode(line)
    except UNDECODABLE:
        return None
    request_id = None if envelope.id is msgspec.UNSET else bytes(envelope.id)
    if envelope.method is not msgspec.UNSET:
        params = None if envelope.params is msgspec.UNSET else bytes(envelope.params)
        if request_id is None:
            return Notification(envelope.method, params)
        return Request(request_id, envelope.method, params)
    if envelope.result is not msgspec.UNSET:
        return Response(request_id, b'"result":' + bytes(envelope.result), is_error=False)
    if envelope.error is not msgspec.UNSET:
        return Response(request_id, b'"error":' + bytes(envelope.error), is_error=True)
    return None


def one_line(raw: bytes) -> bytes:
    """Make raw JSON fit one line; a line break in valid JSON is only ever white space between tokens."""
    if b"\n" in raw or b"\r" in raw:
        return raw.replace(b"\n", b" ").replace(b"\r", b" ")
    return raw


def request_line(wire_id: int, method: str, params: bytes | None) -> bytes:
    """Encode a request of ours, newline included."""
    tail = b"" if params is None else b',"params":' + one_line(params)
    return b'{"jsonrpc":"2.0","id":%d,"method":%b%b}\n' % (wire_id, _encode(method), tail)


def notification_line(method: str, params: Any = None) -> bytes:
    """Encode a notification of ours, newline included."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if params is not None:
        message["params"] = params
    return _encode(message) + b"\n"


def result_line(raw_id: bytes, result: Any) -> bytes:
    """Encode our answer to a request of the other side."""
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}\n' % (one_line(raw_id), _encode(result))


def error_line(raw_id: bytes, code: int, message: str) -> bytes:
    """Encode our refusal of a request of the other side."""
    error = _encode({"code": code, "message": message})
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}\n' % (one_line(raw_id), error)


def encode(value: Any) -> bytes:
    """Compact JSON."""
    return _encode(value)


def decode_or_none(raw: bytes | None) -> Any:
    """Decode what another side wrote; None when it cannot be decoded (bad UTF-8, nesting without end)."""
    try:
        return None if raw is None else decode_json(raw)
    except UNDECODABLE:
        return None


def member_value(member: bytes) -> Any:
    """Decode what stands behind `"result":` or `"error":`; None when it cannot be."""
    return decode_or_none(member[member.index(b":") + 1 :])


def error_code(member: bytes) -> int | None:
    """The code of an `"error":…` member, None where it has no whole number there."""
    value = member_value(member)
    code = value.get("code") if isinstance(value, dict) else None
    return code if isinstance(code, int) else None
