"""JSON-RPC 2.0 envelopes, as bytes.

Only the envelope is decoded; `params`, `result` and `error` stay the bytes the
other side wrote, so unknown fields and numbers of any size pass through
exactly. Pure: bytes in, values out.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from attrs import frozen

from controlplane.core import rawjson
from controlplane.core.rawjson import UNDECODABLE, decode_or_none, encode, encode_text, one_line

__all__ = [
    "INTERNAL_ERROR",
    "INVALID_PARAMS",
    "INVALID_REQUEST",
    "METHOD_NOT_FOUND",
    "PARSE_ERROR",
    "UNSUPPORTED_PROTOCOL_VERSION",
    "Garbled",
    "Message",
    "Notification",
    "Request",
    "Response",
    "decode_or_none",
    "encode",
    "encode_text",
    "error_code",
    "error_line",
    "member_value",
    "notification_line",
    "one_line",
    "own_id",
    "parse",
    "request_line",
    "result_line",
]

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
UNSUPPORTED_PROTOCOL_VERSION = -32022
"""2026-07-28: the server does not speak the version asked for."""
_BOM = b"\xef\xbb\xbf"
_NULL = b"null"
_ID_MAX_DIGITS = 18


class _Envelope(msgspec.Struct):
    id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    method: str | msgspec.UnsetType | None = msgspec.UNSET
    params: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Bare(msgspec.Struct, forbid_unknown_fields=True):
    jsonrpc: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode = msgspec.json.Decoder(_Envelope).decode
_decode_bare = msgspec.json.Decoder(_Bare).decode

_VERSION = rb'"jsonrpc" ?: ?"2\.0" ?'
_ID = rb'"id" ?: ?(\d+|"\d+") ?'
_ID_FIRST = re.compile(rb"\{ ?(?:" + _VERSION + rb", ?)?" + _ID + rb', ?"(?:result|error)"')
_OUTCOME_FIRST = re.compile(rb"\{ ?(?:" + _VERSION + rb', ?)?"(?:result|error)"')
_ID_LAST = re.compile(rb", ?(?:" + _VERSION + rb", ?)?" + _ID + rb"\}\s*\Z")
_EDGE_BYTES = 128
"""So much of the end of a line is looked at for the id of an answer that does not parse."""


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


@frozen
class Garbled:
    """An answer that cannot be used: what stands behind its id is not JSON, or not UTF-8."""

    id: bytes


Message = Response | Request | Notification | Garbled


def parse(line: bytes) -> Message | None:
    """Read one line; None when it is no JSON-RPC message at all (noise on stdout).

    Duplicate members: the last one counts. Only what keeps a message from being
    understood is refused; `jsonrpc` is not asked for.
    """
    line = line.removeprefix(_BOM)  # .NET writes one before its first line
    try:
        message = _message(_decode(line), line)
    except UNDECODABLE:
        return _second_look(line)
    if rawjson.is_utf8(line):
        return message
    return Garbled(message.id) if isinstance(message, Response) and message.id is not None else None


def _message(envelope: _Envelope, line: bytes) -> Message | None:
    request_id = None if envelope.id is msgspec.UNSET else bytes(envelope.id)
    if isinstance(envelope.method, str):
        params = None if envelope.params is msgspec.UNSET else bytes(envelope.params)
        if request_id is None or request_id == _NULL:  # MCP has no null ids: a serializer that writes every member
            return Notification(envelope.method, params)
        return Request(request_id, envelope.method, params)
    member, is_error = _outcome(envelope)
    if member is None or (request_id is None and not _is_bare(line)):
        return None
    return Response(request_id, member, is_error=is_error)


def _outcome(envelope: _Envelope) -> tuple[bytes | None, bool]:
    """The member that counts: some serializers write the other one too, as null."""
    result = None if envelope.result is msgspec.UNSET else bytes(envelope.result)
    error = None if envelope.error is msgspec.UNSET else bytes(envelope.error)
    if error is not None and (error != _NULL or result is None):
        return b'"error":' + error, True
    return (None if result is None else b'"result":' + result), False


def _is_bare(line: bytes) -> bool:
    """Whether the line holds nothing but an outcome; a JSON log line that speaks of an error holds more."""
    try:
        _decode_bare(line)
    except UNDECODABLE:
        return False
    return True


def _second_look(line: bytes) -> Message | None:
    """What the decoder refuses is noise, but for two things that servers do write.

    Half a surrogate pair is valid JSON; an answer with NaN in it is not, but names the call that it ends.
    """
    masked = rawjson.mask(line)
    if masked is not None:
        try:
            return _unmasked(_message(_decode(masked), masked))
        except UNDECODABLE:
            pass
    return _garbled(line)


def _unmasked(message: Message | None) -> Message | None:
    match message:
        case Response(raw_id, member, is_error):
            return Response(None if raw_id is None else rawjson.unmask(raw_id), rawjson.unmask(member), is_error)
        case Request(raw_id, method, params):
            return Request(rawjson.unmask(raw_id), method, None if params is None else rawjson.unmask(params))
        case Notification(method, bytes(params)):
            return Notification(method, rawjson.unmask(params))
    return message


def _garbled(line: bytes) -> Garbled | None:
    """Whose answer a broken line is, where it has the form in which JSON-RPC libraries write one."""
    found = _ID_FIRST.match(line)
    if found is None and _OUTCOME_FIRST.match(line):
        found = _ID_LAST.search(line[-_EDGE_BYTES:])
    return None if found is None else Garbled(found[1])


def own_id(raw_id: bytes) -> int:
    """Our own id back, however it is echoed: some servers make a string or a float of it. -1 for what is none of ours."""
    digits = raw_id.strip(b'"')
    if digits.isdigit():
        return int(digits) if len(digits) <= _ID_MAX_DIGITS else -1
    if raw_id[:1].isdigit() and len(raw_id) <= _ID_MAX_DIGITS:
        number = float(raw_id)
        return int(number) if number.is_integer() else -1
    return -1


def request_line(wire_id: int, method: str, params: bytes | None) -> bytes:
    """Encode a request of ours, newline included."""
    tail = b"" if params is None else b',"params":' + one_line(params)
    return b'{"jsonrpc":"2.0","id":%d,"method":%b%b}\n' % (wire_id, encode_text(method), tail)


def notification_line(method: str, params: Any = None) -> bytes:
    """Encode a notification of ours, newline included."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if params is not None:
        message["params"] = params
    return encode(message) + b"\n"


def result_line(raw_id: bytes, result: Any) -> bytes:
    """Encode our answer to a request of the other side."""
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}\n' % (one_line(raw_id), encode(result))


def error_line(raw_id: bytes, code: int, message: str) -> bytes:
    """Encode our refusal of a request of the other side."""
    line = b'{"jsonrpc":"2.0","id":%b,"error":{"code":%d,"message":%b}}\n'
    return line % (one_line(raw_id), code, encode_text(message))


def member_value(member: bytes) -> Any:
    """Decode what stands behind `"result":` or `"error":`; None when it cannot be."""
    return decode_or_none(member[member.index(b":") + 1 :])


def error_code(member: bytes) -> int | None:
    """The code of an `"error":…` member, None where it has no whole number there."""
    value = member_value(member)
    code = value.get("code") if isinstance(value, dict) else None
    return code if isinstance(code, int) and not isinstance(code, bool) else None
