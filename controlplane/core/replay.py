"""A ring of the latest events, for readers that come back (`Last-Event-ID`).

Pure. Bounded by count and by bytes. Numbers are consecutive from 1, so what a
returning reader missed is exact: what the ring still holds it gets, and the
rest is a number.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from attrs import define, field, frozen

MAX_EVENTS = 1_000
MAX_BYTES = 4 * 2**20


@frozen
class Replay:
    """Frames to send again, and how many events are gone for good before them."""

    frames: tuple[bytes, ...]
    missed: int


@define
class Ring:
    """The newest frames of one topic; `last` is the number of the newest."""

    max_events: int = MAX_EVENTS
    max_bytes: int = MAX_BYTES
    last: int = field(default=0, init=False)
    size_bytes: int = field(default=0, init=False)
    _frames: deque[bytes] = field(factory=deque, init=False)

    def __len__(self) -> int:
        return len(self._frames)

    def append(self, frame: bytes) -> None:
        """Keep `frame` as number `last + 1`, dropping the oldest beyond the bounds; the newest always stays."""
        self.last += 1
        self._frames.append(frame)
        self.size_bytes += len(frame)
        while len(self._frames) > self.max_events or (self.size_bytes > self.max_bytes and len(self._frames) > 1):
            self.drop_oldest()

    def drop_oldest(self) -> None:
        self.size_bytes -= len(self._frames.popleft())

    def clear(self) -> None:
        """Forget every frame; the numbering goes on."""
        self._frames.clear()
        self.size_bytes = 0

    def after(self, number: int) -> Replay:
        """What a reader that has seen everything up to `number` still needs."""
        oldest = self.last - len(self._frames) + 1
        skip = max(0, number + 1 - oldest)
        return Replay(tuple(islice(self._frames, skip, None)), missed=max(0, oldest - number - 1))
