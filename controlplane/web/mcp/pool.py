"""What all legacy sessions hold of their streams together, and what of it goes when that is too much.

Beyond the bound the session that holds most gives way, by half, and then the
next: one that fills its own room costs the others nothing.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import Callable

    from controlplane.web.mcp.ring import Ring
    from controlplane.web.mcp.streams import Stream

KEEP_FINISHED_S = 60.0
"""A stream that was read to the end is kept this long: its last bytes may have been lost on the way."""
RELIEF_PART = 16
"""A full pool frees this part of its room: about 20 ms of work with 10,000 sessions, once per so much traffic."""


@define(eq=False)
class Pool:
    """What all sessions' rings share. `held_bytes` is everything they hold, queues of readers included."""

    limit_bytes: int
    clock: Callable[[], float]
    held_bytes: int = field(default=0, init=False)
    readers: int = field(default=0, init=False)
    lagged: int = field(default=0, init=False)
    """Readers that were ended because they did not keep up."""
    lost: int = field(default=0, init=False)
    """Events that were dropped before a client had taken them."""
    rings: set[Ring] = field(factory=set, init=False, repr=False)
    """Those that hold anything."""
    settled: dict[Stream, float] = field(factory=dict, init=False, repr=False)
    """Streams read to the end -> when they are forgotten, the first first."""

    def settle(self, stream: Stream) -> None:
        """A stream was read to the end: it is the last in line to be forgotten."""
        self.settled[stream] = self.clock() + KEEP_FINISHED_S

    def expire(self, now: float) -> None:
        """Forget the streams that were read to the end a while ago."""
        while (due := next(iter(self.settled.items()), None)) is not None and now >= due[1]:
            due[0].ring.forget(due[0])

    def relieve(self) -> None:
        """Come back under the bound, and some way below it: looking for who holds most is not for every event."""
        if self.held_bytes <= self.limit_bytes:
            return
        goal = self.limit_bytes - self.limit_bytes // RELIEF_PART
        largest = [(-ring.held_bytes, id(ring), ring) for ring in self.rings]
        heapify(largest)
        while self.held_bytes > goal and largest:
            ring = heappop(largest)[-1]
            ring.give_way()
            if ring.held_bytes:
                heappush(largest, (-ring.held_bytes, id(ring), ring))
