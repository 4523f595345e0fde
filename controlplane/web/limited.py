"""The fleet's events for a token that opens single instances only: of its owner's stream, what is about those."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self
from uuid import UUID

import msgspec
import trio
from attrs import define, field

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
        try:
            it = self._supervisor.get(instance_id).instance
        except NotFound:
            return False
        if self._principal.sees(it.owner, it.name, it.id):
            self._seen.add(instance_id)
            return True
        return False

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> Self:
        self._source.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._source.__exit__(kind, error, traceback)
