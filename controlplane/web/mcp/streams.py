"""One event stream of a legacy client: messages in, numbered events out, to one reader at a time.

A stream outlives its connections. Its messages are events `<stream>-<number>`,
kept in the session's ring (`ring.py`) for as long as that has room, so that a
client whose connection broke goes on after the last one it saw (MCP 2025-11-25,
transports, resumability). A POST's stream ends with its response; the session's
own stream ends with the session.

A reader that does not keep up is ended and can resume: no message is left out
in the middle of a connection. What a resume points to and the ring no longer
holds is gone, without a word: the protocol has none for it.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING

import trio
from attrs import define, field, frozen

from controlplane.core.jsonrpc import one_line
from controlplane.web.mcp.outlet import ClientLeft

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from controlplane.web.mcp.outlet import Headers, Outlet
    from controlplane.web.mcp.ring import Ring

KEEPALIVE_S = 15.0
"""Silence after which a comment is sent: proxies cut connections that are idle for a minute, often for half of one."""
KEEPALIVE = b":\n\n"
QUEUE_MAX_EVENTS = 1_000
QUEUE_MAX_BYTES = 2 * 2**20
"""What one reader may have waiting behind what is being written; one event larger than this may pass alone, and a replay
does not count."""
RETRY_MS = 1_000
"""When a client whose connection is ended early should come back."""


class UnknownEvent(Exception):
    """There is nothing to resume at this `Last-Event-ID`; to be answered with 400.

    Not with 404: that tells a client that its session is over (MCP 2025-11-25,
    session management). Nor with an empty stream: clients come back to it for ever.
    """


class NothingLeft(UnknownEvent):
    """The stream is finished, and the client has seen all of it; best answered with 204: do not come back (WHATWG HTML, 9.2)."""


class Ended(Enum):
    """Why a connection no longer reads its stream."""

    FINISHED = "the stream is complete"
    CLOSED = "the session is over"
    LEFT = "the client left"
    LAGGED = "the client did not keep up"
    REPLACED = "the client resumed on another connection"


@frozen
class Framing:
    """How messages become events. `endpoint` is where a client of HTTP+SSE (2024-11-05) posts to."""

    primes: bool = False
    """Begin each connection with an empty event, so that it can be resumed at once (2025-11-25; older clients trip over it)."""
    endpoint: bytes | None = None

    @property
    def resumable(self) -> bool:
        return self.endpoint is None

    def event(self, stream: int, number: int, message: bytes) -> bytes:
        """Frame one message."""
        if self.endpoint is not None:
            return b"event: message\ndata: %b\n\n" % one_line(message)
        return b"id: %d-%d\ndata: %b\n\n" % (stream, number, one_line(message))

    def opening(self, stream: int, after: int) -> bytes:
        """What a connection begins with; `after` is the number of the last event that its client has seen."""
        if self.endpoint is not None:
            return b"event: endpoint\ndata: %b\n\n" % self.endpoint
        return b"id: %d-%d\ndata: \n\n" % (stream, after) if self.primes else b""

    def last_words(self) -> bytes:
        """What a connection that is ended before its stream ends with (2025-11-25: SHOULD name a time to come back)."""
        return b"retry: %d\n\n" % RETRY_MS if self.primes else b""


@define(eq=False)
class Reader:
    """One connection's place in its stream; made by `Stream.attach`, used by `relay`."""

    stream: Stream
    position: int
    """Number of the last event taken, or seen before."""
    is_gone: Callable[[], bool]
    ended: Ended | None = field(default=None, init=False)
    queued_events: int = field(default=0, init=False)
    queued_bytes: int = field(default=0, init=False)
    """Of events that are not written out."""
    _granted: tuple[int, int] = field(default=(0, 0), init=False)
    """Events and bytes of the queue that do not count as lagging: a replay, and what is being written."""
    _task: trio.lowlevel.Task | None = field(default=None, init=False)

    def take_nowait(self) -> bytes | None:
        """All events that there are, joined; None when there are none yet, nothing once `ended` says why."""
        if self.ended is None and self.position < self.stream.last and (events := self._take_all()):
            return events
        if self.ended is None and self.stream.finished:
            self.ended = Ended.CLOSED if self.stream.ring.closed else Ended.FINISHED
        return None if self.ended is None else b""

    async def changed(self) -> None:
        """Wait until there may be something to take."""
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _take_all(self) -> bytes:
        frames = self.stream.frames
        waiting = self.stream.last - self.position
        data = b"".join(frame for _, frame in islice(frames, max(0, len(frames) - waiting), None))
        self.position = self.stream.last
        self._granted = self.queued_events, self.queued_bytes
        return data

    def sent(self) -> None:
        """What was taken is written out."""
        self.stream.handed = max(self.stream.handed, self.position)
        if self.stream.reader is self:
            self.stream.ring.written(self)

    def grant(self, events: int, size: int) -> None:
        """Queue a replay."""
        self.queued_events, self.queued_bytes = self._granted = events, size

    def push(self, size: int) -> None:
        """Queue one event that the stream has appended; a reader with too much queued is ended."""
        self.queued_events += 1
        self.queued_bytes += size
        events, waiting = self.queued_events - self._granted[0], self.queued_bytes - self._granted[1]
        if events > QUEUE_MAX_EVENTS or (waiting > QUEUE_MAX_BYTES and events > 1):
            self.cut(Ended.LAGGED)
        else:
            self.wake()

    def pop_written(self) -> tuple[int, int]:
        """Take what was written out of the queue; return its events and bytes."""
        (events, size), self._granted = self._granted, (0, 0)
        self.queued_events -= events
        self.queued_bytes -= size
        return events, size

    def pop_all(self) -> tuple[int, int]:
        """Queue nothing any more; return events and bytes of what was."""
        self._granted = self.queued_events, self.queued_bytes
        return self.pop_written()

    def cut(self, why: Ended) -> None:
        """End the connection; what is queued goes back to the ring, for when the client resumes."""
        if self.stream.reader is self:
            self.ended = self.ended or why
            self.stream.ring.detach(self)
        self.wake()

    def wake(self) -> None:
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    def _abort(self, _raise_cancel: Any) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


@define(eq=False)
class Stream:
    """One stream of a session; made by `ClientSession.open_stream`. Events are numbered from 1."""

    number: int
    ring: Ring = field(repr=False)
    lasting: bool = False
    """The session's own: it does not finish before the session is over."""
    last: int = field(default=0, init=False)
    handed: int = field(default=0, init=False)
    """Number of the newest event that a connection has taken off our hands."""
    finished: bool = field(default=False, init=False)
    reader: Reader | None = field(default=None, init=False, repr=False)
    frames: deque[tuple[int, bytes]] = field(factory=deque, init=False, repr=False)
    """What is kept, oldest first, each with its place in the order of the session's messages."""
    size_bytes: int = field(default=0, init=False)

    @property
    def is_read(self) -> bool:
        """Whether a client that has not left, as far as anybody has seen, is connected to it."""
        return self.reader is not None and not self.reader.is_gone()

    @property
    def first(self) -> int:
        """Number of the oldest event that is kept."""
        return self.last - len(self.frames) + 1

    def post(self, message: bytes) -> bool:
        """Append one message; False when the stream is finished and nobody will ever see it."""
        if self.finished:
            return False
        self.last += 1
        self.ring.add(self, self.ring.framing.event(self.number, self.last, message))
        return True

    def finish(self) -> None:
        """Nothing more will come: connections end once they have it all. Idempotent; nothing to a session's own stream."""
        if not self.lasting:
            self.end()

    def end(self) -> None:
        """As `finish`, for any stream."""
        if not self.finished:
            self.finished = True
            self.ring.finished(self)

    def prime(self, after: int = 0) -> bytes:
        """The event that a connection begins with; empty where the session's version has none."""
        return self.ring.framing.opening(self.number, after)

    def attach(self, after: int | None, is_gone: Callable[[], bool]) -> Reader:
        """Begin to read after that event, or where the last reader left off; an older reader is replaced."""
        if self.reader is not None:
            self.reader.cut(Ended.REPLACED)
        reader = Reader(self, self.handed if after is None else after, is_gone)
        self.ring.attach(reader)
        return reader


async def relay(stream: Stream, after: int | None, outlet: Outlet, *, headers: Headers = ()) -> Ended:
    """Write a stream's events to one client until one side ends it.

    Takes the stream over at once, before it first waits: whoever must refuse a
    second reader asks `stream.is_read` right before.

    Args:
        stream: Where the events come from.
        after: Number of the last event that the client has seen; 0 for a new POST's stream, from `resume` for a
            resumed one, None to go on where the last reader left off (GET without `Last-Event-ID`).
        outlet: The client.
        headers: More fields for the answer's head.
    """
    reader = stream.attach(after, outlet.is_gone)
    try:
        await outlet.begin(headers)
        if opening := stream.prime(reader.position):
            await outlet.send(opening)
        ended = await _write_events(reader, outlet)
        if ended is Ended.LEFT:
            return ended
        if ended is Ended.LAGGED and (last_words := stream.ring.framing.last_words()):
            await outlet.send(last_words)
        await outlet.end()
        return ended
    except ClientLeft:
        return Ended.LEFT
    finally:
        reader.cut(Ended.LEFT)


async def _write_events(reader: Reader, outlet: Outlet) -> Ended:
    while True:
        events = reader.take_nowait()
        if events:
            await outlet.send(events)
            reader.sent()
        elif reader.ended is not None:
            return reader.ended
        else:
            with trio.move_on_after(KEEPALIVE_S) as silence:
                await reader.changed()
            if silence.cancelled_caught and outlet.is_gone():
                return Ended.LEFT
            if silence.cancelled_caught:
                await outlet.send(KEEPALIVE)
