"""How a call asks its modern client for input, and what the client's retry brings.

Pure. A result of type `input_required` ends a request; the client answers by
sending the same request again, with `inputResponses` and the `requestState`
that it was given (MCP 2026-07-28, multi round-trip requests). What is parked
meanwhile, and for whom, is decided elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
from attrs import frozen

from controlplane.core.rawjson import decode_or_none, encode, encode_text, members
from controlplane.protocol.members import object_members

RETRY_KEYS = frozenset({"inputResponses", "requestState"})
_NULL = b"null"


class Asks(Protocol):
    """A request of the server that belongs to a call."""

    @property
    def method(self) -> str: ...
    @property
    def params(self) -> bytes | None: ...


def input_required(asked: Mapping[str, Asks], state: str) -> bytes:
    """The raw member that ends this round of a call, and asks the client for input.

    Args:
        asked: By keys that the client's answers come back under.
        state: What the client must send back; opaque to it.
    """
    requests = {key: _input_request(one) for key, one in asked.items()}
    result = {"resultType": "input_required", "inputRequests": requests, "requestState": state}
    return b'"result":' + encode(result)


def _input_request(asks: Asks) -> dict[str, Any]:
    return {"method": asks.method} | ({} if asks.params is None else {"params": msgspec.Raw(asks.params)})


@frozen
class Retry:
    """What a request brings from an earlier round; `responses` are raw results, as the client gave them."""

    state: str | None = None
    responses: Mapping[str, bytes] = {}


def retry_of(params: bytes | None) -> Retry:
    """Read the members that make a request a retry; an empty `Retry` where there are none.

    Raises:
        ValueError: they are not of the form that the protocol gives them (JSON-RPC -32602); the text is a sentence.
    """
    found = object_members(params)
    raw_state, raw_responses = bytes(found.get("requestState", _NULL)), bytes(found.get("inputResponses", _NULL))
    state = decode_or_none(raw_state)
    if raw_state != _NULL and not isinstance(state, str):
        raise ValueError("`requestState` must be a string")
    responses = {} if raw_responses == _NULL else members(raw_responses)
    if responses is None:
        raise ValueError("`inputResponses` must be an object")
    return Retry(state, {key: bytes(response) for key, response in responses.items()})


def digest(method: str, params: bytes | None) -> bytes:
    """What a parked call is bound to: the request without what differs from one round to the next.

    Members may change places. Numbers may lose digits: the server acts on the first request's parameters, never on
    the retry's, so two that look alike harm nobody.
    """
    asked = decode_or_none(params)
    if isinstance(asked, dict):
        asked = {name: given for name, given in asked.items() if name not in RETRY_KEYS and name != "_meta"}
    try:
        canonical = params or b"" if asked is None else msgspec.json.encode(asked, order="deterministic")
    except RecursionError:
        canonical = params or b""
    return hashlib.sha256(encode_text(method) + canonical).digest()
