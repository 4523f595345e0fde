"""Who may do what at once, for each key: one build for all who want it, and no removal beside a use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import trio
from attrs import define, evolve, field

from controlplane.errors import CorralError, ShuttingDown

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@define(eq=False)
class _Flight(Generic[V]):
    waiters: int = 0
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    done: trio.Event = field(factory=trio.Event)
    values: list[V] = field(factory=list)
    """The one it came to; none before the end, and after a failure."""
    error: Exception | None = None

    def result(self) -> V:
        if self.values:
            return self.values[0]
        if isinstance(self.error, CorralError):
            raise evolve(self.error) from self.error  # each waiter has one of its own, with its own traceback
        raise self.error or ShuttingDown("the control plane stopped before it had ended")


@define(eq=False)
class Flights(Generic[K, V]):
    """Work that is done once for all who ask for it meanwhile.

    It runs in a task of its own, so that it belongs to no single one of those who
    wait: any of them may be cancelled and the others get the result. It is cancelled
    with the last of them. Who comes while it winds down waits for that, and has it
    done anew.
    """

    _nursery: trio.Nursery
    _flights: dict[K, _Flight[V]] = field(factory=dict, init=False)

    def under_way(self) -> set[K]:
        return set(self._flights)

    async def join(self, key: K, work: Callable[[], Awaitable[V]]) -> V:
        """Wait for what is under way for the key, or for `work`, started now.

        Raises:
            Exception: whatever the work failed with; every waiter's.
            ShuttingDown: the nursery was cancelled.
        """
        while (flight := self._flights.get(key)) is not None and flight.scope.cancel_called:
            await flight.done.wait()
        if flight is None:
            flight = self._flights[key] = _Flight()
            self._nursery.start_soon(self._fly, key, flight, work)
        flight.waiters += 1
        try:
            await flight.done.wait()
        finally:
            flight.waiters -= 1
            if not flight.waiters:
                flight.scope.cancel()
        return flight.result()

    async def _fly(self, key: K, flight: _Flight[V], work: Callable[[], Awaitable[V]]) -> None:
        try:
            with flight.scope:
                flight.values.append(await work())
        except Exception as error:
            flight.error = error
        finally:
            del self._flights[key]
            flight.done.set()


@define(eq=False)
class Gate:
    """Many users at once, or one that is alone."""

    _lock: trio.Lock = field(factory=trio.Lock, init=False)
    _users: int = field(default=0, init=False)
    _idle: trio.Event = field(factory=trio.Event, init=False)

    @property
    def is_open(self) -> bool:
        """Whether nobody is in it, or waits at it."""
        return not self._users and not self._lock.locked()

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        async with self._lock:
            self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._idle.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Once everybody has left; nobody enters meanwhile."""
        async with self._lock:
            while self._users:
                self._idle = trio.Event()
                await self._idle.wait()
            yield
