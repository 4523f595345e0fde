"""JSON-RPC messages as the endpoint writes them. Pure.

What Corral itself has to report during a call (the server crashed, time ran
out) is a JSON-RPC error, for that is what MCP clients show to people: its code
is the HTTP status of the problem, outside the ranges that JSON-RPC and MCP
reserve, and its data are the members of the problem document.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from controlplane.core.jsonrpc import encode, encode_text
from controlplane.core.rawjson import one_line
from controlplane.protocol.members import error

if TYPE_CHECKING:
    from controlplane.errors import CorralError


def answer(raw_id: bytes, member: bytes) -> bytes:
    """A whole response.

    Args:
        raw_id: The request's id as the client wrote it.
        member: The raw `"result":…` or `"error":…`.
    """
    return b'{"jsonrpc":"2.0","id":%b,%b}' % (raw_id, member)


def notification(method: str, params: bytes | None) -> bytes:
    """A notification of the server as the message that it was."""
    tail = b"" if params is None else b',"params":' + params
    return b'{"jsonrpc":"2.0","method":%b%b}' % (encode_text(method), tail)


def frame(message: bytes) -> bytes:
    """A message as one event of a stream that cannot be resumed."""
    return b"data: %b\n\n" % one_line(message)


def fault(problem: CorralError) -> bytes:
    """Corral's own failure as an `"error":…` member."""
    data: dict[str, Any] = {"code": problem.code, "title": problem.title, **problem.evidence}
    if problem.hint is not None:
        data["hint"] = problem.hint
    if problem.retry_after_s is not None:
        data["retry_after_s"] = round(problem.retry_after_s, 3)
    return error(problem.status, problem.detail or problem.title, data)


def refused(raw_id: bytes | None, code: int, message: str) -> bytes:
    """A whole error response of Corral's own."""
    return answer(b"null" if raw_id is None else raw_id, b'"error":' + encode({"code": code, "message": message}))
