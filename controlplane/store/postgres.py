"""The store on Postgres, for Trio: the only module of the store that knows trio-asyncio.

Each method crosses to asyncio once, for one unit of work on one connection, through the
gate. Times add up to less than the 8 s that callers are promised: 1.5 s for a turn, 2 s to
connect, 4 s of work.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import trio
import trio_asyncio
from attrs import define, field

from controlplane.config import ConfigError
from controlplane.core.lifecycle import Desired
from controlplane.errors import Conflict, CorralError, NotFound, StorageUnavailable
from controlplane.store import (
    queries_catalogues,
    queries_history,
    queries_instances,
    queries_nodes,
    queries_quotas,
    queries_revisions,
    queries_secrets,
    queries_tenants,
    queries_write,
)
from controlplane.store import (
    retention as forgetting,
)
from controlplane.store.base import DataRefused
from controlplane.store.failures import Kind, read
from controlplane.store.gate import PROBE_MAX_S, PROBE_MIN_S, Cross, Gate, ping
from controlplane.store.listening import Ear
from controlplane.store.mailbox import Mailbox
from controlplane.store.migrate import SchemaRefused, bring_up
from controlplane.store.pool import Pool, Work, open_pool
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

if TYPE_CHECKING:
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
    from controlplane.secretbox import SecretBox
    from controlplane.store.filters import (
        AuditFilter,
        EventFilter,
        FleetEventFilter,
        IncarnationFilter,
        LogFilter,
        MetricFilter,
        Page,
    )
    from controlplane.store.partitions import Partition

log = logging.getLogger(__name__)

WAIT_S = 60.0
"""How long a start waits for a database that is not there yet."""
MIGRATE_S = 300.0
"""A migration that rewrites a large table may take minutes; then the start is given up."""
SEAL_PAUSE_S = 0.05
"""Between two looks for what somebody else has locked while everything is encrypted anew."""
CLOSE_S = 2.0
"""Closing connections in good order; then they are cut."""

T = TypeVar("T")


@define(eq=False)
class PostgresStore:
    """See `store.base.Store`; made by `open_store`."""

    _gate: Gate
    _pool: Pool
    _cross: Cross
    _url: str = field(repr=False)
    _box: SecretBox
    _partitions: set[Partition] = field(factory=set, init=False)
    _ear: Ear | None = field(default=None, init=False)
    _sealings: set[trio.Event] = field(factory=set, init=False)
    """Writes under way that encrypt something."""

    # Users and tokens

    async def users(self) -> list[User]:
        return await self._call(queries_tenants.users)

    async def add_user(self, user: User) -> None:
        await self._call(queries_tenants.add_user, user, writes=True)

    async def update_user(
        self,
        name: str,
        *,
        role: Role | None = None,
        disabled: bool | None = None,
        quotas: Mapping[str, int | None] | None = None,
    ) -> User:
        return await self._call(queries_tenants.update_user, name, role, disabled, quotas or {}, writes=True)

    async def remove_user(self, name: str) -> User:
        return await self._call(queries_tenants.remove_user, name, writes=True)

    async def tokens(self) -> list[Token]:
        return await self._call(queries_tenants.tokens)

    async def add_token(self, token: Token, *, quota: int | None = None) -> None:
        await self._call(queries_tenants.add_token, token, quota, writes=True)

    async def delete_token(self, token_id: UUID) -> Token | None:
        return await self._call(queries_tenants.delete_token, token_id, writes=True)

    async def touch_tokens(self, used: Mapping[UUID, datetime]) -> None:
        if used:
            await self._call(queries_tenants.touch_tokens, dict(used), writes=True)

    # Secrets

    async def secrets(self, owner: str) -> list[Secret]:
        return await self._call(queries_secrets.secrets, owner)

    async def put_secret(self, owner: str, name: str, value: str, *, quota: int) -> tuple[Secret, bool]:
        return await self._seal(queries_secrets.put_secret, self._box, (owner, name), value, quota)

    async def delete_secret(self, owner: str, name: str) -> Secret | None:
        return await self._call(queries_secrets.delete_secret, owner, name, writes=True)

    async def secret_values(self, owner: str, names: Collection[str]) -> dict[str, str]:
        return await self._call(queries_secrets.secret_values, self._box, owner, sorted(names)) if names else {}

    async def check_keys(self) -> None:
        await self._call(queries_secrets.check_keys, self._box)

    async def seal_again(self) -> int:
        for sealing in list(self._sealings):  # what took the key before it was replaced; each is bounded
            await sealing.wait()
        count = 0
        while True:
            if moved := await self._call(queries_secrets.seal_batch, self._box, writes=True):
                count += moved
            elif not await self._call(queries_secrets.others_left, self._box, writes=True):
                return count
            else:  # somebody else has them locked
                await trio.sleep(SEAL_PAUSE_S)

    async def _seal(self, work: Work[T], *args: Any) -> T:
        """A write that encrypts: `seal_again` waits for it."""
        sealing = trio.Event()
        self._sealings.add(sealing)
        try:
            return await self._call(work, *args, writes=True)
        finally:
            self._sealings.discard(sealing)
            sealing.set()

    # Instances

    async def instances(self) -> list[Instance]:
        """All that are not deleted, oldest first, with their environments in the clear.

        Raises:
            SecretUnreadable: an environment was encrypted with a key that is not at hand.
        """
        return await self._call(queries_instances.instances, self._box)

    async def instance_of_deleted(self, instance_id: UUID) -> tuple[str, str] | None:
        return await self._call(queries_instances.instance_of_deleted, instance_id)

    async def whereabouts(self, instance_id: UUID | None, owner: str, name: str) -> Whereabouts | None:
        return await self._call(queries_instances.whereabouts, instance_id, owner, name)

    async def add_instance(
        self, instance: Instance, *, quota: int, memory_mb: int = 0, idempotency: Idempotency | None = None
    ) -> None:
        room = queries_quotas.Room(quota, memory_mb)
        await self._seal(queries_instances.add_instance, self._box, instance, room, idempotency)

    async def idempotent(self, owner: str, key: str) -> Idempotency | None:
        return await self._call(queries_tenants.idempotent, owner, key)

    async def set_desired(
        self, instance_id: UUID, desired: Desired, *, memory_mb: int = 0, epoch: int | None = None
    ) -> None:
        if desired is Desired.DELETED:
            await self.delete_instance(instance_id, epoch=epoch)
        else:
            await self._call(queries_instances.set_desired, instance_id, desired, memory_mb, epoch, writes=True)

    async def delete_instance(self, instance_id: UUID, *, epoch: int | None = None) -> None:
        await self._call(queries_instances.delete_instance, instance_id, epoch, writes=True)

    # Nodes, and who holds what

    async def nodes(self, lease_s: float) -> list[Node]:
        return await self._call(queries_nodes.nodes, lease_s)

    async def take_lease(self, node: Node, lease_s: float, *, is_alone: bool = False) -> Lease:
        return await self._call(queries_nodes.take_lease, node, lease_s, is_alone, writes=True)

    async def renew_lease(self, node_id: UUID, epoch: int, url: str, lease_s: float) -> datetime | None:
        return await self._call(queries_nodes.renew_lease, node_id, epoch, url, lease_s, writes=True)

    async def is_any_free(self, dead: Collection[UUID]) -> bool:
        return await self._call(queries_nodes.is_any_free, dead)

    async def claim(
        self, node_id: UUID, epoch: int, *, dead: Collection[UUID], archives: Collection[str], is_left: bool = False
    ) -> tuple[UUID, ...]:
        return await self._call(queries_nodes.claim, (node_id, epoch), dead, archives, is_left, writes=True)

    async def release(self, node_id: UUID, epoch: int) -> None:
        await self._call(queries_nodes.release, node_id, epoch, writes=True)

    async def forget_nodes(self, older_than_s: float) -> None:
        await self._call(queries_nodes.forget_nodes, older_than_s, writes=True)

    # Revisions of what they run

    async def update_instance(self, instance: Instance, spec: Spec | None = None, *, memory_mb: int = 0) -> Instance:
        return await self._seal(queries_revisions.update_instance, self._box, instance, spec, memory_mb)

    async def add_revision(self, instance: Instance, *, memory_mb: int = 0) -> int:
        return await self._seal(queries_revisions.add_revision, self._box, instance, memory_mb)

    async def switch_revision(
        self,
        instance: Instance,
        *,
        ran_at: datetime | None = None,
        replaced_ran: int | None = None,
        memory_mb: int = 0,
    ) -> None:
        await self._call(queries_revisions.switch_revision, instance, ran_at, replaced_ran, memory_mb, writes=True)

    async def fail_revision(self, instance_id: UUID, revision: int, failure: Evidence) -> None:
        await self._call(queries_revisions.fail_revision, instance_id, revision, failure, writes=True)

    async def set_resolved(self, instance_id: UUID, revision: int, resolved: Resolved) -> None:
        await self._call(queries_revisions.set_resolved, instance_id, revision, resolved, writes=True)

    async def revisions(self, instance_id: UUID) -> list[Revision]:
        return await self._call(queries_revisions.revisions, self._box, instance_id)

    async def revision(self, instance_id: UUID, number: int) -> Revision:
        return await self._call(queries_revisions.revision, self._box, instance_id, number)

    async def sources_in_use(self) -> set[tuple[str, str]]:
        return await self._call(queries_revisions.sources_in_use)

    # What they offer

    async def listings(self, max_bytes: int) -> list[Listing]:
        """Of all instances that are not deleted, the smaller ones first, up to `max_bytes` together."""
        return await self._call(queries_catalogues.listings, max_bytes)

    async def listings_of(self, instance_id: UUID) -> list[Listing]:
        return await self._call(queries_catalogues.listings_of, instance_id)

    # History

    async def logs(self, instance_id: UUID, which: LogFilter) -> Page[LogLine]:
        return await self._call(queries_history.logs, instance_id, which)

    async def metrics(self, instance_id: UUID, which: MetricFilter) -> Page[Sample]:
        return await self._call(queries_history.metrics, instance_id, which)

    async def events(self, instance_id: UUID, which: EventFilter) -> Page[StoredEvent]:
        return await self._call(queries_history.events, instance_id, which)

    async def fleet_events(self, which: FleetEventFilter) -> Page[NamedEvent]:
        return await self._call(queries_history.fleet_events, which)

    async def audit(self, which: AuditFilter) -> Page[StoredAudit]:
        return await self._call(queries_history.audit, which)

    async def post_mortems(self, instance_id: UUID, limit: int = 10) -> list[Evidence]:
        return await self._call(queries_history.post_mortems, instance_id, limit)

    async def incarnations(self, instance_id: UUID, which: IncarnationFilter) -> Page[Incarnation]:
        return await self._call(queries_history.incarnations, instance_id, which)

    async def usage_days(self, since: date, owner: str | None = None) -> list[UsageDay]:
        return await self._call(queries_quotas.usage_days, since, owner)

    async def write(self, batch: Batch) -> None:
        if not len(batch):
            return
        try:
            await self._call(queries_write.write, batch, self._partitions, writes=True)
        except (Conflict, NotFound) as error:
            raise DataRefused(f"a row contradicts another table: {error}") from error

    async def retain(self, retention: Retention) -> RetentionReport:
        """One round of forgetting, on a connection of its own; at most a minute.

        Raises:
            StorageUnavailable: Postgres is away; what was done is done.
        """
        self._gate.refuse_while_away()
        with self._gate.judged(writes=True):
            report: RetentionReport = await self._cross(
                self._pool.run_apart, forgetting.retain, retention, seconds=forgetting.RETAIN_S
            )
        self._partitions.clear()
        return report

    # The connection itself

    async def identity(self) -> str:
        return await self._call(queries_nodes.identity)

    async def ping(self) -> None:
        """Ask the database for a sign of life."""
        await self._call(ping)

    def statistics(self) -> StoreStatistics:
        circuit = self._gate.circuit
        return StoreStatistics(
            available=not circuit.is_open,
            writable=not circuit.is_open and circuit.refusing is None,
            problem=circuit.problem or circuit.refusing,
            away_since=circuit.away_since,
            calls=self._gate.calls,
            failures=self._gate.failures,
            busy=self._gate.busy,
            listening=self._ear is not None and self._ear.listening,
        )

    @asynccontextmanager
    async def open_listen(
        self, on_change: Callable[[Change], None], on_lost: Callable[[str], None]
    ) -> AsyncIterator[None]:
        """Hear of changed users, tokens and instances while the context is open.

        Args:
            on_change: Called with each change, and with EVERYTHING whenever listening (re)starts: what
                happened before was not heard, so all of it is to be read again.
            on_lost: Called once per loss with the reason; until the next EVERYTHING, changes go unheard.
                Both are called from a Trio task and must not wait.
        """
        mailbox = Mailbox(on_change, on_lost)
        self._ear = Ear(self._url, mailbox.changed, mailbox.lost)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(mailbox.deliver)
                nursery.start_soon(self._cross, self._ear.listen)
                yield
                nursery.cancel_scope.cancel()
        finally:
            self._ear = None

    async def _call(self, work: Work[T], *args: Any, writes: bool = False) -> T:
        return await self._gate.call(work, *args, writes=writes)

    async def wait_ready(self, wait_s: float) -> None:
        """Wait for the database and bring its schema up to date.

        Raises:
            ConfigError: the URL cannot be used.
            StorageUnavailable: the database did not come within `wait_s`.
            SchemaRefused: it cannot be used as it is.
        """
        deadline = trio.current_time() + wait_s
        delay, told = PROBE_MIN_S, ""
        while True:
            try:
                await self._cross(self._pool.run_apart, bring_up, seconds=MIGRATE_S)
            except (ConfigError, CorralError, SchemaRefused):
                raise
            except Exception as error:
                failure = read(error)
                if failure.kind in (Kind.DATA, Kind.CONFLICT, Kind.DAMAGED):
                    raise SchemaRefused(f"the schema cannot be brought up to date: {failure.reason}") from error
            else:
                return
            if told != failure.reason:
                log.warning("database: waiting for it: %s", failure.reason)
                told = failure.reason
            if trio.current_time() + delay > deadline:
                raise StorageUnavailable(f"no database within {wait_s:g} s: {failure.reason}")
            await trio.sleep(delay)
            delay = min(PROBE_MAX_S, delay * 2)

    async def close(self) -> None:
        """Close the connections: in good order where Postgres answers, else at once."""
        with trio.move_on_after(CLOSE_S, shield=True):
            await self._cross(self._pool.close)


@asynccontextmanager
async def open_store(url: str, secret_box: SecretBox, *, wait_s: float = WAIT_S) -> AsyncIterator[PostgresStore]:
    """Open the store: wait for the database, bring its schema up to date, keep watch over it.

    Uses the asyncio loop that is open around it, or opens one.

    Args:
        url: As Postgres writes it: postgresql://user:password@host/database.
        wait_s: Seconds to wait for a database that is not there yet.

    Raises:
        ConfigError: the URL cannot be used.
        StorageUnavailable: no database within `wait_s`.
        SchemaRefused: the database is of a newer version, or not Corral's.
    """
    with unwrapped():
        async with _asyncio_loop() as loop:
            pool = await trio_asyncio.aio_as_trio(open_pool, loop=loop)(url)
            cross = _crossing(loop)
            gate = Gate(pool, cross)
            store = PostgresStore(gate, pool, cross, url, secret_box)
            try:
                await store.wait_ready(wait_s)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(gate.watch)
                    yield store
                    nursery.cancel_scope.cancel()
            finally:
                await store.close()
                pool.terminate()


def _crossing(loop: trio_asyncio.BaseTrioEventLoop) -> Cross:
    async def cross(work: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        result: T = await trio_asyncio.aio_as_trio(work, loop=loop)(*args, **kwargs)
        return result

    return cross


@asynccontextmanager
async def _asyncio_loop() -> AsyncIterator[trio_asyncio.BaseTrioEventLoop]:
    """The loop that is open around us, or one of our own.

    trio-asyncio's default is to raise what nobody awaited (a lost connection's clean-up) in the
    loop's nursery, which would end the control plane: it is logged instead.
    """
    loop = trio_asyncio.current_loop.get()
    if loop is not None and not loop.is_closed():
        loop.set_exception_handler(_log_stray)
        yield loop
        return
    async with trio_asyncio.open_loop() as loop:
        loop.set_exception_handler(_log_stray)
        yield loop


def _log_stray(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    log.debug("database: %s (%r)", context.get("message"), context.get("exception"))


@contextmanager
def unwrapped() -> Iterator[None]:
    """Let a lone exception out of the groups that nurseries wrap it in, so that callers can name it."""
    try:
        yield
    except BaseExceptionGroup as group:
        lone: BaseException = group
        while isinstance(lone, BaseExceptionGroup) and len(lone.exceptions) == 1:
            lone = lone.exceptions[0]
        if isinstance(lone, BaseExceptionGroup):
            raise
        raise lone from lone.__cause__
