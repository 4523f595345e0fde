"""What the API answers: one attrs class per noun, shared with the CLI and the dashboard.

Times are RFC 3339 in UTC (`…Z`), ids are UUIDs, sizes are MiB where a name ends in `_mb`.
"""

from __future__ import annotations

from typing import Any, Literal

from attrs import field, frozen

Status = Literal["pending", "building", "starting", "running", "restarting", "stopping", "stopped", "failed"]


@frozen(kw_only=True)
class EvidenceOut:
    """Why an instance failed, with what was seen (a post-mortem)."""

    code: str
    reason: str
    phase: str
    at: str
    incarnation: int
    exit_code: int | None = None
    signal: str | None = None
    stderr_tail: list[str] = field(factory=list)
    last_frames: list[str] = field(factory=list)
    peak_memory_mb: float | None = None
    peak_processes: int | None = None
    ran_s: float | None = None
    hint: str | None = None


@frozen(kw_only=True)
class InstanceOut:
    """One instance: the row of a list, and the answer of deploy, start, stop and delete."""

    instance_id: str
    name: str
    owner: str
    language: str
    source_type: str
    status: Status
    phase: str
    desired: Literal["running", "stopped", "deleted"]
    created_at: str
    updated_at: str
    sse_endpoint: str
    api_endpoint: str
    mcp_endpoint: str
    isolation: str
    restarts: int
    pid: int | None = None
    uptime_s: float | None = None
    cpu_percent: float | None = None
    memory_mb: float | None = None
    processes: int | None = None
    calls: int = 0
    errors: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None
    labels: dict[str, str] = field(factory=dict)
    last_error: EvidenceOut | None = None
    notes: list[str] = field(factory=list)
    """What the caller should know: a setting that is not in force at this isolation level, a secret in `args` …"""


@frozen(kw_only=True)
class InstanceDetailOut(InstanceOut):
    """All of one instance."""

    revision: int
    incarnation: int
    mcp_config: dict[str, Any] | None = None
    entry_point: str | None = None
    environment_vars: list[str] = field(factory=list)
    """Names only; values are never given back."""
    limits: dict[str, Any] = field(factory=dict)
    restart: dict[str, Any] = field(factory=dict)
    network: dict[str, Any] = field(factory=dict)
    sessions: str = "shared"
    protocol: dict[str, Any] = field(factory=dict)
    """`{era, version, dialect, server_info, capabilities}` as found at the last handshake."""
    tools: list[dict[str, Any]] = field(factory=list)
    post_mortem: EvidenceOut | None = None


@frozen(kw_only=True)
class InstancesOut:
    instances: list[InstanceOut]
    next_cursor: str | None = None


@frozen(kw_only=True)
class ToolsOut:
    tools: list[dict[str, Any]]
    stale: bool = False
    """The list is from before the instance stopped or restarted."""


@frozen(kw_only=True)
class LogOut:
    timestamp: str
    log_level: str
    stream: Literal["stdout", "stderr", "system", "build"]
    incarnation: int
    message: str


@frozen(kw_only=True)
class LogsOut:
    logs: list[LogOut]
    next_cursor: str | None = None


@frozen(kw_only=True)
class MetricOut:
    timestamp: str
    cpu_usage: float
    memory_usage: float
    processes: int
    calls: int
    errors: int
    p50_ms: float | None = None
    p95_ms: float | None = None


@frozen(kw_only=True)
class MetricsOut:
    metrics: list[MetricOut]
    next_cursor: str | None = None


@frozen(kw_only=True)
class EventOut:
    event_id: str
    type: str
    timestamp: str
    instance_id: str | None
    data: dict[str, Any]


@frozen(kw_only=True)
class EventsOut:
    events: list[EventOut]
    next_cursor: str | None = None


@frozen(kw_only=True)
class TokenIn:
    name: str = field(metadata={"schema": {"minLength": 1, "maxLength": 100}})
    role: Literal["viewer", "caller", "deployer", "admin"]
    expires_in: float | None = field(default=None, metadata={"schema": {"exclusiveMinimum": 0, "maximum": 315_360_000}})
    """Seconds from now; absent: it does not expire."""


@frozen(kw_only=True)
class TokenOut:
    token_id: str
    name: str
    owner: str
    role: str
    created_at: str
    expires_at: str | None = None
    last_used_at: str | None = None
    token: str | None = None
    """Present once, in the answer that made it."""


@frozen(kw_only=True)
class TokensOut:
    tokens: list[TokenOut]
    next_cursor: str | None = None


@frozen(kw_only=True)
class UserIn:
    name: str = field(metadata={"schema": {"pattern": "^[a-z0-9][a-z0-9._-]{0,62}$"}})
    role: Literal["viewer", "caller", "deployer", "admin"] = "deployer"


@frozen(kw_only=True)
class UserPatchIn:
    role: Literal["viewer", "caller", "deployer", "admin"] | None = None
    disabled: bool | None = None


@frozen(kw_only=True)
class UserOut:
    name: str
    role: str
    disabled: bool
    created_at: str
    token: str | None = None
    """The user's first token, present once, in the answer that made the user."""


@frozen(kw_only=True)
class UsersOut:
    users: list[UserOut]
    next_cursor: str | None = None


@frozen(kw_only=True)
class HealthOut:
    status: Literal["healthy", "degraded", "unhealthy"]
    services: dict[str, str]
    active_instances: int
    version: str
    uptime_s: float


@frozen(kw_only=True)
class StatsOut:
    """Totals over what the caller may see; host and control-plane facts for admins only."""

    instances: dict[str, Any]
    calls: dict[str, Any]
    restarts: int
    fleet: dict[str, Any]
    subscribers: int
    orphans: int
    dropped: dict[str, int]
    control_plane: dict[str, Any]
    host: dict[str, Any]
    isolation: dict[str, Any]


@frozen(kw_only=True)
class ProblemOut:
    """RFC 9457 problem details, as `application/problem+json`."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    hint: str | None = None
    errors: list[dict[str, str]] | None = None
    phase: str | None = None
    exit_code: int | None = None
    signal: str | None = None
    stderr_tail: list[str] | None = None
