"""One request of a modern client: who made it, for which instance, and the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field

from controlplane.protocol.capabilities import CapabilitySet, capability_set
from controlplane.protocol.handshake import META
from controlplane.protocol.inbound import status_of, text_of
from controlplane.web.mcp.answers import answer, frame
from controlplane.web.mcp.outlet import Outlet, Reply

if TYPE_CHECKING:
    from controlplane.model import Principal
    from controlplane.protocol.headers import ModernRequest
    from controlplane.supervise.runner import Runner

CAPABILITIES = META + "clientCapabilities"
LOG_LEVEL = META + "logLevel"


@define(eq=False)
class Exchange:
    """One request, who made it, and the way back."""

    principal: Principal
    runner: Runner
    request: ModernRequest
    outlet: Outlet
    asker: object = field(factory=object, init=False)
    """Stands for it where a question is to be told from others', and holds nothing: a parked call keeps it."""
    begun: bool = field(default=False, init=False)

    @property
    def capabilities(self) -> CapabilitySet:
        """What the client declared with this request."""
        raw = self.request.meta.get(CAPABILITIES)
        return capability_set(None if raw is None else bytes(raw))

    @property
    def log_level(self) -> str | None:
        """The least severe log messages that it wants; None for none at all."""
        return text_of(self.request.meta.get(LOG_LEVEL))

    def reply(self, member: bytes) -> Reply:
        """The whole answer, as long as no stream has begun."""
        return Reply(status_of(member), answer(self.request.id, member))

    async def tell(self, message: bytes) -> None:
        """Write an event; the first one begins the stream."""
        if not self.begun:
            self.begun = True
            await self.outlet.begin()
        await self.outlet.send(message)

    async def finish(self, member: bytes) -> Reply | None:
        """Answer, on the stream if there is one."""
        if not self.begun:
            return Reply(status_of(member), answer(self.request.id, member))
        await self.outlet.send(frame(answer(self.request.id, member)))
        await self.outlet.end()
        return None
