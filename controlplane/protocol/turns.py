"""One call at a time, for a server that answers in order and without ids.

A call waits for its turn, and then until nothing is owed any more: the answer
of a call whose caller has left still comes, and belongs to nobody.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
from attrs import define, field

if TYPE_CHECKING:
    from controlplane.protocol.pending import Pending


@define(eq=False)
class Turns:
    """Who may ask next. Once closed, nobody waits."""

    pending: Pending
    _lock: trio.Lock = field(factory=trio.Lock, init=False)
    _free: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)
    _closed: bool = field(default=False, init=False)

    @property
    def is_taken(self) -> bool:
        """Whether somebody has the turn; only then do others wait."""
        return self._lock.locked()

    @asynccontextmanager
    async def take(self, deadline: float) -> AsyncIterator[bool]:
        """Wait for a turn, until `deadline` on Trio's clock; whether it came. Leaving the block passes it on."""
        with trio.move_on_at(deadline) as waiting:
            await self._lock.acquire()
        if waiting.cancelled_caught:
            yield False
            return
        try:
            with trio.move_on_at(deadline):
                while self.pending and not self._closed:
                    await self._free.park()
            yield self._closed or not self.pending
        finally:
            self._lock.release()

    def look_again(self) -> None:
        """An answer came."""
        if self._free:  # on the path of every call, and only a bare server's ever wait
            self._free.unpark_all()

    def close(self) -> None:
        """Let everybody through, to find out that the conversation is over."""
        self._closed = True
        self._free.unpark_all()
