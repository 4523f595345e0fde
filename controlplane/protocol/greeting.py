"""A handshake under way: what it has been told, and who waits for its next step."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio
from attrs import define, field

from controlplane.protocol.handshake import Handshake, Step, Wait

if TYPE_CHECKING:
    from controlplane.core.jsonrpc import Response

PROBE_TIMEOUT_S = 10.0
"""After this, `initialize` is sent as well; the probe's answer still counts if it comes first."""
STEPS = 16
"""Steps that wait to be taken. There are three that matter, and what decides comes first."""


@define(eq=False)
class Greeting:
    """Replies in, steps out."""

    _handshake: Handshake = field(factory=Handshake)
    unanswered: int = field(default=0, init=False)
    """Lines sent that have no answer without an id yet: a bare server answers every line."""
    _steps: Any = field(factory=lambda: trio.open_memory_channel[Step](STEPS), init=False)

    def on_reply(self, reply: Response) -> None:
        """Fold one reply; a server that babbles on loses the surplus, not the reader."""
        self.unanswered -= reply.id is None
        step = self._handshake.on_reply(reply)
        if not isinstance(step, Wait):
            with suppress(trio.WouldBlock):
                self._steps[0].send_nowait(step)

    async def first_step(self) -> Step:
        """Wait for what follows from the probe, or from its silence."""
        with trio.move_on_after(PROBE_TIMEOUT_S):
            return await self.next_step()
        return self._handshake.on_probe_timeout()

    async def next_step(self) -> Step:
        """Wait for the next step that asks for something."""
        step: Step = await self._steps[1].receive()
        return step
