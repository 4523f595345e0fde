"""Who may install and start now: a bounded number of instances at a time, first come, first served.

A fleet that starts all at once starves itself: every handshake runs into its
time limit. With a few at a time each one is quick.
"""

from __future__ import annotations

import trio
from attrs import define, field


@define(eq=False)
class StartSlot:
    """One instance's claim. `release` may be called any number of times."""

    _limiter: trio.CapacityLimiter
    _held: bool = field(default=False, init=False)

    @property
    def must_wait(self) -> bool:
        """Whether others have to go first."""
        return not self._held and self._limiter.available_tokens == 0

    async def acquire(self) -> None:
        """Wait for a turn; at once if it is held already."""
        if not self._held:
            await self._limiter.acquire_on_behalf_of(self)
            self._held = True

    def release(self) -> None:
        """Let the next one start."""
        if self._held:
            self._held = False
            self._limiter.release_on_behalf_of(self)


@define(eq=False)
class StartScheduler:
    """Hands out start slots."""

    concurrency: int
    _limiter: trio.CapacityLimiter = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._limiter = trio.CapacityLimiter(self.concurrency)

    def slot(self) -> StartSlot:
        """A new claim, not yet held."""
        return StartSlot(self._limiter)

    @property
    def waiting(self) -> int:
        return self._limiter.statistics().tasks_waiting
