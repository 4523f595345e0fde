"""The one writer of a child's stdin, with a bound.

A line goes straight to the pipe while the pipe takes it; what is left waits
here, in order, for the writer task, and so do lines that are better written
together. A child that does not read costs its own
callers a 503, never the control plane's memory.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable

import trio
from attrs import define, field

MAX_BYTES = 8 * 2**20
_BATCH_BYTES = 256 * 1024


class OutboxFull(Exception):
    """The child does not keep up with what is sent to it."""


@define(eq=False)
class Outbox:
    """Bytes on their way into `fd`, a non-blocking pipe. `broken` once the other side has closed it."""

    fd: int
    close_fd: Callable[[], None]
    max_bytes: int = MAX_BYTES
    broken: trio.Event = field(factory=trio.Event, init=False)
    stuck_since: float | None = field(default=None, init=False)
    """When the pipe last took a byte while bytes were waiting; None while nothing waits."""
    tap: Callable[[bytes], None] | None = field(default=None, init=False)
    """Gets each line that is sent, where somebody watches."""
    _queue: deque[bytes | memoryview] = field(factory=deque, init=False)
    # What is left of a line that went in part is a view: a child that reads in sips must not cost a copy for each.
    _size: int = field(default=0, init=False)
    _closing: bool = field(default=False, init=False)
    _kick: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)

    @property
    def queued_bytes(self) -> int:
        return self._size

    def send_nowait(self, line: bytes, *, soon: bool = False) -> None:
        """Write or queue one whole line.

        Args:
            line: With its newline.
            soon: More is likely to come in this turn: let `run` write all of it at once. A write wakes the child, and
                costs more than all else that a call does here.

        Raises:
            OutboxFull: the bound is reached; nothing of the line was written.
            BrokenPipeError: the child closed its stdin.
        """
        if self.broken.is_set() or self._closing:
            raise BrokenPipeError
        if self._size + len(line) > self.max_bytes:
            raise OutboxFull
        if self.tap is not None:
            self.tap(line)
        rest: bytes | memoryview = line
        if not self._queue and not soon:
            sent = self._write(line)
            if sent == len(line):
                return
            rest = memoryview(line)[sent:]
            self.stuck_since = trio.current_time()
        self._queue.append(rest)
        self._size += len(rest)
        if self._kick:
            self._kick.unpark_all()

    async def run(self) -> None:
        """Service loop: empty the queue as the child reads. Returns when the pipe breaks or is closed."""
        while not self.broken.is_set() and not self._closing:
            if not self._queue:
                await self._kick.park()
                continue
            try:
                if self.stuck_since is not None:
                    await trio.lowlevel.wait_writable(self.fd)
                self._flush()
            except (OSError, trio.ClosedResourceError):
                self.broken.set()

    def close(self) -> None:
        """Close stdin: the child's cue to leave. What is queued is dropped."""
        if not self._closing:
            self._closing = True
            self._queue.clear()
            self._size = 0
            self.stuck_since = None
            trio.lowlevel.notify_closing(self.fd)
            self.close_fd()
            self._kick.unpark_all()

    def _write(self, data: bytes | memoryview) -> int:
        try:
            return os.write(self.fd, data)
        except BlockingIOError:
            return 0
        except OSError:
            self.broken.set()
            raise BrokenPipeError from None

    def _flush(self) -> None:
        head = self._queue.popleft()
        if len(head) < _BATCH_BYTES and self._queue:
            parts, size = [head], len(head)
            while self._queue and size < _BATCH_BYTES:
                parts.append(self._queue.popleft())
                size += len(parts[-1])
            head = b"".join(parts)
        sent = self._write(head)
        self._size -= sent
        if sent < len(head):
            self._queue.appendleft(memoryview(head)[sent:])
        self.stuck_since = trio.current_time() if self._queue else None
