"""The nouns that Corral keeps: users, tokens, specs, instances, listings, incarnations, samples, events.

Frozen values without behaviour; whoever holds one may pass it on. Times named
`*_at` are aware UTC datetimes for people and the database; durations and
deadlines are monotonic seconds (`*_s`). Sizes are bytes (`*_bytes`) or MiB (`*_mb`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from enum import Enum
from typing import Any
from uuid import UUID

from attrs import field, frozen

from controlplane.core.lifecycle import Desired, State
from controlplane.core.quotas import NO_OVERRIDES, Overrides
from controlplane.core.restart import RestartPolicy


class Role(Enum):
    """What a token may do; each role includes the ones before it."""

    VIEWER = "viewer"
    CALLER = "caller"
    DEPLOYER = "deployer"
    ADMIN = "admin"

    def includes(self, other: Role) -> bool:
        order = list(Role)
        return order.index(self) >= order.index(other)


class SourceType(Enum):
    """Where what runs comes from."""

    MCP_CONFIG = "mcp_config"
    DIRECT = "direct"
    GIT = "git"
    ZIP = "zip"
    TAR = "tar"


@frozen(kw_only=True)
class User:
    """An owner of instances. `name` is the key."""

    name: str
    role: Role
    disabled: bool = False
    created_at: datetime | None = None
    quotas: Overrides = NO_OVERRIDES
    """What an administrator said instead of the operator's settings."""


@frozen(kw_only=True)
class Token:
    """An API token's record; the token itself is never kept, only its SHA-256."""

    id: UUID
    owner: str
    name: str
    role: Role
    digest: bytes = field(repr=False)
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    instances: frozenset[UUID] | None = None
    """The only ones it opens; None: all of its owner's."""


@frozen(kw_only=True)
class Secret:
    """A secret's record; its value is nowhere but in the store, encrypted, and with the instances that name it."""

    owner: str
    name: str
    created_at: datetime
    updated_at: datetime


@frozen(kw_only=True)
class Principal:
    """Who is asking: the verified owner, the role in force, and a name for rate limits and audit."""

    owner: str
    role: Role
    token_id: str
    expires_at: datetime | None = None
    """When the credential ends; None: never."""
    instances: frozenset[UUID | str] | None = None
    """The only ones it opens, by id, or as `owner/name` (the audience of a JWT may name one so); None: all that its owner may."""

    @property
    def is_limited(self) -> bool:
        """Whether it opens single instances only, and with them nothing of the control plane's own."""
        return self.instances is not None

    @property
    def is_admin(self) -> bool:
        """Whether it may do everything."""
        return self.role is Role.ADMIN and self.instances is None

    @property
    def crosses_owners(self) -> bool:
        """Whether other users' instances may be among those it sees."""
        return self.role is Role.ADMIN

    def sees(self, owner: str, name: str, instance_id: UUID) -> bool:
        """Whether this instance exists for the caller: the one place that decides it."""
        if owner != self.owner and self.role is not Role.ADMIN:
            return False
        only = self.instances
        return only is None or instance_id in only or f"{owner}/{name}" in only


@frozen(kw_only=True)
class Limits:
    """An instance's ceilings. `cpu_percent` 100 is one core; `log_kb_s` is what is kept of what it prints, KiB a second."""

    memory_mb: int = 1024
    cpu_percent: int = 80
    disk_mb: int = 2048
    processes: int = 256
    open_files: int = 1024
    call_timeout_s: float = 60.0
    log_kb_s: int = 128


@frozen(kw_only=True)
class Command:
    """A launch as every MCP client writes it; `env` is kept apart, in `Spec.env`."""

    command: str
    args: tuple[str, ...] = ()
    cwd: str | None = None


@frozen(kw_only=True)
class Origin:
    """Where a source that is not written in its Spec comes from: a repository, an archive's address, or an upload.

    Args:
        url: https (or ssh) address of a repository or an archive; None for an upload.
        ref: Branch, tag or commit of a repository; None: its default branch.
        subdir: The folder of the source that counts; None: all of it.
        sha256: Of an uploaded archive, in hex; it is kept by that name.
        size_bytes: Of an uploaded archive.
    """

    url: str | None = None
    ref: str | None = None
    subdir: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None


@frozen(kw_only=True)
class Mount:
    """A folder (or file) of the host, and where the instance sees it."""

    source: str
    target: str
    writable: bool = False


@frozen(kw_only=True)
class Resolved:
    """What the first build of a revision found, so that later ones come to the same: never asked for again.

    `facts` are short words for people and for the next build: `commit`, `sha256`, `package` (`name@1.2.3`), `install`
    (the store's key), `lock` (SHA-256 of the lock file).
    """

    language: str
    entry_point: str | None = None
    facts: Mapping[str, str] = field(factory=dict)


@frozen(kw_only=True)
class Spec:
    """What to run: one immutable revision, but for `resolved`, which its first build fills in.

    `env` is `mcp_config.env` overlaid with `environment_vars`; its values are secret, and may name secrets
    (`core.secretrefs`), which are looked up at each launch.
    Exactly one of `command` (for `mcp_config`), `source` (for `direct`) and `origin` (for all else) is set.
    `language` is what was asked for; empty until the source has been seen, if nothing was.
    """

    revision: int = 1
    cause: str = "deploy"
    """How the revision came to be: `deploy`, `redeploy`, `patch`, `rollback to 3`."""
    source_type: SourceType
    language: str
    command: Command | None = None
    entry_point: str | None = None
    source: bytes | None = field(default=None, repr=False)
    origin: Origin | None = None
    dependencies: tuple[str, ...] = ()
    build_command: str | None = None
    resolved: Resolved | None = None
    env: Mapping[str, str] = field(factory=dict, repr=False)
    limits: Limits = Limits()
    restart: RestartPolicy = RestartPolicy()
    isolation: str = "auto"
    network: Mapping[str, Any] = field(factory=dict)
    mounts: tuple[Mount, ...] = ()
    sessions: str = "shared"


@frozen(kw_only=True)
class Evidence:
    """Why something failed, with what was seen: a post-mortem.

    Kept in the deploy answer, the API, the database, the CLI and the dashboard.
    `reason` is one sentence; `code` is a stable word (`crash_loop`, `start_timeout` …).
    `samples` are the last readings of its processes, oldest first: `ago_s`, and what was read, as in a `Sample`.
    """

    code: str
    reason: str
    phase: str
    at: datetime
    incarnation: int = 0
    exit_code: int | None = None
    signal: str | None = None
    stderr_tail: tuple[str, ...] = ()
    last_frames: tuple[str, ...] = ()
    peak_memory_mb: float | None = None
    peak_processes: int | None = None
    ran_s: float | None = None
    samples: tuple[Mapping[str, float], ...] = ()
    hint: str | None = None


@frozen(kw_only=True)
class Instance:
    """A named, supervised server: the owner's wish and what was last seen of it."""

    id: UUID
    owner: str
    name: str
    spec: Spec
    labels: Mapping[str, str] = field(factory=dict)
    desired: Desired = Desired.RUNNING
    state: State = State.PENDING
    uid: int | None = None
    """The host uid its processes run as; None while Corral itself is not root."""
    created_at: datetime
    updated_at: datetime
    ever_ran: bool = False
    """Whether this revision has completed a handshake before: decides if a failed start is retried."""
    restarts: int = 0
    incarnation: int = 0
    last_error: Evidence | None = None
    node_id: UUID | None = None
    """The control plane that holds it; None: nobody, it may be taken."""
    epoch: int = 0
    """Grows whenever the holder changes; what is written for an older one does not count."""


@frozen(kw_only=True)
class Node:
    """A control plane as the database knows it. `url` is where the others reach it, without a slash at its end."""

    id: UUID
    url: str
    version: str
    is_live: bool = True
    """Whether its lease stood when this was read."""
    lease_age_s: float = 0.0
    """Since it was renewed last, by the database's clock."""


@frozen(kw_only=True)
class Revision:
    """One of an instance's Specs, with what became of it.

    `ran_at` is when it first completed a handshake, None if it never did; `failure` why it was not switched over to.
    """

    spec: Spec
    created_at: datetime
    ran_at: datetime | None = None
    failure: Evidence | None = None


class Section(Enum):
    """What a server lists: one part of an instance's catalogue."""

    TOOLS = "tools"
    PROMPTS = "prompts"
    RESOURCES = "resources"
    RESOURCE_TEMPLATES = "resource_templates"


@frozen(kw_only=True)
class Listing:
    """All that a server offers in one section. `items` is a raw JSON array, `digest` its SHA-256."""

    instance_id: UUID
    section: Section
    items: bytes = field(repr=False)
    digest: bytes = field(repr=False)
    seen_at: datetime
    """When the server first gave this very list."""


@frozen(kw_only=True)
class Incarnation:
    """The n-th process of an instance. `exit_code` and `signal` are None while it runs."""

    instance_id: UUID
    number: int
    pid: int
    started_at: datetime
    ended_at: datetime | None = None
    exit_code: int | None = None
    signal: str | None = None
    evidence: Evidence | None = None
    revision: int | None = None
    """What it ran; None in rows from before this was kept."""


@frozen(kw_only=True, slots=True)
class Sample:
    """One look at an instance's whole process tree, and at its calls since the last look."""

    at: datetime
    cpu_percent: float
    memory_mb: float
    processes: int
    open_files: int | None = None
    """Of the process that has most; None: not read this time."""
    disk_mb: float | None = None
    """What lies in its folder and is its own, when that was last counted."""
    calls: int = 0
    errors: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None
    interval_s: float | None = None
    """Since the last look; not kept in the database, hence None in what comes from there."""


@frozen(kw_only=True, slots=True)
class UsageDay:
    """What an owner's instances used on one day (UTC), or a part of it."""

    owner: str
    day: date
    cpu_s: float = 0.0
    """Processor time; 1 is one core for one second."""
    calls: int = 0
    errors: int = 0
    """Calls among them that failed."""
    bytes_in: int = 0
    """Of requests' bodies; `bytes_out` of answers'."""
    bytes_out: int = 0
    peak_memory_mb: float = 0.0
    """The most that all instances used together."""

    def plus(self, more: UsageDay) -> UsageDay:
        """Both together; of the peaks the higher one."""
        return UsageDay(
            owner=self.owner,
            day=self.day,
            cpu_s=self.cpu_s + more.cpu_s,
            calls=self.calls + more.calls,
            errors=self.errors + more.errors,
            bytes_in=self.bytes_in + more.bytes_in,
            bytes_out=self.bytes_out + more.bytes_out,
            peak_memory_mb=max(self.peak_memory_mb, more.peak_memory_mb),
        )

    def since(self, earlier: UsageDay) -> UsageDay:
        """What has come to it; the peak stays whole, as it cannot be divided."""
        return UsageDay(
            owner=self.owner,
            day=self.day,
            cpu_s=self.cpu_s - earlier.cpu_s,
            calls=self.calls - earlier.calls,
            errors=self.errors - earlier.errors,
            bytes_in=self.bytes_in - earlier.bytes_in,
            bytes_out=self.bytes_out - earlier.bytes_out,
            peak_memory_mb=self.peak_memory_mb,
        )


@frozen(kw_only=True, slots=True)
class LogLine:
    """One line that an instance printed (or that Corral says about it)."""

    instance_id: UUID
    at: datetime
    level: str
    stream: str
    """`stdout`, `stderr`, `system` or `build`."""
    incarnation: int
    message: str
    sanitized: bool = False
    """Characters that Postgres refuses were replaced by visible escapes."""
