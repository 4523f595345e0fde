"""Look-ups of names for all sandboxes: shared where one is under way, and counted until their thread has ended.

The system's resolver sleeps in a thread that nobody can wake, for as long as whoever runs a nameserver likes. So a
look-up holds the place of the sandbox that began it until it has ended, however long ago everybody stopped waiting.
Each sandbox has `OWN_PLACES` that no other can take, and borrows of `SHARED_PLACES` as long as it holds fewer of them
than are free: however many sandboxes are greedy, one more finds a place.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from attrs import define, field, frozen

OWN_PLACES = 2
"""Look-ups of one sandbox that always find a thread, whatever others do."""
MAX_PLACES = 8
"""Of one sandbox, at once: what it borrows as well."""
SHARED_PLACES = 128
"""Lent to all sandboxes together."""
REMEMBER_S = 5.0
"""For how long a look-up stands: from a sandbox's query to its connection."""
MAX_REMEMBERED = 4096

Resolver = Callable[..., Awaitable[list[Any]]]
"""As `trio.socket.getaddrinfo`."""


class Unknown(Exception):
    """There is no such name."""


class Busy(OSError):
    """The sandbox waits for too many names already: this one has not been asked for."""


@frozen
class _Found:
    addresses: tuple[str, ...]
    until: float


@define(eq=False)
class _Flight:
    """A look-up that somebody's thread is at."""

    landed: trio.Event = field(factory=trio.Event)
    addresses: tuple[str, ...] = ()
    failure: Exception | None = None


@define(eq=False)
class Lookups:
    """All that the process asks the resolver, for whom."""

    resolver: Resolver = field(default=trio.socket.getaddrinfo, repr=False)
    _found: dict[str, _Found] = field(factory=dict, init=False, repr=False)
    _flying: dict[str, _Flight] = field(factory=dict, init=False, repr=False)
    _held: dict[str, int] = field(factory=dict, init=False, repr=False)
    """Places, by sandbox; none: no entry."""
    _borrowed: int = field(default=0, init=False, repr=False)
    _waiting: dict[str, trio.lowlevel.ParkingLot] = field(factory=dict, init=False, repr=False)
    """For a place, by sandbox; none: no entry."""

    async def addresses(self, sandbox: str, name: str, limit_s: float) -> tuple[str, ...]:
        """All addresses of a name, within `limit_s`; the look-up itself goes on and is remembered when it ends.

        Args:
            sandbox: On whose account.
            name: As a program asks for it.
            limit_s: Of waiting, for a place and for the answer.

        Raises:
            Unknown: there is no such name.
            Busy: no place came free in time.
            OSError: it cannot be found out now.
        """
        flight: _Flight | None = None
        with trio.move_on_after(limit_s):
            while (found := self._remembered(name)) is None and (flight := self._flight(sandbox, name)) is None:
                await self._waiting.setdefault(sandbox, trio.lowlevel.ParkingLot()).park()
            self._wake(sandbox)  # it has left the queue, perhaps without taking the place that it was woken for
            if found is not None:
                return found
            assert flight is not None
            await flight.landed.wait()
            if flight.failure is not None:
                raise flight.failure.with_traceback(None)
            return flight.addresses
        if flight is None:
            raise Busy(errno.EAGAIN, "too many names are being looked up")
        raise OSError(errno.ETIMEDOUT, "the name could not be looked up in time")

    def _remembered(self, name: str) -> tuple[str, ...] | None:
        found = self._found.get(name)
        return None if found is None or found.until < trio.current_time() else found.addresses

    def _flight(self, sandbox: str, name: str) -> _Flight | None:
        """The look-up of a name that is under way, or a new one; None: the sandbox has no place for it."""
        flight = self._flying.get(name)
        if flight is None and may_begin(self._held.get(sandbox, 0), SHARED_PLACES - self._borrowed):
            flight = self._flying[name] = _Flight()
            self._take(sandbox)
            # In no scope of whoever asks: it ends when its thread does.
            trio.lowlevel.spawn_system_task(self._fly, sandbox, name, flight)
        return flight

    async def _fly(self, sandbox: str, name: str, flight: _Flight) -> None:
        try:
            flight.addresses = await self._ask(name)
        except Exception as failure:  # theirs who wait; here it would end the process
            flight.failure = failure
        else:
            if len(self._found) >= MAX_REMEMBERED:
                self._found.clear()
            self._found[name] = _Found(flight.addresses, trio.current_time() + REMEMBER_S)
        del self._flying[name]
        flight.landed.set()
        self._give_back(sandbox)

    async def _ask(self, name: str) -> tuple[str, ...]:
        try:
            answers = await self.resolver(name, None, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            if error.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
                raise Unknown(name) from None
            raise
        except UnicodeError:
            raise Unknown(name) from None
        except RuntimeError:
            raise OSError(errno.EAGAIN, "the host has no thread left") from None
        addresses = tuple(dict.fromkeys(answer[4][0] for answer in answers))
        if not addresses:
            raise Unknown(name)
        return addresses

    # Places

    def _take(self, sandbox: str) -> None:
        held = self._held.get(sandbox, 0)
        self._held[sandbox] = held + 1
        self._borrowed += held >= OWN_PLACES

    def _give_back(self, sandbox: str) -> None:
        held = self._held.pop(sandbox) - 1
        if held:
            self._held[sandbox] = held
        if held >= OWN_PLACES:
            self._borrowed -= 1
            for other in [one for one in self._waiting if one != sandbox]:
                self._wake(other)
        self._wake(sandbox)

    def _wake(self, sandbox: str) -> None:
        """Let the one of a sandbox that has waited longest look whether there is a place now."""
        lot = self._waiting.get(sandbox)
        if lot is not None:
            lot.unpark()
            if not lot:
                del self._waiting[sandbox]


def may_begin(held: int, free: int) -> bool:
    """Whether a sandbox that holds so many places may have one more, when so many of the shared ones are free."""
    return held < OWN_PLACES or (held < MAX_PLACES and held - OWN_PLACES < free)
