"""The conversation of one client with one instance: every line it writes, and everything that comes back.

Owns the requests in flight and the legacy session. What the eras differ in is here: a legacy client has a session, a
stream to listen to, and cancels by a message; a modern one has none of these, and cancels by leaving.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from attrs import define, field

from controlplane.cli.exits import CommandFailed, Problem
from controlplane.cli.relay.channel import Channel
from controlplane.cli.relay.flight import Flight
from controlplane.cli.relay.frame import PARSE_ERROR, Frame, error, members, read
from controlplane.cli.relay.handshake import Handshake
from controlplane.cli.relay.problem import error_of, sentence

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable

    from controlplane.cli.relay.pipes import Output
    from controlplane.cli.relay.upstream import Upstream

MAX_FLIGHTS = 256
"""Requests in flight; an instance takes 64."""
SEND_LIMIT_S = 10.0
"""For a message to leave before the next one is read, which keeps their order."""
INITIALIZE_LIMIT_S = 60.0
"""For an initialize to be answered before the next message is read: it belongs to the session that this makes."""
TELL_LIMIT_S = 10.0
"""For the endpoint to take a notification, which it answers at once; the next message waits for that."""
DRAIN_S = 1.0
"""For answers under way when the client closes its side; clients wait about 2 s before they kill."""
GOODBYE_S = 0.5
"""For the endpoint to end the session."""
LISTEN = "subscriptions/listen"
CANCELLED = "notifications/cancelled"

_NO_ANSWER = Problem(title="The server ended its answer before there was one")
_ENDED = Problem(
    title="The session has ended",
    detail="the server is not what it was when the client connected",
    hint="Restart this server in your client.",
)


@define(eq=False)
class Conversation:
    """One client and one endpoint."""

    upstream: Upstream
    output: Output
    note: Callable[[str], None]
    """Tells the operator a sentence; clients keep standard error as the server's log."""
    _session: Handshake | None = field(default=None, init=False)
    _flights: dict[bytes, Flight] = field(factory=dict, init=False)
    _landed: trio.Event = field(factory=trio.Event, init=False)
    _renewal: trio.Lock = field(factory=trio.Lock, init=False)
    _listening: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    _channel: Channel = field(init=False)
    _nursery: trio.Nursery = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._channel = Channel(self.upstream, self.output, self.note, self._learn)

    async def run(self, lines: AsyncIterable[bytes | None]) -> None:
        """Carry on until the client closes its side, then give answers under way a moment."""
        async with trio.open_nursery() as self._nursery:
            async for line in lines:
                await self._take(line)
            with trio.move_on_after(DRAIN_S):
                while any(flight.waiting and flight.frame.method != LISTEN for flight in self._flights.values()):
                    await self._landed.wait()
            self._nursery.cancel_scope.cancel()

    async def end(self) -> None:
        """End the session, if there is one; bounded, whatever the endpoint does."""
        session = self._session
        if session is None or session.session_id is None:
            return
        with trio.move_on_after(GOODBYE_S, shield=True):
            try:
                async with self.upstream.exchange("DELETE", session.fields):
                    pass
            except CommandFailed as failure:
                self.note(sentence(failure.problem))

    # -- what the client says

    async def _take(self, line: bytes | None) -> None:
        frame = None if line is None else read(line)
        if frame is None:
            if line is None or line.strip():
                reason = "The line is no JSON-RPC message." if line else "The line is too long."
                await self.output.write(error(None, PARSE_ERROR, reason))
        elif frame.asks:
            await self._begin(frame)
        elif frame.method == CANCELLED and self._left(frame):
            return
        else:
            await self._tell(frame)

    def _left(self, frame: Frame) -> bool:
        """Whether a cancellation was one of a modern request: those are cancelled by leaving."""
        flight = self._flights.get(frame.params.get("requestId", b""))
        if flight is not None and flight.frame.is_modern:
            flight.scope.cancel()
            return True
        return flight is None and self._session is None

    async def _begin(self, frame: Frame) -> None:
        """Start a request, and wait until it has left."""
        if len(self._flights) >= MAX_FLIGHTS:
            problem = Problem(title=f"{MAX_FLIGHTS} requests are under way", hint="Wait for answers first.")
            for id_ in frame.asks:
                await self.output.write(error_of(id_, problem))
            return
        session = None if frame.is_modern or frame.method == "initialize" else self._session
        flight = Flight(frame, session, set(frame.asks))
        self._flights |= dict.fromkeys(frame.asks, flight)
        self._nursery.start_soon(self._fly, flight)
        with trio.move_on_after(SEND_LIMIT_S):
            await flight.sent.wait()
        if frame.method == "initialize":
            with trio.move_on_after(INITIALIZE_LIMIT_S):
                while flight in self._flights.values():
                    await self._landed.wait()

    async def _tell(self, frame: Frame) -> None:
        """Send a notification, or an answer to the server."""
        try:
            fields = self._channel.fields(frame, self._session)
            async with self.upstream.exchange("POST", fields, frame.raw, silence_s=TELL_LIMIT_S) as response:
                if not response.is_success:
                    self.note(f"{frame.method or 'an answer'} was refused: HTTP {response.status_code}")
        except CommandFailed as failure:
            self.note(sentence(failure.problem))
        if frame.method == "notifications/initialized" and self._session is not None:
            self._session.initialized = frame
            self._start_listening(self._session)
        elif frame.method == CANCELLED:
            self._forget(frame)

    def _forget(self, frame: Frame) -> None:
        """Wait no longer for an answer that the client has told the server it does not want."""
        flight = self._flights.get(frame.params.get("requestId", b""))
        if flight is not None and len(flight.frame.asks) == 1:
            flight.scope.cancel()

    # -- one request

    async def _fly(self, flight: Flight) -> None:
        """Carry one request to its answer: a result, an error, or our own word that there is none."""
        try:
            with flight.scope:
                problem = await self._outcome(flight)
                for id_ in sorted(flight.waiting):
                    await self.output.write(error_of(id_, problem))
        finally:
            flight.sent.set()
            for id_ in flight.frame.asks:
                if self._flights.get(id_) is flight:
                    del self._flights[id_]
            self._landed.set()
            self._landed = trio.Event()

    async def _outcome(self, flight: Flight) -> Problem:
        """Exchange, take up again what broke, and return what to say where an answer is still missing."""
        problem = _NO_ANSWER
        try:
            await self._exchange(flight)
        except CommandFailed as failure:
            problem = failure.problem
        if flight.waiting and flight.session is not None and flight.parser.last_event_id:
            return await self._channel.resume(flight, flight.session, problem)
        return problem

    async def _exchange(self, flight: Flight) -> None:
        """Post the request and deliver what comes; once more, if it was refused for what can be mended here.

        Raises:
            CommandFailed: it was refused, or the connection broke.
        """
        if await self._channel.post(flight):
            return
        if flight.session is not None:
            flight.session = await self._renewed(flight.session)
        else:
            await self._channel.relist(flight.frame)
        flight.mended()
        await self._channel.post(flight)

    # -- the legacy session

    def _learn(self, asked: Frame, answer: bytes, session_id: str | None) -> None:
        if asked.method == "initialize":
            self._listening.cancel()
            self._session = Handshake.of(asked, answer, session_id)
        elif self._session is not None and not asked.is_modern and "result" in members(answer):
            self._session.note(asked)

    def _start_listening(self, session: Handshake) -> None:
        self._listening.cancel()
        self._listening = trio.CancelScope()
        if session.session_id is not None:
            self._nursery.start_soon(self._listen, session, self._listening)

    async def _listen(self, session: Handshake, scope: trio.CancelScope) -> None:
        """Listen, and begin a session anew that ended while the client had nothing to ask."""
        status = 0
        with scope:
            status = await self._channel.listen(session)
        if status != 404:
            return
        try:
            await self._renewed(session)
        except CommandFailed as failure:
            self.note(sentence(failure.problem))

    async def _renewed(self, stale: Handshake) -> Handshake:
        """Begin the session anew, once for all who found it ended.

        Raises:
            CommandFailed: that failed, or the server is not what it was.
        """
        async with self._renewal:
            if self._session is not None and self._session is not stale:
                return self._session
            session = stale.renewed(*await self._channel.ask(stale.initialize, None))
            if session is None:
                raise CommandFailed(_ENDED)
            for frame in stale.said():
                await self._channel.ask(frame, session)
            self._session = session
            self._start_listening(session)
            self.note("the session had ended; it was begun anew")
        for change in session.changes():
            await self.output.write(change)
        return session
