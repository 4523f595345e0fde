"""Connections to Postgres, and the one way to use one: a unit of work with a deadline.

Plain asyncio; knows nothing of Trio. A unit is one coroutine over one connection.
When its time is up the connection is cut rather than the query cancelled: a frozen
server answers a cancel request no better than a query, and asyncpg would wait for
that answer. Cutting ends everything that waits on the connection at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import asyncpg
from attrs import frozen

from controlplane.config import ConfigError
from controlplane.store.failures import DeadlinePassed, NoConnection

POOL_SIZE = 10
"""Connections: eight for calls, the rest for the probe; far below Postgres's default of 100."""
SLOTS = 8
"""Units of work under way at once; more wait for their turn."""
CONNECT_S = 2.0
"""A connection on a healthy host takes milliseconds."""
STATEMENT_S = 3.5
"""The server ends a longer statement itself, so that a slow one is not taken for a server that is away."""
UNIT_S = 4.0
"""A whole unit of work: longer than one statement may take."""
COMMAND_S = 5.0
"""asyncpg's own bound on one command; the last resort, never reached while `UNIT_S` works."""
IDLE_S = 300.0
"""An unused connection is closed after this long."""

_BROKEN = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

log = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[..., Awaitable[T]]
"""`async def work(connection, *args)`, asyncio-flavoured."""

SERVER_SETTINGS = {
    "application_name": "corral",
    "timezone": "UTC",
    "statement_timeout": str(int(STATEMENT_S * 1000)),
    "idle_in_transaction_session_timeout": "10000",  # a frozen control plane must not hold locks
    "client_connection_check_interval": "500",  # nor work for a caller who has gone
}


@frozen
class Pool:
    """An asyncpg pool whose users cannot hang."""

    _pool: Any
    _url: str

    async def run(self, work: Work[T], *args: Any, seconds: float = UNIT_S, reads: bool = False) -> T:
        """Run one unit of work.

        Args:
            work: What to do with a connection.
            args: For it.
            seconds: The time for it.
            reads: It changes nothing, so it may be done again where its connection ended under it.

        Raises:
            NoConnection: none could be made in time.
            DeadlinePassed: the work took longer than `seconds`.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        try:
            return await self._run_once(work, *args, seconds=seconds)
        except asyncpg.InternalClientError:
            # The connection died in the pool and asyncpg had not seen it yet: it refuses to send, so nothing
            # was done, and a transaction that was open is not committed. Another connection may be better.
            pass
        except (asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError):
            if not reads:  # it may have been done
                raise
        left = deadline - asyncio.get_running_loop().time()
        return await self._run_once(work, *args, seconds=left)

    async def _run_once(self, work: Work[T], *args: Any, seconds: float) -> T:
        connection = await self._acquire()
        with _cut_after(connection, seconds) as cut:
            try:
                return await _abandonable(cut, work, connection, *args)
            finally:
                await self._give_back(connection)

    async def _give_back(self, connection: Any) -> None:
        """A connection that breaks while it is tidied up is gone, and the work done over it stands all the same."""
        try:
            await self._pool.release(connection)
        except _BROKEN as error:
            log.debug("database: a connection broke after its work: %s", type(error).__name__)

    async def _acquire(self) -> Any:
        try:
            return await self._pool.acquire(timeout=CONNECT_S)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise NoConnection from error

    async def run_apart(self, work: Work[T], *args: Any, seconds: float) -> T:
        """Run long work on a connection of its own, outside the pool, within `seconds`."""
        connection = await connect(self._url)
        try:
            with _cut_after(connection, seconds) as cut:
                return await _abandonable(cut, work, connection, *args)
        finally:
            connection.terminate()

    async def close(self) -> None:
        """Say goodbye to Postgres; one that is gone already is no error."""
        try:
            await self._pool.close()
        except _BROKEN as error:
            log.debug("database: a connection broke while it was closed: %s", type(error).__name__)

    def terminate(self) -> None:
        self._pool.terminate()


@contextmanager
def _cut_after(connection: Any, seconds: float) -> Iterator[Callable[[], None]]:
    """Cut the connection when the time is up, which ends whatever waits on it; yields the means to do so earlier."""
    late = False

    def cut() -> None:
        with suppress(asyncpg.InterfaceError):  # it is back in the pool already
            connection.terminate()

    def time_is_up() -> None:
        nonlocal late
        late = True
        cut()

    timer = asyncio.get_running_loop().call_later(seconds, time_is_up)
    try:
        yield cut
    except _BROKEN as error:
        if late:
            raise DeadlinePassed from error
        raise
    finally:
        timer.cancel()


async def _abandonable(cut: Callable[[], None], work: Work[T], *args: Any) -> T:
    """Run work that ends at once when it is cancelled, whatever the server does."""
    task = asyncio.ensure_future(work(*args))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        cut()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # of no interest any more; asyncio wants it looked at
        raise


async def open_pool(url: str) -> Pool:
    """Make a pool; does not connect yet, nor look at the URL."""
    pool = await asyncpg.create_pool(
        url,
        min_size=0,  # no floor: a pool that needs no server to exist, and none that logs while it is away
        max_size=POOL_SIZE,
        max_inactive_connection_lifetime=IDLE_S,
        timeout=CONNECT_S,
        command_timeout=COMMAND_S,
        server_settings=SERVER_SETTINGS,
    )
    return Pool(pool, url)


async def connect(url: str, *, command_timeout_s: float | None = None, **settings: str) -> Any:
    """Open a single connection, outside the pool.

    Args:
        command_timeout_s: asyncpg's bound on each command; None: the caller bounds its work.
        settings: Server settings over the usual ones; without one there is no statement_timeout.

    Raises:
        ConfigError: the URL cannot be used.
        NoConnection: none could be made in time.
    """
    try:
        return await asyncpg.connect(
            url,
            timeout=CONNECT_S,
            command_timeout=command_timeout_s,
            server_settings={**SERVER_SETTINGS, "statement_timeout": "0", **settings},
        )
    except ValueError:  # what it says may quote the URL, password and all
        raise ConfigError(["DATABASE_URL: expected postgresql://user:password@host:port/database"]) from None
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise NoConnection from error
