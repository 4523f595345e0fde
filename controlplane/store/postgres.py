"""The store on Postgres, for Trio: the only module of the store that knows trio-asyncio.

Each method crosses to asyncio once, for one unit of work on one connection. What goes
wrong is judged here, once: StorageUnavailable where waiting may help, Conflict,
NotFound and QuotaExceeded where the caller asked for what cannot be, DataRefused
where the database refuses a value. Times add up to less than the 8 s that callers are
promised: 1.5 s for a turn, 2 s to connect, 4 s of work.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import trio
import trio_asyncio
from attrs import define, field

from controlplane.config import ConfigError
from controlplane.core.lifecycle import Desired
from controlplane.errors import Conflict, CorralError, NotFound, StorageUnavailable
from controlplane.secretbox import SecretBox, SecretUnreadable
from controlplane.store import (
    queries_history,
    queries_instances,
    queries_tenants,
    queries_write,
)
from controlplane.store import (
    retention as forgetting,
)
from controlplane.store.base import (
    Batch,
    Change,
    DataRefused,
    EventFilter,
    Idempotency,
    LogFilter,
    MetricFilter,
    Page,
    Retention,
    RetentionReport,
    StoredEvent,
    StoreStatistics,
)
from controlplane.store.circuit import RETRY_AFTER_S, Circuit
from controlplane.store.failures import Failure, Kind, read
from controlplane.store.listening import Ear
from controlplane.store.mailbox import Mailbox
from controlplane.store.migrate import SchemaRefused, bring_up
from controlplane.store.pool import SLOTS, Pool, Work, open_pool

if TYPE_CHECKING:
    from controlplane.model import Evidence, Instance, LogLine, Role, Sample, Token, User
    from controlplane.store.partitions import Partition

log = logging.getLogger(__name__)

WAIT_S = 60.0
"""How long a start waits for a database that is not there yet."""
MIGRATE_S = 300.0
"""A migration that rewrites a large table may take minutes; then the start is given up."""
SLOT_WAIT_S = 1.5
"""How long a call waits for its turn while all connections are in use."""
PROBE_S = 1.5
"""A probe's time: a healthy server answers in a millisecond."""
PROBE_MIN_S, PROBE_MAX_S = 0.1, 1.0
"""Between probes while Postgres is away, doubling."""
CLOSE_S = 2.0
"""Closing connections in good order; then they are cut."""

T = TypeVar("T")


@define(eq=False)
class PostgresStore:
    """See `store.base.Store`; made by `open_store`."""

    _loop: trio_asyncio.BaseTrioEventLoop
    _pool: Pool
    _url: str = field(repr=False)
    _box: SecretBox
    _circuit: Circuit = field(factory=Circuit, init=False)
    _slots: trio.Semaphore = field(factory=lambda: trio.Semaphore(SLOTS), init=False)
    _doubt: trio.Event = field(factory=trio.Event, init=False)
    _partitions: set[Partition] = field(factory=set, init=False)
    _calls: int = field(default=0, init=False)
    _failures: int = field(default=0, init=False)
    _ear: Ear | None = field(default=None, init=False)

    # Users and tokens

    async def users(self) -> list[User]:
        return await self._call(queries_tenants.users)

    async def add_user(self, user: User) -> None:
        await self._call(queries_tenants.add_user, user, writes=True)

    async def update_user(self, name: str, *, role: Role | None = None, disabled: bool | None = None) -> User:
        return await self._call(queries_tenants.update_user, name, role, disabled, writes=True)

    async def tokens(self) -> list[Token]:
        return await self._call(queries_tenants.tokens)

    async def add_token(self, token: Token) -> None:
        await self._call(queries_tenants.add_token, token, writes=True)

    async def delete_token(self, token_id: UUID) -> Token | None:
        return await self._call(queries_tenants.delete_token, token_id, writes=True)

    async def touch_tokens(self, used: Mapping[UUID, datetime]) -> None:
        if used:
            await self._call(queries_tenants.touch_tokens, dict(used), writes=True)

    # Instances

    async def instances(self) -> list[Instance]:
        """All that are not deleted, oldest first, with their environments in the clear.

        Raises:
            SecretUnreadable: an environment was encrypted with a key that is not at hand.
        """
        return await self._call(queries_instances.instances, self._box)

    async def instance_of_deleted(self, instance_id: UUID) -> tuple[str, str] | None:
        return await self._call(queries_instances.instance_of_deleted, instance_id)

    async def add_instance(self, instance: Instance, *, quota: int, idempotency: Idempotency | None = None) -> None:
        await self._call(queries_instances.add_instance, self._box, instance, quota, idempotency, writes=True)

    async def idempotent(self, owner: str, key: str) -> Idempotency | None:
        return await self._call(queries_tenants.idempotent, owner, key)

    async def update_instance(self, instance: Instance) -> None:
        await self._call(queries_instances.update_instance, self._box, instance, writes=True)

    async def set_desired(self, instance_id: UUID, desired: Desired) -> None:
        if desired is Desired.DELETED:
            await self.delete_instance(instance_id)
        else:
            await self._call(queries_instances.set_desired, instance_id, desired, writes=True)

    async def delete_instance(self, instance_id: UUID) -> None:
        await self._call(queries_instances.delete_instance, instance_id, writes=True)

    # History

    async def logs(self, instance_id: UUID, which: LogFilter) -> Page[LogLine]:
        return await self._call(queries_history.logs, instance_id, which)

    async def metrics(self, instance_id: UUID, which: MetricFilter) -> Page[Sample]:
        return await self._call(queries_history.metrics, instance_id, which)

    async def events(self, instance_id: UUID, which: EventFilter) -> Page[StoredEvent]:
        return await self._call(queries_history.events, instance_id, which)

    async def post_mortems(self, instance_id: UUID, limit: int = 10) -> list[Evidence]:
        return await self._call(queries_history.post_mortems, instance_id, limit)

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
        self._refuse_while_away()
        with self._judged(writes=True):
            report: RetentionReport = await self._cross(
                self._pool.run_apart, forgetting.retain, retention, seconds=forgetting.RETAIN_S
            )
        self._partitions.clear()
        return report

    # The connection itself

    async def ping(self) -> None:
        """Ask the database for a sign of life."""
        await self._call(_ping)

    def statistics(self) -> StoreStatistics:
        circuit = self._circuit
        return StoreStatistics(
            available=not circuit.is_open,
            writable=not circuit.is_open and circuit.refusing is None,
            problem=circuit.problem or circuit.refusing,
            away_since=circuit.away_since,
            calls=self._calls,
            failures=self._failures,
            busy=SLOTS - self._slots.value,
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

    # Crossing to asyncio, and judging what comes back

    async def _call(self, work: Work[T], *args: Any, writes: bool = False) -> T:
        self._calls += 1
        await self._wait_turn()
        try:
            self._refuse_while_away()  # that may have become known while this call waited
            with self._judged(writes=writes):
                return await self._cross(self._pool.run, work, *args)
        finally:
            self._slots.release()

    async def _wait_turn(self) -> None:
        self._refuse_while_away()
        with trio.move_on_after(SLOT_WAIT_S) as scope:
            await self._slots.acquire()
        if scope.cancelled_caught:
            self._failures += 1
            raise _unavailable("the database is busy")

    def _refuse_while_away(self) -> None:
        if self._circuit.is_open:
            self._failures += 1
            raise _unavailable("the database is away")

    async def _cross(self, work: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """Run asyncio's `work` and wait for it, from Trio."""
        result: T = await trio_asyncio.aio_as_trio(work, loop=self._loop)(*args, **kwargs)
        return result

    @contextmanager
    def _judged(self, *, writes: bool) -> Iterator[None]:
        try:
            yield
        except (CorralError, SecretUnreadable, SchemaRefused):
            raise  # said inside the unit of work, in our own words
        except asyncio.CancelledError:  # not ours: the asyncio loop is closing
            raise _unavailable("the store is closing") from None
        except Exception as error:
            # Not chained: what Postgres says of a row that it refuses quotes the row.
            raise self._judge(read(error), writes=writes) from None
        if writes and self._circuit.write_accepted():
            log.warning("database: it takes writes again")

    def _judge(self, failure: Failure, *, writes: bool) -> CorralError:
        match failure.kind:
            case Kind.CONFLICT:
                return _conflict(failure)
            case Kind.DATA:
                log.error("database: %s %s", failure.reason, failure.constraint)
                return DataRefused("the database refused a value")
            case Kind.AWAY:
                self._away(failure.reason)
            case Kind.LOST:
                self._doubt.set()
            case Kind.READ_ONLY if writes and self._circuit.write_refused(failure.reason):
                log.error("database: it refuses to write: %s", failure.reason)
            case Kind.SLOW:
                log.warning("database: a call was given up: %s", failure.reason)
        self._failures += 1
        return _unavailable("the database does not take this now" if failure.kind is Kind.READ_ONLY else "")

    def _away(self, reason: str) -> None:
        if self._circuit.open(reason, trio.current_time()):
            log.error("database: away: %s", reason)
        self._doubt.set()

    async def watch(self) -> None:
        """Probe whenever there is doubt, until Postgres answers; runs as long as the store is open."""
        while True:
            await self._doubt.wait()
            await self._probe_until_back()
            self._doubt = trio.Event()

    async def _probe_until_back(self) -> None:
        delay = PROBE_MIN_S
        while (reason := await self._probe()) is not None:
            self._away(reason)
            await trio.sleep(delay)
            delay = min(PROBE_MAX_S, delay * 2)
        if self._circuit.close():
            log.warning("database: back")

    async def _probe(self) -> str | None:
        """Why Postgres is away; None if it is not."""
        try:
            await self._cross(self._pool.run, _ping, seconds=PROBE_S)
        except Exception as error:
            return read(error).reason
        return None

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
                if failure.kind is Kind.DATA:
                    raise
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


async def _ping(connection: Any) -> None:
    await connection.execute("SELECT 1")


def _unavailable(detail: str) -> StorageUnavailable:
    return StorageUnavailable(detail, retry_after_s=RETRY_AFTER_S)


_CONFLICTS = {
    "mcp_users_pkey": "there is a user of this name already",
    "mcp_tokens_pkey": "there is a token of this id already",
    "mcp_tokens_digest_key": "this token exists already",
    "mcp_instances_pkey": "there is an instance of this id already",
    "mcp_instances_live_name": "there is an instance of this name already",
}


def _conflict(failure: Failure) -> CorralError:
    if failure.constraint.endswith("_owner_fkey"):
        return NotFound("there is no such user")
    return Conflict(_CONFLICTS.get(failure.constraint, "it contradicts what exists"))


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
            store = PostgresStore(loop, pool, url, secret_box)
            try:
                await store.wait_ready(wait_s)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(store.watch)
                    yield store
                    nursery.cancel_scope.cancel()
            finally:
                await store.close()
                pool.terminate()


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
