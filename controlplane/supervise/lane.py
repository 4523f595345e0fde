"""A process of an instance and the conversation with it, for the clients that share it.

The primary, which `execute` uses, is one; others come and go with the clients
that need another era, other capabilities, or a process to themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from attrs import define, field

from controlplane.core.rawjson import encode
from controlplane.protocol.logging_levels import LEVELS

if TYPE_CHECKING:
    from controlplane.protocol.audience import Member
    from controlplane.protocol.capabilities import CapabilitySet
    from controlplane.protocol.handshake import Era, ProtocolFacts
    from controlplane.protocol.session import Session
    from controlplane.supervise.child import Child

SUBSCRIPTIONS_MAX = 256
"""Open `subscriptions/listen` of one process: each is a stream that somebody holds open."""


@define(eq=False)
class Lane:
    """A conversation that clients are served by. `capabilities` are those that its server was told of."""

    child: Child
    facts: ProtocolFacts
    capabilities: CapabilitySet = frozenset()
    is_private: bool = False
    retired: trio.Event = field(factory=trio.Event, init=False)
    """Set when it must go: no new calls, and the process ends after those in flight."""
    used_at: float = field(factory=trio.current_time, init=False)
    """When a call began, or a client left: Trio time."""
    subscriptions: int = field(default=0, init=False)
    session: Session = field(init=False)
    era: Era = field(init=False)
    _log_rank: int = field(default=len(LEVELS), init=False)

    def __attrs_post_init__(self) -> None:
        self.session, self.era = self.child.session, self.facts.era

    @property
    def is_open(self) -> bool:
        """Whether it takes calls."""
        return not (self.retired.is_set() or self.child.leaving.is_set())

    @property
    def is_idle(self) -> bool:
        """Nobody is served by it now."""
        return not (self.session.pending or len(self.session.audience))

    def want_log_level(self, level: str) -> None:
        """Have a legacy server say at least this much: a shared one says what the most curious of its clients wants.

        What each client gets of it is filtered for each.
        """
        if level in LEVELS[: self._log_rank] and "logging" in self.facts.capabilities:
            self._log_rank = LEVELS.index(level)
            self.session.request_nowait("logging/setLevel", encode({"level": level}))

    def retire(self) -> None:
        """Let it go."""
        self.retired.set()

    def join(self, member: Member) -> None:
        """A client is served by this process from now on."""
        self.session.audience.join(member)

    def leave(self, member: Member) -> None:
        """It no longer is: what only it had subscribed to is given up, what it was asked is refused."""
        for uri in self.session.audience.leave(member):
            self.session.request_nowait("resources/unsubscribe", encode({"uri": uri}))
        self.session.forget_member(member)
        self.used_at = trio.current_time()
        if self.is_private:
            self.retire()
