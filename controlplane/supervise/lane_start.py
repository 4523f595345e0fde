"""A process beside the primary on its way to its first client, and whom that is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from attrs import define, field

if TYPE_CHECKING:
    from controlplane.errors import CorralError
    from controlplane.protocol.capabilities import CapabilitySet
    from controlplane.supervise.lane import Lane


class LegacyRefused(Exception):
    """The server does not speak the legacy era."""


@define(eq=False)
class LaneStart:
    """A lane on its way. Its task sets `done`; a spare one's process waits for `wanted` before it is greeted."""

    introduction: bytes = b""
    capabilities: CapabilitySet = frozenset()
    is_private: bool = False
    wanted: trio.Event = field(factory=trio.Event)
    dropped: trio.Event = field(factory=trio.Event)
    """Set when a spare one is not needed any more."""
    since: float = field(factory=trio.current_time)
    done: trio.Event = field(factory=trio.Event)
    lane: Lane | None = None
    error: CorralError | LegacyRefused | None = None

    @property
    def is_of_use(self) -> bool:
        """Whether it is under way, or has led to a lane that takes calls."""
        if self.error is not None or self.dropped.is_set():
            return False
        return self.lane is None or self.lane.is_open

    @property
    def whom(self) -> str:
        """Whom its process is for, as the instance's log says it."""
        if self.is_private:
            return "one client"
        return f"clients that can be asked: {', '.join(sorted(self.capabilities)) or 'nothing'}"

    def want(self, introduction: bytes, capabilities: CapabilitySet) -> None:
        """Somebody needs it."""
        self.introduction, self.capabilities = introduction, capabilities
        self.wanted.set()

    def succeed(self, lane: Lane) -> None:
        self.lane = lane
        self.done.set()

    def fail(self, error: CorralError | LegacyRefused) -> None:
        if not self.done.is_set():
            self.error = error
            self.done.set()

    async def lane_or_error(self) -> Lane:
        await self.done.wait()
        if self.error is not None:
            raise self.error
        assert self.lane is not None
        return self.lane
