"""Every failure that Corral itself reports, as one tree.

Each leaf has a stable `code` (snake_case, also the last part of the problem
type `/problems/<code>`), the HTTP `status` the web edge answers with, and a
short `title`. The instance carries what happened (`detail`) and, where a
person can act on it, what to do (`hint`). Core code raises these without
knowing about HTTP; `web/problems.py` is the only place that turns them into
answers (RFC 9457).

A JSON-RPC error that an MCP server answers with is a value that passes
through, never one of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from attrs import define, field, frozen


@frozen
class FieldError:
    """One wrong place in a request: `pointer` is an RFC 6901 JSON Pointer."""

    pointer: str
    message: str


@define(kw_only=True)
class CorralError(Exception):
    """Root of the tree; never raised itself.

    Args:
        detail: What happened, for a person; holds no secret and no path of Corral's own code.
        hint: What the reader can do about it.
        retry_after_s: Seconds after which trying again is worth it (`Retry-After`).
        evidence: More members for the problem document (`phase`, `exit_code`, `stderr_tail` …).
        errors: All wrong places of a request at once.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    detail: str = field(default="", kw_only=False)
    hint: str | None = None
    retry_after_s: float | None = None
    evidence: Mapping[str, Any] = field(factory=dict)
    errors: tuple[FieldError, ...] = ()

    def __str__(self) -> str:
        return self.detail or self.title


class MalformedJson(CorralError):
    code, status, title = "malformed_json", 400, "The body is not valid JSON"


class Unauthorized(CorralError):
    code, status, title = "unauthorized", 401, "A valid bearer token is needed"


class Forbidden(CorralError):
    code, status, title = "forbidden", 403, "The token's role does not allow this"


class OriginRejected(CorralError):
    code, status, title = "origin_rejected", 403, "The Origin is not allowed"


class QuotaExceeded(CorralError):
    code, status, title = "quota_exceeded", 403, "A quota is used up"


class NotFound(CorralError):
    code, status, title = "not_found", 404, "There is no such thing"


class MethodNotAllowed(CorralError):
    """`evidence["allow"]` lists the methods that work here."""

    code, status, title = "method_not_allowed", 405, "The method is not allowed here"


class NotAcceptable(CorralError):
    code, status, title = "not_acceptable", 406, "No representation fits the Accept header"


class Conflict(CorralError):
    code, status, title = "conflict", 409, "The request conflicts with what exists"


class NotRunning(CorralError):
    code, status, title = "not_running", 409, "The instance was stopped"


class PayloadTooLarge(CorralError):
    code, status, title = "payload_too_large", 413, "The body is too large"


class UnsupportedMediaType(CorralError):
    code, status, title = "unsupported_media_type", 415, "The content type is not supported"


class HostRejected(CorralError):
    code, status, title = "host_rejected", 421, "The Host is not served here"


class InvalidRequest(CorralError):
    code, status, title = "invalid_request", 422, "The request is well-formed but wrong"


class SourceRejected(CorralError):
    code, status, title = "source_rejected", 422, "The source cannot be used"


class ArchiveRejected(CorralError):
    code, status, title = "archive_rejected", 422, "The archive cannot be unpacked safely"


class BuildFailed(CorralError):
    code, status, title = "build_failed", 422, "The build failed"


class DeployFailed(CorralError):
    code, status, title = "deploy_failed", 422, "The instance did not come up"


class SecretMissing(CorralError):
    code, status, title = "secret_missing", 422, "A secret is not set"


class RateLimited(CorralError):
    code, status, title = "rate_limited", 429, "Too many requests"


class Internal(CorralError):
    """A bug of ours; the answer holds an incident id and nothing else."""


class InstanceCrashed(CorralError):
    code, status, title = "instance_crashed", 502, "The MCP server ended during the call"


class BadChildMessage(CorralError):
    code, status, title = "bad_child_message", 502, "The MCP server's message cannot be used"


class InstanceUnavailable(CorralError):
    code, status, title = "instance_unavailable", 503, "The instance is not serving"


class Busy(CorralError):
    code, status, title = "busy", 503, "The instance is busy"


class StorageUnavailable(CorralError):
    code, status, title = "storage_unavailable", 503, "The database is away"


class Overloaded(CorralError):
    code, status, title = "overloaded", 503, "The control plane is at its limits"


class ShuttingDown(CorralError):
    code, status, title = "shutting_down", 503, "The control plane is stopping"


class CallTimeout(CorralError):
    code, status, title = "call_timeout", 504, "The call ran out of time"


def _leaves(root: type[CorralError]) -> list[type[CorralError]]:
    return [leaf for sub in root.__subclasses__() for leaf in (sub, *_leaves(sub))]


PROBLEMS: Mapping[str, type[CorralError]] = {leaf.code: leaf for leaf in _leaves(CorralError)}
"""The closed list of problem codes: what `/problems/<code>` documents."""
