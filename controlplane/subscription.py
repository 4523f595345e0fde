"""One subscriber's place in the hub: what of, and the frames that wait for it."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

import trio
from attrs import define, field, frozen

if TYPE_CHECKING:
    from controlplane.hub import Hub

QUEUE_MAX_EVENTS = 256
QUEUE_MAX_BYTES = 2 * 2**20
"""Per subscriber; one event larger than this may pass alone."""


@frozen
class WireOf:
    """A live topic: one instance's traffic, as far as `wanted` lets it through."""

    instance_id: UUID
    wanted: Any
    """A filter, hashable."""


Topic = UUID | str | WireOf | None
"""An instance's id, an owner's name, or None for the whole fleet."""


@define(eq=False)
class Subscription:
    """One subscriber's queue of encoded frames. A context manager; closing is idempotent."""

    topic: Topic
    _hub: Hub
    _reached: int
    """Number of the last event handed out: where the reader goes on when it comes back."""
    _queued: int = field(init=False)
    """Number of the last event in the queue."""
    _frames: list[bytes] = field(factory=list, init=False)
    _size: int = field(default=0, init=False)
    _granted: tuple[int, int] = field(default=(0, 0), init=False)
    """Frames and bytes of a replay in the queue, which do not count as lagging."""
    _task: trio.lowlevel.Task | None = field(default=None, init=False)
    closed: bool = field(default=False, init=False)
    on_close: Callable[[], None] | None = None
    """Called once, whoever ends the stream."""

    def __attrs_post_init__(self) -> None:
        self._queued = self._reached

    @property
    def reached(self) -> int:
        return self._reached

    @property
    def queued_bytes(self) -> int:
        return self._size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
        self.clear()

    async def take(self) -> bytes:
        """Wait for frames and return all that are queued, joined.

        Raises:
            trio.EndOfChannel: the subscription is closed and everything was handed out.
        """
        if not self._frames:
            if self.closed:
                raise trio.EndOfChannel
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
            if not self._frames:
                raise trio.EndOfChannel
        data = b"".join(self._frames)
        self._reached = self._queued
        self.clear()
        return data

    def close(self) -> None:
        """End the stream; what is queued may still be taken."""
        if not self.closed:
            self.closed = True
            self._hub._forget(self)
            self._wake()
            if self.on_close is not None:
                self.on_close()

    def push(self, frame: bytes, number: int) -> bool:
        """Queue one frame; False when it does not fit and the subscriber must go."""
        events, size = len(self._frames) - self._granted[0], self._size - self._granted[1]
        if self._frames and (events >= QUEUE_MAX_EVENTS or size + len(frame) > QUEUE_MAX_BYTES):
            return False
        self.force(frame, number)
        return True

    def force(self, frame: bytes, number: int) -> None:
        """Queue one frame beyond the bound: replays (bounded by the ring) and last words."""
        self._frames.append(frame)
        self._queued = number
        self._size += len(frame)
        self._hub._buffered += len(frame)
        self._wake()

    def grant(self) -> None:
        """What is queued now is a replay."""
        self._granted = (len(self._frames), self._size)

    def clear(self) -> None:
        """Drop what is queued."""
        self._frames.clear()
        self._hub._buffered -= self._size
        self._size = 0
        self._granted = (0, 0)

    def _wake(self) -> None:
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    def _abort(self, _raise_cancel: Any) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED
