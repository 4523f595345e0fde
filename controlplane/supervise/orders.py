"""Commands to one instance: each has a number, and interrupts all that is going on for an earlier one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

import trio
from attrs import define, field

LEAVE_S = 7.0
"""From the control plane's own stop to SIGKILL: what the calls in flight leave of it is the stop ladder's, whose graces
shrink to fit. The rest of `app.HARD_END_S` is for the journal, the connections, and Postgres."""


@define(eq=False)
class Orders:
    """The newest command's number, and the stages that it would interrupt.

    `obeyed` is the number of the last command whose work has begun, -1 before
    the first; `leaving` is set for good when the control plane itself ends.
    """

    newest: int = field(default=0, init=False)
    obeyed: int = field(default=-1, init=False)
    leaving: bool = field(default=False, init=False)
    end_by: float = field(default=inf, init=False)
    """Trio time by which every process must be gone; infinite unless `leaving`."""
    _stages: set[trio.CancelScope] = field(factory=set, init=False)
    """One for each process of a pair, and for what waits beside them."""
    _changed: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)

    def give(self, *, leaving: bool = False) -> None:
        """A new command: whatever runs for the last one ends early."""
        self.newest += 1
        if leaving and not self.leaving:
            self.leaving, self.end_by = True, trio.current_time() + LEAVE_S
        for stage in self._stages:
            stage.cancel()
        self.tell()

    def obey(self) -> int:
        """Begin the newest command's work; returns its number."""
        self.obeyed = self.newest
        return self.newest

    def stands(self, order: int) -> bool:
        """Whether no later command has come."""
        return self.newest == order and not self.leaving

    @contextmanager
    def interruptible(self, order: int) -> Iterator[trio.CancelScope]:
        """Leave the block early when a later command comes; at once when it has come already."""
        with trio.CancelScope() as stage:
            self._stages.add(stage)
            if not self.stands(order):
                stage.cancel()
            try:
                yield stage
            finally:
                self._stages.discard(stage)

    def tell(self) -> None:
        """Something that somebody may wait for has changed."""
        self._changed.unpark_all()

    async def wait(self) -> None:
        """Until `tell` is called."""
        await self._changed.park()
