"""Server-sent events, the reading side: bytes in, events out.

Pure and incremental: the caller feeds whatever chunks arrive and gets the events that they complete, by the parsing
rules of the WHATWG HTML standard, section 9.2.6. Owns no connection, no reconnection and no clock; refuses a stream
whose line or event outgrows its bound, because a peer that never ends a line must not fill our memory.
"""

from __future__ import annotations

import re

from attrs import define, field, frozen

MAX_EVENT_BYTES = 32 * 1024 * 1024
"""Bytes of one event's data, and of one line: twice the longest message that an instance may send (16 MiB)."""
MAX_RETRY_DIGITS = 9
"""Digits of a `retry` field that count: beyond about 11 days a reconnection time is noise."""

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class SseTooLong(ValueError):
    """A line or an event is longer than the parser was told to keep; the stream cannot be read on."""


@frozen
class SseEvent:
    """One dispatched event.

    Args:
        data: The `data` fields, joined by line feeds.
        event: The event's type; `message` where the stream names none.
        id: The last `id` seen so far, this event's included: what to send as `Last-Event-ID` after it.
    """

    data: str
    event: str = "message"
    id: str = ""


@define
class SseParser:
    """An incremental parser of one stream; make a new one for each connection.

    Args:
        max_event_bytes: Bound of one line and of one event's data.
        last_event_id: Where an earlier connection left off; moves on as events are dispatched, never for half of one.
    """

    max_event_bytes: int = MAX_EVENT_BYTES
    last_event_id: str = ""
    retry_ms: int | None = None
    """The reconnection time that the stream asked for, milliseconds."""

    _partial: list[bytes] = field(factory=list, init=False)
    _partial_bytes: int = field(default=0, init=False)
    _after_cr: bool = field(default=False, init=False)
    _at_start: bool = field(default=True, init=False)
    _id: str = field(init=False)
    _event: str = field(default="", init=False)
    _data: list[str] = field(factory=list, init=False)
    _data_bytes: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._id = self.last_event_id

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """Take the next bytes and return the events that they complete, oldest first.

        What follows the last blank line waits for more; at the end of the stream it is dropped, as the standard says.

        Raises:
            SseTooLong: a line or an event outgrew `max_event_bytes`.
        """
        if not chunk:
            return []
        if self._after_cr and chunk.startswith(b"\n"):  # the second half of a CRLF cut in two
            chunk = chunk[1:]
        self._after_cr = chunk.endswith(b"\r")
        lines = _LINE_END.split(chunk)
        remainder = lines.pop()
        events = []
        for line in lines:
            event = self._take_line(self._whole(line))
            if event is not None:
                events.append(event)
        self._keep(remainder)
        return events

    def _keep(self, piece: bytes) -> None:
        """Keep a line's beginning; pieces are joined once, so that a long line in small chunks stays linear."""
        if piece:
            self._partial.append(piece)
            self._partial_bytes += len(piece)
            self._check(self._partial_bytes)

    def _whole(self, end: bytes) -> bytes:
        self._keep(end)
        line = b"".join(self._partial)
        self._partial.clear()
        self._partial_bytes = 0
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        return line

    def _check(self, size: int) -> None:
        if size > self.max_event_bytes:
            raise SseTooLong(f"an event or a line of it is longer than {self.max_event_bytes} bytes")

    def _take_line(self, line: bytes) -> SseEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        text = value.removeprefix(b" ").decode("utf-8", "replace")
        match name:
            case b"data":
                self._data_bytes += len(line) + 1
                self._check(self._data_bytes)
                self._data.append(text)
            case b"event":
                self._event = text
            case b"id" if "\0" not in text:
                self._id = text
            case b"retry" if text.isascii() and text.isdigit():
                self.retry_ms = int(text[:MAX_RETRY_DIGITS])
            case _:
                pass  # a comment (empty name) or an unknown field: ignored by the standard
        return None

    def _dispatch(self) -> SseEvent | None:
        event = None
        self.last_event_id = self._id
        if self._data:
            event = SseEvent("\n".join(self._data), self._event or "message", self.last_event_id)
        self._event = ""
        self._data.clear()
        self._data_bytes = 0
        return event
