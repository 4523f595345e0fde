"""What clients POST to the MCP endpoint, read strictly: one JSON-RPC message, in 2025-03-26 sessions a batch.

Pure: bytes in, an `Inbound` or a `Refusal` out, and nothing else. Only the
envelope is decoded; ids, params and outcomes stay the bytes that the client
wrote, so 1 is not "1" and numbers of any size survive. What MCP does not allow
(null and fractional ids, params that are no object, a batch) is refused here,
for servers behind us do not all check it.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec
from attrs import define, field

from controlplane.core import rawjson
from controlplane.core.jsonrpc import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    UNSUPPORTED_PROTOCOL_VERSION,
    error_code,
)
from controlplane.core.rawjson import UNDECODABLE, encode, is_utf8, items, members

HEADER_MISMATCH = -32020
"""2026-07-28: headers and body do not say the same."""
MISSING_CLIENT_CAPABILITY = -32021
"""2026-07-28: the request needs what the client has not declared."""

MAX_BATCH = 100
"""Messages of one batch: each may hold a call in flight, and an instance has 64 of those."""

Kind = Literal["request", "notification", "response"]
Headers = tuple[tuple[bytes, bytes], ...]

_STATUS = {
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    INVALID_PARAMS: 400,
    HEADER_MISMATCH: 400,
    MISSING_CLIENT_CAPABILITY: 400,
    UNSUPPORTED_PROTOCOL_VERSION: 400,
    METHOD_NOT_FOUND: 404,
}
_NULL = b"null"
_UNSET, _JSONRPC = msgspec.Raw(), msgspec.Raw(b'"2.0"')
_NOTHING = (_UNSET, msgspec.Raw(_NULL))
"""A null member is one that a serializer wrote for none."""
_INTEGER = re.compile(rb"-?[0-9]+")
_ARRAY = re.compile(rb"[ \t\r\n]*\[")
_decode_text = msgspec.json.Decoder(str).decode
_decode_anything = msgspec.json.Decoder(msgspec.Raw).decode


@define
class Refusal(Exception):
    """A message that is not taken, as the JSON-RPC error and the HTTP status to answer with.

    Args:
        code: Of the JSON-RPC error.
        message: One sentence for the client's author.
        id: The request's raw id; None where there is none, or none to be trusted.
        status: Of the HTTP answer.
        data: The error's `data`.
        headers: More fields for the HTTP answer.
    """

    code: int
    message: str
    id: bytes | None = None
    status: int = field(default=400, kw_only=True)
    data: dict[str, Any] | None = field(default=None, kw_only=True)
    headers: Headers = field(default=(), kw_only=True)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    @property
    def body(self) -> bytes:
        """The whole error response; its id is null where the request's is not known (JSON-RPC 2.0 section 5)."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.data is not None:
            error["data"] = self.data
        return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (_NULL if self.id is None else self.id, encode(error))


class Inbound(msgspec.Struct, frozen=True, gc=False):
    """One message of a client; `id`, `params` (an object) and `member` are raw JSON.

    A request has id and method, a notification a method, a response an id and
    the `member` (`"result":…` or `"error":…`).
    """

    kind: Kind
    id: bytes | None = None
    method: str | None = None
    params: bytes | None = None
    member: bytes | None = None


class _Envelope(msgspec.Struct, gc=False):
    """What an object says as a message, each value raw; empty where it has no such member."""

    jsonrpc: msgspec.Raw = _UNSET
    id: msgspec.Raw = _UNSET
    method: msgspec.Raw = _UNSET
    params: msgspec.Raw = _UNSET
    result: msgspec.Raw = _UNSET
    error: msgspec.Raw = _UNSET


_decode_envelope = msgspec.json.Decoder(_Envelope).decode


def read(body: bytes) -> Inbound:
    """Read a body that must be one message (MCP base protocol, Messages).

    Of members that come twice the last one counts. A null `method`, `params`,
    `result` or `error` is one that a serializer wrote for a member not set.

    Raises:
        Refusal: it is no JSON (-32700), no message of ours, or a batch (-32600), or its params are no object (-32602).
    """
    _check_text(body)
    found = _envelope(body)
    if found is None:
        raise _no_object(body)
    return _message(found)


def read_batch(body: bytes) -> Inbound | list[Inbound | Refusal]:
    """Read a body in a session whose version has batches (2025-03-26 and nothing since).

    A message that is refused is an item of the list, for the others are to be
    answered all the same (JSON-RPC 2.0 section 6).

    Raises:
        Refusal: as `read` does for what is no list; the list is empty or longer than `MAX_BATCH` (-32600).
    """
    if not _ARRAY.match(body):
        return read(body)
    _check_text(body)
    found = items(body)
    if found is None:
        raise _malformed(body)
    if not 1 <= len(found) <= MAX_BATCH:
        raise Refusal(INVALID_REQUEST, f"A batch holds 1 to {MAX_BATCH} messages, this one {len(found)}.")
    return [_item(item) for item in found]


def status_of(answer: bytes | int | None) -> int:
    """The HTTP status of an answer in the modern era, by its error's code (2026-07-28, Streamable HTTP).

    Args:
        answer: A raw member (`"result":…` or `"error":…`), or a code, or None for no error.
    """
    if isinstance(answer, bytes):
        answer = error_code(answer) if answer.startswith(b'"error"') else None
    return 200 if answer is None else _STATUS.get(answer, 200)


def text_of(raw: bytes | msgspec.Raw | None) -> str | None:
    """A raw value as text; None for what is no string, or holds half a surrogate pair and cannot be told apart."""
    if raw is None:
        return None
    try:
        return _decode_text(raw)
    except UNDECODABLE:
        return None


def _item(raw: bytes) -> Inbound | Refusal:
    found = _envelope(raw)
    if found is None:
        return Refusal(INVALID_REQUEST, "A message of the batch is no object.")
    try:
        message = _message(found)
    except Refusal as refusal:
        return refusal
    if message.method == "initialize":
        return Refusal(INVALID_REQUEST, "initialize cannot be part of a batch.", message.id)
    return message


def _envelope(raw: bytes) -> _Envelope | None:
    """Look into an object; None for anything else."""
    try:
        return _decode_envelope(raw)
    except UNDECODABLE:
        found = members(raw)  # it looks through half surrogate pairs
    return None if found is None else _Envelope(**{n: found[n] for n in _Envelope.__struct_fields__ if n in found})


def _message(found: _Envelope) -> Inbound:
    raw_id = None if found.id == _UNSET else _checked_id(bytes(found.id))
    if found.jsonrpc != _JSONRPC and text_of(found.jsonrpc) != "2.0":
        raise Refusal(INVALID_REQUEST, 'The member jsonrpc must be "2.0".', raw_id)
    if found.method in _NOTHING:
        return _response(found, raw_id)
    method = text_of(found.method)
    if method is None:
        raise Refusal(INVALID_REQUEST, "The member method must be a string.", raw_id)
    if found.result not in _NOTHING or found.error not in _NOTHING:
        raise Refusal(INVALID_REQUEST, "A message is a request or a response, not both.", raw_id)
    params = None if found.params in _NOTHING else bytes(found.params)
    if params is not None and not params.startswith(b"{"):
        raise Refusal(INVALID_PARAMS, "The member params must be an object.", raw_id)
    return Inbound("notification" if raw_id is None else "request", raw_id, method, params)


def _response(found: _Envelope, raw_id: bytes | None) -> Inbound:
    result, error = found.result, found.error
    if result == error == _UNSET:
        raise Refusal(INVALID_REQUEST, "A message has a method, a result or an error.", raw_id)
    if raw_id is None:
        raise Refusal(INVALID_REQUEST, "A response names the request that it answers by its id.")
    if error not in _NOTHING or result == _UNSET:
        if result not in _NOTHING:
            raise Refusal(INVALID_REQUEST, "A response has a result or an error, not both.", raw_id)
        return Inbound("response", raw_id, member=b'"error":' + bytes(error))
    return Inbound("response", raw_id, member=b'"result":' + bytes(result))


def _checked_id(raw_id: bytes) -> bytes:
    """Strings and integers are ids; null is not, unlike in base JSON-RPC."""
    if raw_id.startswith(b'"') or _INTEGER.fullmatch(raw_id):
        return raw_id
    raise Refusal(INVALID_REQUEST, "The member id must be a string or an integer.")


def _check_text(body: bytes) -> None:
    """The decoder does not look into what it leaves raw."""
    if not is_utf8(body):
        raise Refusal(PARSE_ERROR, "The body is not UTF-8.")


def _no_object(body: bytes) -> Refusal:
    """Why a body has no members: something else than an object, or no JSON at all."""
    malformed = _malformed(body)
    if malformed.code == PARSE_ERROR:
        return malformed
    if _ARRAY.match(body):
        return Refusal(INVALID_REQUEST, "The body must be a single message: only 2025-03-26 has batches.")
    return malformed


def _malformed(body: bytes) -> Refusal:
    try:
        _decode_anything(rawjson.mask(body) or body)
    except RecursionError:
        return Refusal(PARSE_ERROR, "The body is nested too deeply.")
    except UNDECODABLE as error:
        reason = str(error).removeprefix("JSON is malformed: ")
        return Refusal(PARSE_ERROR, f"The body is not valid JSON: {reason}.")
    return Refusal(INVALID_REQUEST, "The body must be a JSON-RPC message, an object.")
