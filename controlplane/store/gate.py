"""How a call gets to Postgres: it waits its turn, not at all while Postgres is away, and its failure is judged.

Owns the circuit and the probe that closes it again. What goes wrong below is judged
here, once: StorageUnavailable where waiting may help, Conflict and NotFound where the
caller asked for what cannot be, DataRefused where the database refuses a value.
Knows Trio and not asyncio: crossing over is the store's business (`cross`).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import trio
from attrs import define, field

from controlplane.errors import Conflict, CorralError, NotFound, StorageUnavailable
from controlplane.secretbox import SecretUnreadable
from controlplane.store.base import DataRefused
from controlplane.store.circuit import RETRY_AFTER_S, Circuit
from controlplane.store.failures import Failure, Kind, read
from controlplane.store.pool import SLOTS, Pool, Work

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

log = logging.getLogger(__name__)

SLOT_WAIT_S = 1.5
"""How long a call waits for its turn while all connections are in use."""
PROBE_S = 1.5
"""A probe's time: a healthy server answers in a millisecond."""
PROBE_MIN_S, PROBE_MAX_S = 0.1, 1.0
"""Between probes while Postgres is away, doubling."""

T = TypeVar("T")


class Cross(Protocol):
    """Runs an asyncio function from Trio and waits for it."""

    async def __call__(self, work: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T: ...


@define(eq=False)
class Gate:
    """The way to the pool. `watch` must run for as long as calls are made."""

    pool: Pool
    cross: Cross
    circuit: Circuit = field(factory=Circuit, init=False)
    calls: int = field(default=0, init=False)
    failures: int = field(default=0, init=False)
    _slots: trio.Semaphore = field(factory=lambda: trio.Semaphore(SLOTS), init=False)
    _doubt: trio.Event = field(factory=trio.Event, init=False)

    @property
    def busy(self) -> int:
        """Calls under way."""
        return SLOTS - self._slots.value

    async def call(self, work: Work[T], *args: Any, writes: bool = False) -> T:
        """Run one unit of work.

        Raises:
            StorageUnavailable: Postgres is away, slow, or refuses to write.
            Conflict, NotFound: a key or its owner says no.
            DataRefused: it refuses a value.
        """
        self.calls += 1
        await self._wait_turn()
        try:
            self.refuse_while_away()  # that may have become known while this call waited
            with self.judged(writes=writes):
                return await self.cross(self.pool.run, work, *args, reads=not writes)
        finally:
            self._slots.release()

    async def _wait_turn(self) -> None:
        self.refuse_while_away()
        with trio.move_on_after(SLOT_WAIT_S) as scope:
            await self._slots.acquire()
        if scope.cancelled_caught:
            self.failures += 1
            raise _unavailable("the database is busy")

    def refuse_while_away(self) -> None:
        """Raise StorageUnavailable while Postgres is known to be away."""
        if self.circuit.is_open:
            self.failures += 1
            raise _unavailable("the database is away")

    @contextmanager
    def judged(self, *, writes: bool) -> Iterator[None]:
        """Turn what asyncpg raises into our own errors, and learn from it."""
        try:
            yield
        except (CorralError, SecretUnreadable):
            raise  # said inside the unit of work, in our own words
        except asyncio.CancelledError:  # not ours: the asyncio loop is closing
            raise _unavailable("the store is closing") from None
        except Exception as error:
            # Not chained: what Postgres says of a row that it refuses quotes the row.
            raise self._judge(read(error), writes=writes) from None
        if writes and self.circuit.write_accepted():
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
            case Kind.READ_ONLY if writes and self.circuit.write_refused(failure.reason):
                log.error("database: it refuses to write: %s", failure.reason)
            case Kind.DAMAGED | Kind.SLOW:
                log.warning("database: a call was given up: %s", failure.reason)
        self.failures += 1
        return _unavailable("the database is away" if failure.kind is Kind.AWAY else "the database cannot do this now")

    def _away(self, reason: str) -> None:
        if self.circuit.open(reason, trio.current_time()):
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
        if self.circuit.close():
            log.warning("database: back")

    async def _probe(self) -> str | None:
        """Why Postgres is away; None if it is not."""
        try:
            await self.cross(self.pool.run, ping, seconds=PROBE_S)
        except Exception as error:
            return read(error).reason
        return None


async def ping(connection: Any) -> None:
    """Ask the database for a sign of life."""
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
