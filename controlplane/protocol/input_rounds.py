"""A modern server asks for input, and a legacy client is asked for it: the rounds of one call.

Pure. Each `input_required` result becomes requests to the client; its answers
go into the next retry. The client is only asked what it declared, and a server
that never comes to an end is given up (MCP 2026-07-28, multi round-trip
requests).

A client may answer with a JSON-RPC error; `inputResponses` has no form for it.
An elicitation that fails is one that the user did not answer: `cancel`.
Sampling and roots have no such result, and an answer left out makes the server
ask again, so there the call ends with an error that holds the client's own.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from attrs import define, field, frozen

from controlplane.core.jsonrpc import INTERNAL_ERROR
from controlplane.core.rawjson import decode_or_none, encode, members
from controlplane.protocol.capabilities import CapabilitySet, needed_by
from controlplane.protocol.members import error, in_front, is_error, is_object, object_members, value

MAX_ROUNDS = 10
"""A server that asks more often than this goes round in circles."""
MAX_REQUESTS = 32
"""In one round: each becomes a question to a person or a model, and is held until it is answered."""
EMPTY_ROUND_PAUSE_S = 0.05
"""A result with nothing but `requestState` sheds load: the retry waits, twice as long after each round."""
EMPTY_ROUND_PAUSE_MAX_S = 2.0
"""All rounds of a call then give the server eleven seconds."""
_ELICITATION = "elicitation/create"
_CANCELLED = b'{"action":"cancel"}'


@frozen
class Final:
    """The call is over; `member` is what the client gets, still as the server wrote it if the server did."""

    member: bytes


@frozen
class InputRequest:
    """What to ask the client; `params` are raw, as legacy versions have them."""

    key: str
    method: str
    params: bytes | None


@frozen
class Ask:
    """Ask the client all of this, then retry; with nothing to ask, retry after `pause_s` seconds."""

    requests: tuple[InputRequest, ...]
    pause_s: float = 0.0


@define
class InputRounds:
    """The rounds of one call.

    Args:
        params: The raw parameters as the server first got them, envelope and all.
        capabilities: What the client declared.
    """

    params: bytes | None
    capabilities: CapabilitySet
    _round: int = field(default=0, init=False)
    _asked: dict[str, InputRequest] = field(factory=dict, init=False)
    _answers: dict[str, bytes] = field(factory=dict, init=False)
    _state: bytes | None = field(default=None, init=False)

    def on_result(self, member: bytes) -> Final | Ask:
        """Take the server's answer to the call, or to a retry."""
        if is_error(member) or b"input_required" not in member:  # no JSON encoder escapes these letters
            return Final(member)
        found = object_members(value(member))
        if _text(found.get("resultType")) != "input_required":
            return Final(member)
        self._round += 1
        if self._round > MAX_ROUNDS:
            return _failed(f"the server asked for input {MAX_ROUNDS} times without coming to an end")
        return self._begin_round(found)

    def answer(self, key: str, member: bytes) -> Final | None:
        """Take the client's answer to one request; `Final` if the call cannot go on.

        Args:
            key: Of the request; one that is not open is ignored.
            member: The raw `"result":…` or `"error":…`.
        """
        request = self._asked.get(key)
        if request is None or key in self._answers:
            return None
        answer = value(member)
        if is_error(member) or not is_object(answer):
            if request.method != _ELICITATION:
                return _unanswered(request.method, member)
            answer = _CANCELLED
        self._answers[key] = answer
        return None

    @property
    def is_answered(self) -> bool:
        """Whether every request of this round has its answer."""
        return len(self._answers) == len(self._asked)

    def retry_params(self) -> bytes:
        """The raw parameters of the retry: the first request's, this round's answers, and the server's own state."""
        added: dict[str, Any] = {}
        if self._asked:
            added["inputResponses"] = {key: msgspec.Raw(answer) for key, answer in self._answers.items()}
        if self._state is not None:
            added["requestState"] = msgspec.Raw(self._state)
        raw = self.params if self.params is not None and is_object(self.params) else b"{}"
        found = members(raw)
        return in_front(encode(added)[1:-1], raw) if found is None else encode(found | added)

    def _begin_round(self, found: dict[str, Any]) -> Final | Ask:
        raw_state, raw_requests = (bytes(found.get(name, b"null")) for name in ("requestState", "inputRequests"))
        self._state = None if raw_state == b"null" else raw_state
        self._asked, self._answers = {}, {}
        entries = {} if raw_requests == b"null" else members(raw_requests)
        if entries is None or (not entries and self._state is None):
            return _failed("the server asked for input without saying for which")
        if len(entries) > MAX_REQUESTS:
            return _failed(f"the server asked for {len(entries)} inputs at once; at most {MAX_REQUESTS} are passed on")
        for key, raw in entries.items():
            request = _input_request(key, bytes(raw))
            if (refusal := self._refusal(request)) is not None:
                return _failed(refusal)
            self._asked[key] = request
        return Ask(tuple(self._asked.values()), 0.0 if entries else self._pause_s)

    @property
    def _pause_s(self) -> float:
        return min(EMPTY_ROUND_PAUSE_S * 2.0 ** (self._round - 1), EMPTY_ROUND_PAUSE_MAX_S)

    def _refusal(self, request: InputRequest) -> str | None:
        needed = needed_by(request.method, request.params)
        if needed is None:
            return f"the server asked for {request.method or 'something'}, which is nothing that a client can be asked"
        if needed not in self.capabilities:
            return f"the server asked for {request.method}, but the client did not declare {needed}"
        return None


def _input_request(key: str, raw: bytes) -> InputRequest:
    found = object_members(raw)
    params = None if "params" not in found else bytes(found["params"])
    return InputRequest(key, _text(found.get("method")) or "", _legacy(key, params))


def _legacy(key: str, params: bytes | None) -> bytes | None:
    """Give a URL elicitation the id that it must have in 2025-11-25: the same one for the same question."""
    found = object_members(params)
    if _text(found.get("mode")) != "url" or "elicitationId" in found:
        return params
    number = hashlib.blake2b(encode([key, found]), digest_size=16).hexdigest()
    return encode(found | {"elicitationId": number})


def _unanswered(method: str, member: bytes) -> Final:
    theirs = msgspec.Raw(value(member)) if is_error(member) else None
    data = {"method": method} | ({} if theirs is None else {"error": theirs})
    return Final(error(INTERNAL_ERROR, f"the client did not answer the server's {method}", data))


def _failed(why: str) -> Final:
    return Final(error(INTERNAL_ERROR, why))


def _text(raw: Any) -> str | None:
    text = None if raw is None else decode_or_none(bytes(raw))
    return text if isinstance(text, str) else None
