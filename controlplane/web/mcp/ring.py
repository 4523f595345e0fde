"""What is kept of a session's streams, and for how long.

A session keeps up to `RING_MAX_EVENTS` or `RING_MAX_BYTES` of events over all
its streams, for clients that resume, or one larger event alone. What a
connected reader has yet to write out is its queue and does not count: a large
answer on its way costs nobody else's messages.

Room is made in this order, the oldest first: events of streams that are
finished and read to the end; events that a connection has taken already;
events of finished streams that nobody came back for; events of open streams
that nobody reads. What all sessions hold together is bounded by the `Pool`.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from attrs import define, field

from controlplane.errors import Busy
from controlplane.web.mcp.streams import Ended, Framing, NothingLeft, Stream, UnknownEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from controlplane.web.mcp.pool import Pool
    from controlplane.web.mcp.streams import Reader

RING_MAX_EVENTS = 1_000
RING_MAX_BYTES = 2**20
UNREAD_MAX_EVENTS = 256
UNREAD_MAX_BYTES = 256 * 1024
"""Of a session's own stream while nobody reads it: many clients never do, and it must not crowd out what is resumed."""
OPEN_MAX = 256
"""Streams of one session at once that are not finished: more than the calls in flight that any instance takes."""
NUMBER_MAX_DIGITS = 18


@define(eq=False)
class Ring:
    """One session's streams and their events. `on_quiet` is told when a stream finishes or loses its reader."""

    pool: Pool = field(repr=False)
    framing: Framing
    on_quiet: Callable[[], None] = field(repr=False)
    closed: bool = field(default=False, init=False)
    readers: int = field(default=0, init=False)
    held_bytes: int = field(default=0, init=False)
    kept_events: int = field(default=0, init=False)
    kept_bytes: int = field(default=0, init=False)
    """What is held without the queues of readers."""
    standalone: Stream = field(init=False)
    _streams: int = field(default=0, init=False)
    _events: int = field(default=0, init=False)
    _live: dict[int, Stream] = field(factory=dict, init=False, repr=False)
    """Not finished, or being read."""
    _owed: dict[int, Stream] = field(factory=dict, init=False, repr=False)
    """Finished, and not read to the end."""
    _settled: dict[int, Stream] = field(factory=dict, init=False, repr=False)
    """Finished and read to the end."""

    def __attrs_post_init__(self) -> None:
        self.standalone = self._live[0] = Stream(0, self, lasting=True)

    # -- streams

    def open(self) -> Stream:
        """A new stream for a POST; with HTTP+SSE everything goes to the session's own.

        Raises:
            Busy: `OPEN_MAX` are not finished.
        """
        if not self.framing.resumable:
            return self.standalone
        if len(self._live) > OPEN_MAX:
            raise Busy(f"The session has {OPEN_MAX} requests in flight.", retry_after_s=1)
        self._streams += 1
        stream = Stream(self._streams, self)
        if self.closed:
            stream.finished = True
        else:
            self._live[stream.number] = stream
        return stream

    def takes(self, stream: Stream) -> bool:
        """Whether this stream is one of this session, and not finished."""
        return self._live.get(stream.number) is stream and not stream.finished

    def newest_read(self) -> Stream | None:
        """The newest POST's stream that is open and has a reader."""
        return next((s for s in reversed(self._live.values()) if not (s.finished or s.lasting) and s.is_read), None)

    def resume(self, last_event_id: str) -> tuple[Stream, int]:
        """Find the stream that an event id is of; return it and the event's number.

        Raises:
            NothingLeft: that was the last event of a finished stream.
            UnknownEvent: no such id was given out, or its stream is forgotten.
        """
        stream, number = self._event(last_event_id)
        if stream.finished and number == stream.last:
            raise NothingLeft("The stream is complete, and this was its last event.")
        return stream, number

    def _event(self, event_id: str) -> tuple[Stream, int]:
        stream_number, dash, number = event_id.partition("-")
        if self.framing.resumable and dash and _is_number(stream_number) and _is_number(number):
            for group in (self._live, self._owed, self._settled):
                stream = group.get(int(stream_number))
                if stream is not None and int(number) <= stream.last:
                    return stream, int(number)
        raise UnknownEvent("The Last-Event-ID is not one of a stream that can still be resumed.")

    def close(self) -> None:
        """The session is over: end all streams. Readers get what is queued for them, nobody gets the rest."""
        self.closed = True
        for stream in [*self._live.values(), *self._owed.values(), *self._settled.values()]:
            stream.end()
            self._place(stream)

    # -- what streams and readers report

    def add(self, stream: Stream, frame: bytes) -> None:
        """Keep one event, for the stream's reader or for later."""
        self._events += 1
        stream.frames.append((self._events, frame))
        stream.size_bytes += len(frame)
        self._hold(len(frame))
        if stream.reader is None:
            self._keep(1, len(frame))
        else:
            stream.reader.push(len(frame))
        self._trim(stream)
        self.pool.relieve()

    def attach(self, reader: Reader) -> None:
        """A connection reads from now on: what it has not seen is its queue."""
        stream = reader.stream
        replay = islice(stream.frames, max(0, reader.position + 1 - stream.first), None)
        sizes = [len(frame) for _, frame in replay]
        reader.grant(len(sizes), sum(sizes))
        self._keep(-len(sizes), -sum(sizes))
        stream.reader = reader
        self.readers += 1
        self.pool.readers += 1
        self._place(stream)

    def written(self, reader: Reader) -> None:
        """A reader has written out what it took: from now on that is kept for a resume, where there is one."""
        self._keep(*reader.pop_written())
        if self.framing.resumable:
            self._trim(reader.stream)
        else:
            while len(reader.stream.frames) > reader.queued_events:
                self._drop(reader.stream)

    def detach(self, reader: Reader) -> None:
        """A connection is over."""
        stream = reader.stream
        stream.reader = None
        self._keep(*reader.pop_all())
        self.readers -= 1
        self.pool.readers -= 1
        self.pool.lagged += reader.ended is Ended.LAGGED
        self._place(stream)
        self._trim(stream)
        self.on_quiet()

    def finished(self, stream: Stream) -> None:
        """Nothing more will come on this stream."""
        if stream.reader is not None:
            stream.reader.wake()
        self._place(stream)
        self.on_quiet()

    # -- room

    def forget(self, stream: Stream) -> None:
        """Keep nothing of a stream: it cannot be resumed any more."""
        self._drop_all(stream)
        for group in (self._live, self._owed, self._settled):
            group.pop(stream.number, None)
        self.pool.settled.pop(stream, None)

    def give_way(self) -> None:
        """Drop half of what is held; where readers have more than that in their queues, end the slowest."""
        goal = self.held_bytes // 2
        while self.kept_events and self.held_bytes > goal:
            self._drop(self._victim())
        readers = [stream.reader for stream in self._live.values() if stream.reader is not None]
        if self.held_bytes > goal and readers:
            max(readers, key=lambda reader: reader.queued_bytes).cut(Ended.LAGGED)

    def _place(self, stream: Stream) -> None:
        """Put a stream in the group that it belongs to now."""
        if stream.reader is None and stream.finished and (self.closed or not stream.frames):
            self.forget(stream)
            return
        group = self._live
        if stream.finished and stream.reader is None:
            group = self._owed if stream.handed < stream.last else self._settled
        if stream.number in group:
            return
        for other in (self._live, self._owed, self._settled):
            other.pop(stream.number, None)
        group[stream.number] = stream
        self.pool.settled.pop(stream, None)
        if group is self._settled:
            self.pool.settle(stream)

    def _trim(self, stream: Stream) -> None:
        """Come back under the bounds, after something happened to this stream."""
        if stream.lasting and stream.reader is None:
            while _is_over(len(stream.frames), stream.size_bytes, UNREAD_MAX_EVENTS, UNREAD_MAX_BYTES):
                self._drop(stream)
        while _is_over(self.kept_events, self.kept_bytes, RING_MAX_EVENTS, RING_MAX_BYTES):
            self._drop(self._victim())

    def _victim(self) -> Stream:
        """The stream whose oldest event is dropped next; asked only while anything is kept."""
        settled = next(iter(self._settled.values()), None)
        if settled is not None:
            return settled
        live = [s for s in self._live.values() if len(s.frames) > (s.reader.queued_events if s.reader else 0)]
        taken = [s for s in live if s.first <= s.handed]
        return min(taken or self._owed.values() or live, key=lambda stream: stream.frames[0][0])

    def _drop(self, stream: Stream) -> None:
        self.pool.lost += stream.first > stream.handed
        _, frame = stream.frames.popleft()
        stream.size_bytes -= len(frame)
        self._keep(-1, -len(frame))
        self._hold(-len(frame))
        if stream.finished and stream.reader is None and not stream.frames:
            self.forget(stream)

    def _drop_all(self, stream: Stream) -> None:
        self._keep(-len(stream.frames), -stream.size_bytes)
        self._hold(-stream.size_bytes)
        stream.frames.clear()
        stream.size_bytes = 0

    def _keep(self, events: int, size: int) -> None:
        self.kept_events += events
        self.kept_bytes += size

    def _hold(self, size: int) -> None:
        self.held_bytes += size
        self.pool.held_bytes += size
        if self.held_bytes:
            self.pool.rings.add(self)
        else:
            self.pool.rings.discard(self)


def _is_over(events: int, size: int, max_events: int, max_bytes: int) -> bool:
    return events > max_events or (size > max_bytes and events > 1)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= NUMBER_MAX_DIGITS
