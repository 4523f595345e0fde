"""What the API answers: one attrs class per noun, shared with the CLI and the dashboard.

Times are RFC 3339 in UTC (`…Z`), ids are UUIDs, sizes are MiB where a name ends in `_mb`.
"""

from __future__ import annotations

from typing import Any, Literal

from attrs import frozen

from controlplane.wire.fields import bounded, omitted_when_none

Status = Literal["pending", "building", "starting", "running", "restarting", "stopping", "stopped", "failed"]
RoleName = Literal["viewer", "caller", "deployer", "admin"]
StreamName = Literal["stdout", "stderr", "system", "build"]

TIME = {"format": "date-time"}
USER_NAME_PATTERN = "^[a-z0-9][a-z0-9._-]{0,62}$"
USER_NAME_EXPECTS = "1 to 63 of `a-z 0-9 . _ -`, with a letter or digit first"
NEXT_CURSOR = "Pass it as `cursor` for the next page; null: this was the last."


@frozen(kw_only=True)
class EvidenceOut:
    """Why an instance failed, with what was seen (a post-mortem)."""

    code: str = bounded(description="A stable word, for example `crash_loop` or `start_timeout`.")
    reason: str = bounded(description="One sentence.")
    phase: str = bounded(description="What the instance was doing.")
    at: str = bounded(**TIME)
    incarnation: int = bounded(description="The number of the process this is about.")
    exit_code: int | None = bounded(None, description="Its exit status; null: ended by a signal, or not at all.")
    signal: str | None = bounded(None, description="The signal that ended it, for example `SIGKILL`.")
    stderr_tail: list[str] = bounded([], description="Its last lines on standard error.")
    last_frames: list[str] = bounded([], description="The last messages exchanged, shortened.")
    peak_memory_mb: float | None = bounded(None, description="Highest memory seen, MiB.")
    peak_processes: int | None = bounded(None, description="Most processes seen.")
    ran_s: float | None = bounded(None, description="Seconds it had been serving.")
    samples: list[dict[str, float]] = bounded(
        [],
        description="The last readings of its processes, oldest first: `ago_s` before the end, and `memory_mb`, `cpu_percent`"
        " and what else was read.",
    )
    hint: str | None = bounded(None, description="What to do about it.")


@frozen(kw_only=True)
class CandidateOut:
    """A revision that is being built or started beside the one in force."""

    revision: int
    phase: str = bounded(description="What it is doing, for example `preparing` or `handshake`.")


@frozen(kw_only=True)
class InstanceOut:
    """One instance: the row of a list, and the answer of deploy, redeploy, start, stop and delete."""

    instance_id: str = bounded(format="uuid")
    name: str = bounded(description="Unique per owner.")
    owner: str
    language: str = bounded(description="As asked for or found; empty until the source has been seen.")
    source_type: str
    revision: int = bounded(1, description="Number of the spec in force.")
    candidate: CandidateOut | None = bounded(
        None, description="The revision that a redeploy is bringing up; null: none."
    )
    entry_point: str | None = bounded(None, description="What is run of the source; null: nothing, or not yet known.")
    resolved: dict[str, str] = bounded(
        {},
        description="What its first build found, so that later ones come to the same: `commit`, `package`, `sha256` …",
    )
    status: Status = bounded(description="What was last seen of it.")
    phase: str = bounded(description="The step inside the status, for example `install` or `handshake`.")
    desired: Literal["running", "stopped", "deleted"] = bounded(description="What its owner asked for.")
    node: str | None = bounded(
        None, description="Id of the control plane that runs it, see `/nodes`; null: none at this moment."
    )
    created_at: str = bounded(**TIME)
    updated_at: str = bounded(**TIME)
    sse_endpoint: str = bounded(description="Path of its event stream.")
    api_endpoint: str = bounded(description="Path that calls are posted to.")
    mcp_endpoint: str = bounded(description="Path of its standard MCP endpoint.")
    isolation: str = bounded(description="The isolation level in force.")
    enforcement: dict[str, str] = bounded(
        {},
        description="By limit: `hard`, the kernel holds it; `soft`, Corral looks at it and acts. Empty before the first start.",
    )
    restarts: int = bounded(description="Restarts since it was deployed or started by hand.")
    pid: int | None = bounded(None, description="Its process; null: none now.")
    uptime_s: float | None = bounded(None, description="Seconds since its process started.")
    started_at: str | None = bounded(None, **TIME, description="When that was.")
    cpu_percent: float | None = bounded(None, description="CPU of its whole tree at the last sample; 100 is one core.")
    memory_mb: float | None = bounded(None, description="Memory of its whole tree at the last sample, MiB.")
    processes: int | None = bounded(None, description="Processes of its tree at the last sample.")
    disk_mb: float | None = bounded(None, description="MiB in its folder that are its own; null: not counted yet.")
    calls: int = bounded(0, description="Calls since the control plane started.")
    errors: int = bounded(0, description="Calls among them that failed.")
    p50_ms: float | None = bounded(None, description="Median latency of its calls, milliseconds.")
    p95_ms: float | None = bounded(None, description="95th percentile of it.")
    labels: dict[str, str] = bounded({})
    last_error: EvidenceOut | None = bounded(None, description="Its last failure; null: none.")
    notes: list[str] = bounded(
        [], description="What the caller should know: a setting not in force at this level, a secret in `args` …"
    )


@frozen(kw_only=True)
class LaneOut:
    """A process of an instance, and the MCP clients that it serves now."""

    pid: int
    kind: Literal["primary", "shared", "private"] = bounded(
        description="`primary` is what `execute` uses; `private` belongs to one session."
    )
    era: Literal["modern", "legacy", "bare"] = bounded(description="How the server is spoken to in it.")
    version: str | None = bounded(None, description="Protocol version, where the server names one.")
    capabilities: list[str] = bounded([], description="What its clients can be asked, as its server was told.")
    clients: int = bounded(description="Sessions and subscriptions that it serves.")
    calls_in_flight: int = bounded(description="Calls and subscriptions that it has not answered.")


@frozen(kw_only=True)
class InstanceDetailOut(InstanceOut):
    """All of one instance."""

    incarnation: int = bounded(description="Number of its current or last process.")
    mcp_config: dict[str, Any] | None = bounded(
        None, description="Its launch; what looks like a secret in `args` is redacted, `env` is left out."
    )
    dependencies: list[str] = bounded([], description="Packages asked for beside those that the source names.")
    build_command: str | None = bounded(None, description="Its own build step.")
    environment_vars: list[str] = bounded([], description="Names only; values are never given back.")
    limits: dict[str, Any] = bounded({}, description="As in a deploy.")
    restart: dict[str, Any] = bounded({}, description="As in a deploy.")
    network: dict[str, Any] = bounded({}, description="As in a deploy.")
    mounts: list[dict[str, Any]] = bounded([], description="As in a deploy.")
    sessions: str = "shared"
    protocol: dict[str, Any] = bounded(
        {},
        description="`{era, version, server_info, capabilities, instructions}` as found at the last handshake.",
    )
    lanes: list[LaneOut] = bounded([], description="Its processes that serve clients now, the primary first.")
    tools: list[dict[str, Any]] = bounded([], description="Its tools as it last listed them.")
    post_mortem: EvidenceOut | None = bounded(None, description="The last process's end, where it failed.")


@frozen(kw_only=True)
class InstancesOut:
    """A page of instances, oldest first."""

    instances: list[InstanceOut]
    next_cursor: str | None = bounded(None, description=NEXT_CURSOR)
    notes: list[str] | None = omitted_when_none(
        description="What is not as it should be: a control plane that did not answer, instances that cannot be shown."
    )


@frozen(kw_only=True)
class RevisionOut:
    """One of the specs that an instance had, with what became of it."""

    revision: int
    cause: str = bounded(description="`deploy`, `redeploy`, `patch`, or `rollback to N`.")
    created_at: str = bounded(**TIME)
    source_type: str
    language: str = bounded(description="As asked for or found; empty until the source has been seen.")
    source: str = bounded(description="Where it comes from, in one line, without secrets.")
    resolved: dict[str, str] = bounded({}, description="What its first build found: `commit`, `package`, `sha256` …")
    ran_at: str | None = bounded(None, **TIME, description="When it first answered its handshake; null: never.")
    state: Literal["active", "superseded", "failed", "pending"] = bounded(
        description="`pending` is being brought up; `failed` was never switched over to."
    )
    failure: EvidenceOut | None = bounded(None, description="Why it failed.")


@frozen(kw_only=True)
class RevisionsOut:
    """The revisions that are kept, newest first."""

    revisions: list[RevisionOut]
    next_cursor: str | None = bounded(None, description=NEXT_CURSOR)


@frozen(kw_only=True)
class ToolsOut:
    """What an instance offers, as it lists it."""

    tools: list[dict[str, Any]]
    stale: bool = bounded(False, description="The list is from before the instance stopped or restarted.")


@frozen(kw_only=True)
class PromptsOut:
    """The prompts of an instance, as it lists them."""

    prompts: list[dict[str, Any]]
    stale: bool = bounded(False, description="The list is from before the instance stopped or restarted.")


@frozen(kw_only=True)
class ResourcesOut:
    """The resources of an instance, as it lists them."""

    resources: list[dict[str, Any]]
    resource_templates: list[dict[str, Any]] = bounded([], description="Patterns of further resources' URIs.")
    stale: bool = bounded(False, description="The lists are from before the instance stopped or restarted.")


@frozen(kw_only=True)
class CallOut:
    """A JSON-RPC answer: either `result` or `error`, as the server gave it."""

    jsonrpc: Literal["2.0"]
    id: int = bounded(description="Corral's number for the call.")
    result: Any = omitted_when_none(description="What the server answered.")
    error: Any = omitted_when_none(description="Its refusal: usually `{code, message, data?}`.")


@frozen(kw_only=True)
class LogOut:
    """One line that an instance printed, or that Corral says about it."""

    timestamp: str = bounded(**TIME)
    log_level: str
    stream: StreamName
    incarnation: int
    message: str


@frozen(kw_only=True)
class LogsOut:
    """A page of log lines, oldest first."""

    logs: list[LogOut]
    next_cursor: str | None = bounded(None, description=NEXT_CURSOR)


@frozen(kw_only=True)
class MetricOut:
    """One sample of an instance, or the mean of several over one `step`."""

    timestamp: str = bounded(**TIME)
    cpu_usage: float = bounded(description="Percent; 100 is one core.")
    memory_usage: float = bounded(description="MiB.")
    processes: int
    calls: int = bounded(description="Calls since the sample before.")
    errors: int
    p50_ms: float | None = None
    p95_ms: float | None = None
    open_files: int | None = bounded(None, description="Of the process that has most; null: not read this time.")
    disk_mb: float | None = bounded(None, description="MiB in its folder that are its own; null: not counted yet.")


@frozen(kw_only=True)
class MetricsOut:
    """A page of samples, oldest first."""

    metrics: list[MetricOut]
    next_cursor: str | None = bounded(None, description=NEXT_CURSOR)


@frozen(kw_only=True)
class EventOut:
    """One thing that happened."""

    event_id: str
    type: str = bounded(description="For example `status`, `deployed` or `post_mortem`.")
    timestamp: str = bounded(**TIME)
    instance_id: str | None
    data: dict[str, Any]


@frozen(kw_only=True)
class EventsOut:
    """A page of events, oldest first."""

    events: list[EventOut]
    next_cursor: str | None = bounded(None, description=NEXT_CURSOR)


TOKEN_INSTANCES_MAX = 100
"""Single instances that one token may open; who wants more wants all."""


@frozen(kw_only=True)
class TokenIn:
    """A token to make. Its role is at most the maker's own."""

    name: str = bounded(minLength=1, maxLength=100, description="For people: where it is used.")
    role: RoleName
    expires_in: float | None = bounded(
        None, exclusiveMinimum=0, maximum=315_360_000, description="Seconds from now; absent: it does not expire."
    )
    owner: str | None = bounded(
        None,
        pattern=USER_NAME_PATTERN,
        x_expects=USER_NAME_EXPECTS,
        description="Whose token it is (administrators only); absent: the maker's own.",
    )
    instances: list[str] | None = bounded(
        None,
        minItems=1,
        maxItems=TOKEN_INSTANCES_MAX,
        items={"minLength": 1, "maxLength": 127},
        description="The only instances that it opens, by name or id; absent: all of its owner's, those to come included.",
    )


@frozen(kw_only=True)
class TokenOut:
    """A token's record; the token itself is never kept."""

    token_id: str
    name: str
    owner: str
    role: str
    created_at: str = bounded(**TIME)
    expires_at: str | None = bounded(None, description="Null: it does not expire.")
    last_used_at: str | None = bounded(None, description="Null: not yet used.")
    instances: list[str] | None = bounded(
        None, description="Ids of the only instances that it opens; null: all of its owner's."
    )
    token: str | None = omitted_when_none(description="Present once, in the answer that made it.")


@frozen(kw_only=True)
class TokensOut:
    """A page of tokens, oldest first."""

    tokens: list[TokenOut]
    next_cursor: str | None = bounded(None, description=NEXT_CURSOR)


QUOTA_NAMES = (
    "instances",
    "memory_mb",
    "cpu_s_per_day",
    "calls_per_day",
    "mb_per_day",
    "instance_memory_mb",
    "instance_cpu_percent",
    "instance_disk_mb",
    "instance_processes",
    "instance_open_files",
)
"""What an administrator may set for one user."""


@frozen(kw_only=True)
class ProtectedResourceOut:
    """OAuth protected-resource metadata (RFC 9728)."""

    resource: str = bounded(description="The URL that a token must be for.")
    authorization_servers: list[str] = bounded(description="Issuers whose tokens are accepted.")
    scopes_supported: list[str]
    bearer_methods_supported: list[str]
    resource_name: str


@frozen(kw_only=True)
class UserIn:
    """A user to make."""

    name: str = bounded(pattern=USER_NAME_PATTERN, x_expects=USER_NAME_EXPECTS)
    role: RoleName = bounded("deployer", description="The ceiling of all the user's tokens.")


@frozen(kw_only=True)
class UserPatchIn:
    """What may change on a user; absent fields stay."""

    role: RoleName | None = bounded(None, description="The new ceiling of all the user's tokens.")
    disabled: bool | None = bounded(None, description="A disabled user's tokens stop working at once.")
    quotas: dict[str, int | None] | None = bounded(
        None,
        propertyNames={"pattern": f"^({'|'.join(QUOTA_NAMES)})$", "x_expects": f"one of {', '.join(QUOTA_NAMES)}"},
        additionalProperties={"minimum": 0, "maximum": 2**53},
        description=(
            "What is allowed instead of the operator's settings, by name; null: those hold again, absent: it stays. 0 is no"
            " limit, where there may be none. The ceilings of an instance (`instance_…`) are at most the operator's."
        ),
    )


@frozen(kw_only=True)
class UserOut:
    """An owner of instances."""

    name: str
    role: str
    disabled: bool
    created_at: str | None = bounded(None, description="Null: made with the control plane itself.")
    quotas: dict[str, int] = bounded(
        {}, description="What is allowed instead of the operator's settings, by name; 0 is no limit."
    )
    token: str | None = omitted_when_none(
        description="The user's first token, present once, in the answer that made the user."
    )


@frozen(kw_only=True)
class UsersOut:
    """A page of users, by name."""

    users: list[UserOut]
    next_cursor: str | None = bounded(None, description=NEXT_CURSOR)


@frozen(kw_only=True)
class HealthOut:
    """Whether calls can be served, and what of the rest is away."""

    status: Literal["healthy", "degraded", "unhealthy"]
    services: dict[str, str] = bounded(description="`redis`, `postgres` and `mcp_manager`, one word each.")
    active_instances: int = bounded(description="Instances that are running.")
    version: str
    uptime_s: float


@frozen(kw_only=True)
class AliveOut:
    """A sign of life."""

    status: Literal["ok"]
    version: str


@frozen(kw_only=True)
class StatsOut:
    """Totals over what the caller may see; host and control-plane facts for admins only."""

    instances: dict[str, Any] = bounded(description="`{total, by_status, by_language}`.")
    calls: dict[str, Any] = bounded(description="`{total, errors, in_flight, p50_ms, p95_ms, p99_ms}` since the start.")
    restarts: int
    fleet: dict[str, Any] = bounded(description="`{cpu_percent, memory_mb, processes}` of all instances.")
    subscribers: int = bounded(description="Open event streams; for others than admins 0.")
    orphans: int = bounded(description="Processes of Corral's that belong to nothing: always 0.")
    dropped: dict[str, int] = bounded(description="Rows that could not be kept, by kind; admins only.")
    control_plane: dict[str, Any] = bounded(description="The server's own process; admins only.")
    host: dict[str, Any] = bounded(description="The machine; admins only.")
    isolation: dict[str, Any] = bounded(
        description="`{minimum, auto, available, limits, soft, in_force}`: in short what `/isolation` says, and instances by level."
    )


@frozen(kw_only=True)
class FieldErrorOut:
    """One wrong place of a request."""

    pointer: str = bounded(description="JSON Pointer (RFC 6901) into the body; `?name` for a query parameter.")
    message: str


@frozen(kw_only=True)
class ProblemOut:
    """RFC 9457 problem details, as `application/problem+json`."""

    type: str = bounded(description="`/problems/<code>`: a page that says what it means and what to do.")
    title: str
    status: int
    detail: str = bounded(description="What happened.")
    code: str = bounded(description="The stable word to program against.")
    request_id: str = bounded(description="Also in the `X-Request-Id` header; name it in a bug report.")
    hint: str | None = omitted_when_none(description="What to do.")
    errors: list[FieldErrorOut] | None = omitted_when_none(description="All wrong places of the request at once.")
    instance_id: str | None = omitted_when_none(description="The instance it is about.")
    phase: str | None = omitted_when_none(description="What a failed instance was doing.")
    exit_code: int | None = omitted_when_none(description="A failed instance's exit status.")
    signal: str | None = omitted_when_none(description="The signal that ended it.")
    stderr_tail: list[str] | None = omitted_when_none(description="Its last lines on standard error.")
