"""What the client gets to read when a request failed on the way, as a JSON-RPC error.

Pure. An error that the endpoint wrote in JSON-RPC passes as it is; a problem document, a proxy's page or no connection
at all become one that says what happened and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from controlplane.cli.exits import Problem, problem_of
from controlplane.cli.relay.frame import INTERNAL_ERROR, answer, decoded, error, members

if TYPE_CHECKING:
    from collections.abc import Mapping

EXCERPT_CHARS = 300


def problem_in(status: int, body: bytes, headers: Mapping[str, str], about_token: str) -> Problem:
    """Read the body of a refusal that is no JSON-RPC."""
    document = decoded(body)
    if isinstance(document, dict):
        problem = problem_of(document, status=status, retry_after=headers.get("retry-after", ""))
    else:
        text = body[:EXCERPT_CHARS].decode("utf-8", "replace").strip()
        problem = Problem(title=f"HTTP {status}", detail=text, status=status)
    if status == 401:
        return Problem(
            title=problem.title, detail=problem.detail, status=status, code=problem.code, hint=about_token,
            request_id=problem.request_id,
        )  # fmt: skip
    return problem


def sentence(problem: Problem) -> str:
    """Return a problem as one line."""
    detail = "" if problem.detail in ("", problem.title) else f": {problem.detail}"
    again = f" Try again in {problem.retry_after} s." if problem.retry_after else ""
    return f"{problem.title}{detail}".rstrip(".") + "." + (f" {problem.hint}" if problem.hint else "") + again


def error_of(id_: bytes, problem: Problem) -> bytes:
    """Return the answer that tells a client about a problem."""
    facts: dict[str, Any] = {"status": problem.status, "code": problem.code, "request_id": problem.request_id}
    return error(id_, INTERNAL_ERROR, sentence(problem), {name: fact for name, fact in facts.items() if fact})


def error_in(id_: bytes, body: bytes) -> bytes | None:
    """Return the JSON-RPC error in a body as an answer to this request; None where there is none."""
    found = members(body)
    if "error" not in found or "jsonrpc" not in found:
        return None
    if found.get("id") == id_:
        return body
    return answer(id_, b'"error":' + found["error"])
