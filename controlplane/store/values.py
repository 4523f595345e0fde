"""What goes in and out of a store besides the nouns of `model`: rows on their way, answers, statistics, retention. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from attrs import frozen

if TYPE_CHECKING:
    from controlplane.config import Config
    from controlplane.core.lifecycle import State
    from controlplane.model import (
        Evidence,
        Incarnation,
        Instance,
        Listing,
        LogLine,
        Sample,
        UsageDay,
    )

USAGE_DAYS_KEPT = 400
"""A year and a bit, so that a month can be held against the same one of the year before."""


IDEMPOTENCY_VALID_S = 24 * 3600.0
"""How long a repeated Idempotency-Key answers the first result again."""


@frozen(kw_only=True)
class Idempotency:
    """A deploy that may be asked for again: `body_digest` is SHA-256 of the request's body."""

    owner: str
    key: str
    body_digest: bytes
    instance_id: UUID
    created_at: datetime


@frozen(kw_only=True)
class Lease:
    """A node's lease as it was given: its epoch, and when that was, by the database's clock."""

    epoch: int
    at: datetime


@frozen(kw_only=True)
class Whereabouts:
    """Who holds an instance; `node_id` None: nobody."""

    id: UUID
    owner: str
    name: str
    node_id: UUID | None


@frozen(kw_only=True)
class JournalStatistics:
    """What the journal holds and has done; rows since it was made."""

    rows: int
    """Waiting now, those under way included."""
    size_bytes: int
    written: int
    shed: Mapping[str, int]
    """Given up because too many waited, by kind: samples, logs, events, incarnations, audit."""
    refused: int
    """Given up because Postgres does not take them."""
    cut: int
    """Lines longer than is kept."""
    failures: int
    """Batches that could not be written and are tried again."""
    oldest_s: float
    """How long the batch under way has been waiting, in seconds; 0 when the last one was written."""

    @property
    def dropped(self) -> Mapping[str, int]:
        """All rows that were not kept, by kind."""
        return {**self.shed, "refused": self.refused}


class EventLike(Protocol):
    """What the journal needs of the hub's events."""

    @property
    def at(self) -> datetime: ...
    @property
    def type(self) -> str: ...
    @property
    def instance_id(self) -> UUID | None: ...
    @property
    def owner(self) -> str | None: ...
    @property
    def data(self) -> Mapping[str, Any]: ...


@frozen(kw_only=True)
class StoredEvent:
    """An event as it was kept; `id` is unique and grows."""

    id: int
    at: datetime
    type: str
    instance_id: UUID | None
    owner: str | None
    data: Mapping[str, Any]


@frozen
class NamedEvent:
    """An event with the name of its instance; None: it is about none, or about one that is forgotten."""

    event: StoredEvent
    name: str | None


@frozen(kw_only=True, slots=True)
class EventRow:
    """An event on its way into the database: `data` is JSON text that Postgres takes."""

    at: datetime
    type: str
    instance_id: UUID | None
    owner: str | None
    data: str


@frozen(kw_only=True, slots=True)
class AuditRow:
    """One thing that somebody did, or tried to do; see the columns of mcp_audit.

    `count` is more than one where refused requests that were alike, and too many, share a row.
    """

    at: datetime
    actor: str | None
    credential: str | None
    address: str
    action: str
    target: str
    owner: str | None
    status: int
    request_id: str
    count: int = 1


@frozen
class StoredAudit:
    """A row of the audit log as it was kept, with the name of the instance that it is about; None: about none, or forgotten."""

    row: AuditRow
    name: str | None


@frozen(kw_only=True, slots=True)
class Observation:
    """What was last seen of an instance: the part of its row that the journal writes."""

    instance_id: UUID
    at: datetime
    revision: int
    """`ever_ran` is about this revision; it is not written over a later one's."""
    state: State
    phase: str
    restarts: int
    incarnation: int
    ever_ran: bool
    uid: int | None
    last_error: Evidence | None
    epoch: int = 0
    """The holder's; it is not written once another node holds the instance."""


KINDS = ("logs", "samples", "events", "audit", "observations", "incarnations", "listings", "usage")
"""The rows of a batch."""


@frozen(kw_only=True)
class Batch:
    """Rows to be written in one transaction."""

    logs: tuple[LogLine, ...] = ()
    samples: tuple[tuple[UUID, Sample], ...] = ()
    events: tuple[EventRow, ...] = ()
    audit: tuple[AuditRow, ...] = ()
    observations: tuple[Observation, ...] = ()
    incarnations: tuple[Incarnation, ...] = ()
    listings: tuple[Listing, ...] = ()
    usage: tuple[UsageDay, ...] = ()
    """To be added to what there is."""

    def __len__(self) -> int:
        return sum(len(getattr(self, kind)) for kind in KINDS)

    def halves(self) -> tuple[Batch, Batch]:
        """Two batches with half of the rows each, in the same order."""
        room = len(self) // 2
        first: dict[str, Any] = {}
        second: dict[str, Any] = {}
        for kind in KINDS:
            rows = getattr(self, kind)
            first[kind], second[kind] = rows[:room], rows[room:]
            room -= len(first[kind])
        return Batch(**first), Batch(**second)


class Subject(Enum):
    """What a change is about."""

    USERS = "users"
    TOKENS = "tokens"
    INSTANCES = "instances"
    EVERYTHING = "everything"
    """Changes may have been missed: read all of it again."""


@frozen
class Change:
    """Something changed in the database; `key` is the user's name or the row's id."""

    subject: Subject
    key: str = ""


@frozen(kw_only=True)
class Retention:
    """How much history is kept: days, and bytes for all logs, and for the whole audit log."""

    log_days: int = 7
    log_max_bytes: int = 2**30
    metric_days: int = 2
    event_days: int = 30
    audit_days: int = 90
    audit_max_bytes: int = 256 * 2**20

    @classmethod
    def from_config(cls, config: Config) -> Retention:
        return cls(
            log_days=config.log_retention_days,
            log_max_bytes=config.log_max_mb * 2**20,
            metric_days=config.metric_retention_days,
            event_days=config.event_retention_days,
            audit_days=config.audit_retention_days,
            audit_max_bytes=config.audit_max_mb * 2**20,
        )


@frozen(kw_only=True)
class RetentionReport:
    """What one round of forgetting did."""

    created: tuple[str, ...] = ()
    """Partitions made for the days ahead."""
    dropped: tuple[str, ...] = ()
    """Partitions dropped, for age or size."""
    logs_deleted: int = 0
    """Rows deleted from today's logs because they alone exceed the cap."""
    audit_deleted: int = 0
    """The same of today's audit log."""
    instances_purged: int = 0
    """Deleted instances whose history is gone."""


@frozen(kw_only=True)
class StoreStatistics:
    """How the database does; times are monotonic seconds."""

    available: bool
    """Whether calls are sent to Postgres at all (False: they fail at once, and a probe runs)."""
    writable: bool
    """False: it answers, but refuses to write (read-only, disk full)."""
    problem: str | None
    """Why it is not available or not writable, for an operator."""
    away_since: float | None
    calls: int
    failures: int
    """Calls that ended in StorageUnavailable, those refused at once included."""
    busy: int
    """Calls under way now."""
    listening: bool


def observation(instance: Instance, *, phase: str) -> Observation:
    """The journal's part of an instance's row."""
    return Observation(
        instance_id=instance.id,
        at=instance.updated_at,
        revision=instance.spec.revision,
        state=instance.state,
        phase=phase,
        restarts=instance.restarts,
        incarnation=instance.incarnation,
        ever_ran=instance.ever_ran,
        uid=instance.uid,
        last_error=instance.last_error,
        epoch=instance.epoch,
    )
