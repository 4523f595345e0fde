"""Tokens that open single instances only: which those are, and the fleet's events as far as they are about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self
from uuid import UUID

import msgspec
import trio
from attrs import define, field

from controlplane.cluster.roster import HeldElsewhere
from controlplane.errors import NotFound

if TYPE_CHECKING:
    from types import TracebackType

    from controlplane.model import Principal
    from controlplane.supervise.supervisor import Supervisor
    from controlplane.web.sse import Source

ABOUT_THE_STREAM = frozenset({"connected", "gap", "lagged", "heartbeat", "shutdown"})
"""What is said about a stream itself; everybody hears it."""
_END = b"\n\n"


class _Told(msgspec.Struct):
    """What a frame is about."""

    type: str
    instance_id: UUID | None = None


def id_of(supervisor: Supervisor, principal: Principal, ref: str) -> UUID | None:
    """What an instance's name or id means to somebody, whichever control plane holds it; None: nothing."""
    try:
        return supervisor.find(principal, ref).instance.id
    except HeldElsewhere as held:
        return held.elsewhere.id
    except NotFound:
        return None


def ids_opened(supervisor: Supervisor, principal: Principal) -> tuple[UUID, ...] | None:
    """The ids of the only instances that a token opens, deleted ones included; None: it is not limited."""
    if principal.instances is None:
        return None
    found = {one for one in principal.instances if isinstance(one, UUID)}
    for named in principal.instances - found:
        owner, _, name = str(named).rpartition("/")
        instance_id = id_of(supervisor, principal, name if owner == principal.owner else str(named))
        if instance_id is not None:
            found.add(instance_id)
    return tuple(found)


_decode = msgspec.json.Decoder(_Told).decode


@define(eq=False)
class OnlySource:
    """A source of frames of which only those come through that the principal may see."""

    _source: Source
    _principal: Principal
    _supervisor: Supervisor
    _seen: set[UUID] = field(factory=set, init=False)
    """Instances that are in scope by their name, so that their end is told, too."""

    async def take(self) -> bytes:
        """Wait for frames; raises trio.EndOfChannel at the end."""
        while True:
            frames = (await self._source.take()).split(_END)
            kept = b"".join(frame + _END for frame in frames if frame and self._wants(frame))
            if kept:
                return kept
            await trio.lowlevel.checkpoint()

    def _wants(self, frame: bytes) -> bool:
        told = _decode(frame.partition(b"data: ")[2])
        if told.type in ABOUT_THE_STREAM:
            return True
        return told.instance_id is not None and self._sees(told.instance_id)

    def _sees(self, instance_id: UUID) -> bool:
        if instance_id in (self._principal.instances or ()) or instance_id in self._seen:
            return True
        if id_of(self._supervisor, self._principal, str(instance_id)) is None:
            return False
        self._seen.add(instance_id)
        return True

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> Self:
        self._source.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._source.__exit__(kind, error, traceback)
