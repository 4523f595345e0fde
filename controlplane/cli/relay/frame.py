"""One line of JSON-RPC, as far as its transport needs to know it.

Pure. The bytes stay; ids are kept raw, as `1` is not `"1"`. A message is of the modern era (2026-07-28) when its
`_meta` says so, and of the legacy one otherwise: a client that probes may send both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from attrs import field, frozen

VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
INTERNAL_ERROR = -32603
PARSE_ERROR = -32700

_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError)

Kind = Literal["request", "notification", "response", "batch"]


@frozen
class Frame:
    """One message, or a batch of them.

    Args:
        raw: The message as it came, on one line.
        kind: What it is.
        id: Its id, raw; of a request or a response.
        method: Its method; of a request or a notification.
        params: The members of its `params`, raw.
        version: The version that its `_meta` names; None in the legacy era.
        asks: The ids, raw, that answers are due for: more than one in a batch.
        answers: The ids, raw, that it answers.
    """

    raw: bytes = field(repr=False)
    kind: Kind
    id: bytes | None = None
    method: str | None = None
    params: Mapping[str, bytes] = field(factory=dict, repr=False)
    version: str | None = None
    asks: tuple[bytes, ...] = ()
    answers: tuple[bytes, ...] = ()

    @property
    def is_modern(self) -> bool:
        return self.version is not None

    def param(self, name: str) -> Any:
        """Return a member of `params`, decoded; None where there is none."""
        return decoded(self.params.get(name))


def decoded(raw: bytes | None) -> Any:
    """Decode JSON with the library's own decoder, which takes half surrogate pairs; None for what is no JSON."""
    if raw is None:
        return None
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def members(raw: bytes | None) -> dict[str, bytes]:
    """Return an object's members with their values raw; none for anything else."""
    if raw is None:
        return {}
    try:
        return {name: bytes(value) for name, value in _decode_members(raw).items()}
    except _UNDECODABLE:
        found = decoded(raw)
    if not isinstance(found, dict):
        return {}
    return {name: json.dumps(value).encode() for name, value in found.items()}


def _items(raw: bytes) -> list[bytes]:
    try:
        return [bytes(item) for item in _decode_items(raw)]
    except _UNDECODABLE:
        found = decoded(raw)
    return [json.dumps(item).encode() for item in found] if isinstance(found, list) else []


def read(line: bytes) -> Frame | None:
    """Read one line; None for what is no JSON-RPC message."""
    raw = line.strip()
    if raw.startswith(b"["):
        inner = [frame for frame in map(read, _items(raw)) if frame is not None]
        asks = tuple(id_ for frame in inner for id_ in frame.asks)
        answers = tuple(id_ for frame in inner for id_ in frame.answers)
        return Frame(raw, "batch", asks=asks, answers=answers) if inner else None
    found = members(raw) if raw.startswith(b"{") else {}
    method, id_ = decoded(found.get("method")), found.get("id")
    if isinstance(method, str):
        params = members(found.get("params"))
        version = decoded(members(params.get("_meta")).get(VERSION_KEY))
        known = version if isinstance(version, str) and method != "initialize" else None
        if id_ is None:
            return Frame(raw, "notification", None, method, params, known)
        return Frame(raw, "request", id_, method, params, known, (id_,))
    if "result" in found or "error" in found:
        return Frame(raw, "response", id_, answers=() if id_ is None else (id_,))
    return None


def on_one_line(message: bytes) -> bytes:
    """Return a message without line breaks, which JSON has between its tokens only."""
    return (
        message.replace(b"\r", b" ").replace(b"\n", b" ").strip() if b"\n" in message or b"\r" in message else message
    )


def error(id_: bytes | None, code: int, message: str, data: Mapping[str, Any] | None = None) -> bytes:
    """Return an error answer of our own."""
    member = {"code": code, "message": message} | ({"data": data} if data else {})
    return answer(id_, b'"error":' + json.dumps(member).encode())


def answer(id_: bytes | None, member: bytes) -> bytes:
    """Return an answer from its raw member, `"result":…` or `"error":…`."""
    return b'{"jsonrpc":"2.0","id":' + (id_ or b"null") + b"," + member + b"}"
