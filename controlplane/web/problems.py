"""A failure becomes an answer: `CorralError` to RFC 9457 `application/problem+json`.

The only place that knows both the error tree and HTTP. Framework-free: it
returns a status, headers and bytes, which either door sends. Anything that is
not a `CorralError` is a bug of ours: it is logged with its traceback under an
incident id, and the answer holds that id and nothing else.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
from typing import Any

import msgspec
from attrs import frozen

from controlplane.errors import CorralError, Internal
from controlplane.web.challenge import PLAIN

log = logging.getLogger("corral.web")

Headers = tuple[tuple[bytes, bytes], ...]

PROBLEM_TYPE = b"application/problem+json"
RETRY_AFTER_S = 1
"""For 429 and 503 that do not say: soon enough for a person, late enough not to be a loop."""

STEADY_HEADERS: Headers = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
"""On every answer of the API."""

_RESERVED = frozenset(
    {"type", "title", "status", "detail", "code", "request_id", "hint", "errors", "allow", "challenge"}
)


@frozen
class Answer:
    """A whole HTTP answer; header names are lower-case, `content-length` is included."""

    status: int
    headers: Headers
    body: bytes


def problem(error: CorralError, *, request_id: str) -> Answer:
    """Turn an error into its problem document (RFC 9457).

    Args:
        error: What happened; `evidence` becomes extension members, `evidence["allow"]` the Allow header,
            `evidence["challenge"]` the WWW-Authenticate header.
        request_id: Of the request that failed, for body and header.
    """
    body = _encode(_document(error, request_id))
    headers = (
        (b"content-type", PROBLEM_TYPE),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode("ascii", "replace")),
        *_extra_headers(error),
        *STEADY_HEADERS,
    )
    return Answer(error.status, headers, body)


def unexpected(error: BaseException, *, request_id: str) -> Answer:
    """Log a bug with its traceback, and answer `internal` with the incident's id only."""
    incident = secrets.token_hex(8)
    log.error("incident %s in request %s: %s", incident, request_id, type(error).__name__, exc_info=error)
    internal = Internal(
        "Something went wrong inside Corral; its log has the details.",
        hint=f"Look for incident {incident} in the control plane's log.",
        evidence={"incident": incident},
    )
    return problem(internal, request_id=request_id)


def answer_for(error: BaseException, *, request_id: str) -> Answer:
    """Turn whatever a handler raised into an answer; a group that holds one `CorralError` alone counts as that."""
    leaf = _sole_leaf(error)
    if isinstance(leaf, CorralError):
        return problem(leaf, request_id=request_id)
    return unexpected(error, request_id=request_id)


def _sole_leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _document(error: CorralError, request_id: str) -> dict[str, Any]:
    document: dict[str, Any] = {
        "type": f"/problems/{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail or error.title,
        "code": error.code,
        "request_id": request_id,
    }
    if error.hint is not None:
        document["hint"] = error.hint
    if error.errors:
        document["errors"] = [{"pointer": wrong.pointer, "message": wrong.message} for wrong in error.errors]
    document.update({name: value for name, value in error.evidence.items() if name not in _RESERVED})
    return document


def _extra_headers(error: CorralError) -> list[tuple[bytes, bytes]]:
    headers: list[tuple[bytes, bytes]] = []
    challenge = error.evidence.get("challenge", PLAIN if error.status == 401 else None)
    if challenge is not None:
        headers.append((b"www-authenticate", challenge.encode("latin-1")))
    if error.status in {429, 503} or error.retry_after_s is not None:
        seconds = RETRY_AFTER_S if error.retry_after_s is None else max(1, math.ceil(error.retry_after_s))
        headers.append((b"retry-after", str(seconds).encode()))
    if error.status == 405:
        headers.append((b"allow", ", ".join(error.evidence.get("allow", ())).encode()))
    return headers


def _encode(document: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(document, enc_hook=str)
    except UnicodeEncodeError:
        # A lone surrogate, from a child's stderr or a caller's text: JSON can write it as an escape, UTF-8 cannot.
        return json.dumps(document, default=str).encode("ascii")
