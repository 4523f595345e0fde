"""What a store offers, to be depended on alone; what goes in and out of it is in `values` and `model`.

Callers depend on `Store` alone. Every method raises `StorageUnavailable`
within 8 seconds when the database is away, slow or refuses to write; none
hangs. Owners are checked by the caller: the store answers for any instance id.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import date, datetime
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from attrs import define

from controlplane.errors import Conflict, InstanceUnavailable, Internal

if TYPE_CHECKING:
    from controlplane.core.lifecycle import Desired
    from controlplane.model import (
        Evidence,
        Incarnation,
        Instance,
        Listing,
        LogLine,
        Node,
        Resolved,
        Revision,
        Role,
        Sample,
        Secret,
        Spec,
        Token,
        UsageDay,
        User,
    )
    from controlplane.store.filters import (
        AuditFilter,
        EventFilter,
        FleetEventFilter,
        IncarnationFilter,
        LogFilter,
        MetricFilter,
        Page,
    )
    from controlplane.store.values import (
        Batch,
        Change,
        Idempotency,
        Lease,
        NamedEvent,
        Retention,
        RetentionReport,
        StoredAudit,
        StoredEvent,
        StoreStatistics,
        Whereabouts,
    )


@define(kw_only=True)
class IdempotencyKeyUsed(Conflict):
    """Another request with this key was first; `first` says what it made."""

    first: Idempotency


class HolderChanged(InstanceUnavailable):
    """Another node has taken the instance since it was read: nothing was written."""


class DataRefused(Internal):
    """The database is there and refuses a value or a statement: a bug of ours, or a row that cannot be written."""


class Store(Protocol):
    """All that Corral keeps."""

    async def users(self) -> list[User]: ...
    async def add_user(self, user: User) -> None:
        """Raises Conflict: the name is taken."""

    async def update_user(
        self,
        name: str,
        *,
        role: Role | None = None,
        disabled: bool | None = None,
        quotas: Mapping[str, int | None] | None = None,
    ) -> User:
        """None leaves a member as it is; so does a quota that is not named, and one that is None is taken away.

        Raises NotFound: there is no such user.
        """
        ...

    async def remove_user(self, name: str) -> User:
        """Forget a user, with tokens, secrets and history; returns what it was. The audit log stays.

        Raises NotFound: there is no such user. Conflict: there are instances; evidence `instances` says how many.
        """
        ...

    async def tokens(self) -> list[Token]: ...
    async def add_token(self, token: Token, *, quota: int | None = None) -> None:
        """Raises NotFound: there is no such owner. QuotaExceeded: it has `quota` tokens that have not expired."""

    async def delete_token(self, token_id: UUID) -> Token | None: ...
    async def touch_tokens(self, used: Mapping[UUID, datetime]) -> None: ...

    async def secrets(self, owner: str) -> list[Secret]:
        """One owner's, by name; without their values."""
        ...

    async def put_secret(self, owner: str, name: str, value: str, *, quota: int) -> tuple[Secret, bool]:
        """Set a secret; returns its record, and whether it is new.

        Raises NotFound: there is no such owner. QuotaExceeded: the owner has `quota` others.
        """
        ...

    async def delete_secret(self, owner: str, name: str) -> Secret | None:
        """Forget a secret; returns what it was."""
        ...

    async def secret_values(self, owner: str, names: Collection[str]) -> dict[str, str]:
        """The values of those of these secrets that exist. Raises SecretUnreadable."""
        ...

    async def check_keys(self) -> None:
        """Raises SecretUnreadable: something was encrypted with a key that is not at hand."""

    async def seal_again(self) -> int:
        """Encrypt everything with the current key that another one closed; returns how much that was.

        When it returns, nothing is left of any other key, nor will be. Broken off, it can be begun again.
        Raises StorageUnavailable, SecretUnreadable.
        """
        ...

    async def instances(self) -> list[Instance]: ...
    async def instance_of_deleted(self, instance_id: UUID) -> tuple[str, str] | None: ...
    async def whereabouts(self, instance_id: UUID | None, owner: str, name: str) -> Whereabouts | None:
        """Who holds an instance: the one with this id, or without one its owner's of this name; None: there is none."""

    async def add_instance(
        self, instance: Instance, *, quota: int, memory_mb: int = 0, idempotency: Idempotency | None = None
    ) -> None:
        """Raises Conflict, IdempotencyKeyUsed, QuotaExceeded, NotFound (the owner).

        `memory_mb`, here and below, is the owner's quota for the memory limits of all instances that are to run, added
        up; 0: none. QuotaExceeded is raised by whatever would need more than it, and more than before.
        """

    async def idempotent(self, owner: str, key: str) -> Idempotency | None: ...
    async def update_instance(self, instance: Instance, spec: Spec | None = None, *, memory_mb: int = 0) -> Instance:
        """Write the labels and, if given, `spec` as the next revision, in force at once (a patch).

        With `instance.ever_ran` it is written that the revision ran that is replaced, `instance.spec`.
        Returns the instance with the revision in the number it got. Raises NotFound: it was deleted.
        """
        ...

    async def add_revision(self, instance: Instance, *, memory_mb: int = 0) -> int:
        """Write `instance.spec` as its next revision, without switching to it; returns the number it got.

        Of those that are kept, the oldest is forgotten. Raises NotFound: it was deleted.
        """
        ...

    async def switch_revision(
        self,
        instance: Instance,
        *,
        ran_at: datetime | None = None,
        replaced_ran: int | None = None,
        memory_mb: int = 0,
    ) -> None:
        """Make `instance.spec.revision`, which was added before, the one in force; all of this or nothing.

        Labels, the desired state and, unless it is None, `spec.resolved` are written with it. With `ran_at`: its
        handshake is done already. Else `ever_ran` begins anew, unless it ran before. `replaced_ran` is the number
        of the revision that it replaces if that ran, which the journal may not have written yet.
        Raises NotFound: the instance was deleted, or the revision is not kept.
        """

    async def fail_revision(self, instance_id: UUID, revision: int, failure: Evidence) -> None:
        """Remember why a revision was not switched over to; of one that is gone, or in force after all, nothing."""

    async def set_resolved(self, instance_id: UUID, revision: int, resolved: Resolved) -> None:
        """Remember what the revision's first build found, and its language if none was named; as above."""

    async def revisions(self, instance_id: UUID) -> list[Revision]:
        """Those that are kept, newest first; `spec.source` is left out, as it may be large. None of a deleted one."""
        ...

    async def revision(self, instance_id: UUID, number: int) -> Revision:
        """One with all that it has. Raises NotFound: it is not kept."""
        ...

    async def sources_in_use(self) -> set[tuple[str, str]]:
        """Owner and SHA-256 (hex) of every upload that a kept revision comes from (`Spec.origin`)."""
        ...

    async def set_desired(
        self, instance_id: UUID, desired: Desired, *, memory_mb: int = 0, epoch: int | None = None
    ) -> None:
        """Raises NotFound: it was deleted. HolderChanged, as every method that is given an instance: `epoch` is past."""

    async def delete_instance(self, instance_id: UUID, *, epoch: int | None = None) -> None: ...

    async def nodes(self, lease_s: float) -> list[Node]:
        """All control planes that are remembered, live or not; `lease_s` is how long a lease stands."""
        ...

    async def take_lease(self, node: Node, lease_s: float, *, is_alone: bool = False) -> Lease:
        """Begin a new epoch of this node. What it held is still its own; if it is alone, so is everything else."""
        ...

    async def renew_lease(self, node_id: UUID, epoch: int, url: str, lease_s: float) -> datetime | None:
        """Returns the database's time; None: the lease was lost, to others or to a later life of the node."""
        ...

    async def is_any_free(self, dead: Collection[UUID]) -> bool:
        """Whether an instance is held by nobody, or by one of these."""
        ...

    async def claim(
        self, node_id: UUID, epoch: int, *, dead: Collection[UUID], archives: Collection[str], is_left: bool = False
    ) -> tuple[UUID, ...]:
        """Take a fair share of the instances that nobody holds, or one of `dead` whose lease has ended.

        Nothing unless the node's own lease stands. Of those that come from an upload, only what is in
        `archives` (`<owner>/<sha256>`). With `is_left` the share is more than fair: the others have had time for theirs.
        """
        ...

    async def release(self, node_id: UUID, epoch: int) -> None:
        """End the lease, and let go of everything that the node holds."""

    async def forget_nodes(self, older_than_s: float) -> None:
        """Of those that hold nothing and whose lease ended so long ago."""

    async def listings(self, max_bytes: int) -> list[Listing]: ...
    async def listings_of(self, instance_id: UUID) -> list[Listing]: ...

    async def logs(self, instance_id: UUID, which: LogFilter) -> Page[LogLine]: ...
    async def metrics(self, instance_id: UUID, which: MetricFilter) -> Page[Sample]: ...
    async def events(self, instance_id: UUID, which: EventFilter) -> Page[StoredEvent]: ...
    async def fleet_events(self, which: FleetEventFilter) -> Page[NamedEvent]: ...
    async def audit(self, which: AuditFilter) -> Page[StoredAudit]:
        """A page of the audit log, newest first."""
        ...

    async def post_mortems(self, instance_id: UUID, limit: int = 10) -> list[Evidence]: ...
    async def incarnations(self, instance_id: UUID, which: IncarnationFilter) -> Page[Incarnation]: ...

    async def usage_days(self, since: date, owner: str | None = None) -> list[UsageDay]:
        """What was used on each day from `since` on, newest first; None: of everybody."""
        ...

    async def write(self, batch: Batch) -> None:
        """Raises DataRefused: a row of the batch cannot be written; none was."""

    async def retain(self, retention: Retention) -> RetentionReport: ...
    async def identity(self) -> str:
        """The same for all who use this very database, and for nobody else."""
        ...

    async def ping(self) -> None: ...
    def statistics(self) -> StoreStatistics: ...
    def open_listen(
        self, on_change: Callable[[Change], None], on_lost: Callable[[str], None]
    ) -> AbstractAsyncContextManager[None]: ...


def has_instances(name: str, count: int) -> Conflict:
    """The error that names how many instances are in the way of a user's removal."""
    return Conflict(
        f"{name} has {count} {'instance' if count == 1 else 'instances'}",
        hint=f"Remove them first: corral ls --owner {name}, then corral rm.",
        evidence={"instances": count},
    )
