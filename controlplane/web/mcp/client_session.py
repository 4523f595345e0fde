"""One legacy client's HTTP session: its streams, and on which of them a message goes.

Each message goes out on one stream and no other (MCP 2025-11-25, transports,
multiple connections). What a server says in the course of a call belongs on
that call's stream, whether its connection is there or broken: the client
resumes. Who may use a session, and when it ends, is `sessions.py`'s business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio
from attrs import define, field

from controlplane.web.mcp.questions import Questions
from controlplane.web.mcp.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from controlplane.web.mcp.pool import Pool
    from controlplane.web.mcp.streams import Framing, Stream


@define(eq=False, kw_only=True)
class ClientSession:
    """One legacy client's session; made by `SessionTable.create`.

    `lane`, `membership`, `calls` (raw JSON-RPC id -> call in flight) and `asked` (the server's raw id of what it asked
    in the course of a call -> the one towards the client) belong to whoever serves the session.
    """

    id: str = field(repr=False)
    user: str
    instance_id: UUID
    version: str
    capabilities_raw: bytes = field(repr=False)
    client_info_raw: bytes = field(repr=False)
    touched: float
    """When something last happened on it."""
    _pool: Pool = field(repr=False)
    _framing: Framing = field(repr=False)
    _clock: Callable[[], float] = field(repr=False)
    _ring: Ring = field(init=False, repr=False)
    log_level: str | None = None
    is_beginning: bool = False
    """With HTTP+SSE: its `initialize` has come, and is not answered yet."""
    lane: Any = field(default=None, repr=False)
    membership: Any = field(default=None, repr=False)
    calls: dict[bytes, Any] = field(factory=dict, init=False, repr=False)
    asked: dict[bytes, str] = field(factory=dict, init=False, repr=False)
    questions: Questions = field(factory=Questions, init=False, repr=False)
    closed: trio.Event = field(factory=trio.Event, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._ring = Ring(self._pool, self._framing, self.touch)

    @property
    def is_resumable(self) -> bool:
        """Whether its streams can be resumed: not with HTTP+SSE, whose one stream is the session."""
        return self._framing.resumable

    @property
    def busy(self) -> bool:
        """Whether a stream of it is read or a call is in flight: then it is not idle."""
        return bool(self.calls) or self.is_read

    @property
    def is_read(self) -> bool:
        """Whether the client is connected to any of its streams."""
        return self._ring.readers > 0

    def touch(self) -> None:
        """Something happened on it: it is not idle for a good while from now."""
        self.touched = self._clock()

    # -- streams

    @property
    def standalone(self) -> Stream:
        """The session's own stream: what GET reads, and the only one of HTTP+SSE."""
        return self._ring.standalone

    def open_stream(self) -> Stream:
        """A stream for a POST; whoever opens it must `finish` it. With HTTP+SSE it is the session's own.

        Raises:
            Busy: too many are open.
        """
        return self._ring.open()

    def deliver(self, message: bytes, related: Stream | None = None) -> Stream:
        """Send a message that is no response, on one stream and no other; return which.

        On the stream of the request that it belongs to, if that is still open; else on one that somebody
        reads: the session's own, or the newest of a POST; else it is kept for who reads the session's own next.
        """
        stream = self._stream_for(related)
        stream.post(message)
        return stream

    def _stream_for(self, related: Stream | None) -> Stream:
        if related is not None and self._ring.takes(related):
            return related
        if self.standalone.is_read:
            return self.standalone
        return self._ring.newest_read() or self.standalone

    def resume(self, last_event_id: str) -> tuple[Stream, int]:
        """Find where a client whose connection broke goes on; give both to `streams.relay`.

        A finished stream gives what is left of it and ends; one that is open goes on until it is finished.

        Raises:
            NothingLeft: the client has seen all of a finished stream.
            UnknownEvent: the id was never given out, or the stream is gone.
        """
        return self._ring.resume(last_event_id)

    # -- requests of the server to the client

    def ask(self, asked_by: Any, method: str, params: bytes | None) -> tuple[str, bytes]:
        """Note a request of the server; return its id towards the client, and the message to `deliver`.

        Raises:
            TooManyQuestions: the client leaves too many unanswered.
        """
        return self.questions.ask(asked_by, method, params)

    def answered(self, raw_id: bytes) -> Any | None:
        """Who asked what a posted response answers; None if that is nobody, any more."""
        return self.questions.answered(raw_id)

    def withdraw(self, own_id: str) -> Any | None:
        """The server no longer waits for an answer to this; returns who asked, if it was open."""
        return self.questions.withdraw(own_id)

    def close(self) -> None:
        """End the streams; called by the table."""
        self._ring.close()
        self.closed.set()
