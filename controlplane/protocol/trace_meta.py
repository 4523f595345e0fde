"""Trace context in a message's `params._meta`, as MCP carries it: read from clients, put in for servers. Pure.

What a client or a server wrote besides stays the bytes that it wrote.
"""

from __future__ import annotations

import msgspec

from controlplane.core.rawjson import UNDECODABLE, encode, members
from controlplane.core.tracecontext import TraceContext, parse
from controlplane.protocol.members import in_front, is_object, object_members

NAME_MAX_CHARS = 128
"""Of what names a tool or a prompt on a span: a client may write anything there."""


_NONE = msgspec.Raw(b"")


class _Meta(msgspec.Struct):
    traceparent: msgspec.Raw = _NONE
    tracestate: msgspec.Raw = _NONE


class _Params(msgspec.Struct):
    meta: msgspec.Raw = msgspec.field(name="_meta", default=_NONE)
    name: msgspec.Raw = _NONE


class _Message(msgspec.Struct):
    method: msgspec.Raw = _NONE
    params: msgspec.Raw = _NONE


_message = msgspec.json.Decoder(_Message).decode
_params = msgspec.json.Decoder(_Params).decode
_meta = msgspec.json.Decoder(_Meta).decode
_decode_text = msgspec.json.Decoder(str).decode
_NAMED = {"tools/call", "prompts/get"}


def said_in(body: bytes) -> tuple[str, str]:
    """The method and the name of a tool or a prompt in a client's message, each empty if there is none; of a batch none."""
    try:
        message = _message(body)
    except UNDECODABLE:
        return "", ""
    method = _text(message.method)[:NAME_MAX_CHARS]
    return method, name_in(method, bytes(message.params))


def name_in(method: str, params: bytes | None) -> str:
    """The tool's or prompt's name in raw parameters, empty for other methods."""
    if method not in _NAMED or not params:
        return ""
    try:
        return _text(_params(params).name)[:NAME_MAX_CHARS]
    except UNDECODABLE:
        return ""


def context_of_body(body: bytes) -> TraceContext | None:
    """The context that a client's message carries; None for none, a malformed one, and batches."""
    if b'"traceparent"' not in body:
        return None
    try:
        return context_of(bytes(_message(body).params))
    except UNDECODABLE:
        return None


def context_of(params: bytes | None) -> TraceContext | None:
    """The context in raw parameters; None for none, and for a malformed one."""
    if params is None or b'"traceparent"' not in params:
        return None
    try:
        meta = _meta(_params(params).meta)
    except UNDECODABLE:
        return None
    return parse(_text(meta.traceparent), _text(meta.tracestate))


def _text(raw: msgspec.Raw) -> str:
    """A member's value if it is text, else nothing."""
    try:
        return _decode_text(raw)
    except UNDECODABLE:
        return ""


def with_context(params: bytes | None, context: TraceContext) -> bytes | None:
    """Put a context into the `_meta` of raw parameters, in place of what is there; what is no object stays as it is."""
    if params is not None and not is_object(params):
        return params
    raw = b"{}" if params is None else params
    has_none = b"_meta" not in raw and b"\\u" not in raw
    if has_none and not context.state:
        return in_front(b'"_meta":{"traceparent":"%b"}' % context.traceparent.encode(), raw)
    ours = {"traceparent": context.traceparent} | ({"tracestate": context.state} if context.state else {})
    if has_none:
        return in_front(b'"_meta":' + encode(ours), raw)
    found = members(raw)
    if found is None:  # nested too deep to read, or no JSON: for the server to judge
        return params
    theirs = found.get("_meta")
    if theirs is not None and not is_object(bytes(theirs)):
        return params
    meta = object_members(theirs)
    meta.pop("tracestate", None)
    return encode(found | {"_meta": meta | ours})
