"""The way to the endpoint and back: a message with its fields goes out, and what comes reaches the client.

Owns what is learnt for the fields on the way, and how a stream that broke is taken up. Decides nothing about sessions
and cancellations; that is `conversation`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio
from attrs import define, field

from controlplane.cli.client import about_token
from controlplane.cli.exits import CommandFailed, Problem
from controlplane.cli.relay.fields import ACCEPT, Marks, modern_fields
from controlplane.cli.relay.flight import RETRY_FIRST_S, RETRY_MOST_S, Flight, last_event, messages, pause, taken_up
from controlplane.cli.relay.frame import Frame, decoded, members, on_one_line, read
from controlplane.cli.relay.problem import error_in, problem_in
from controlplane.cli.relay.upstream import LISTEN_SILENCE_S, Upstream, body_of, is_events
from controlplane.wire.sse import SseParser

if TYPE_CHECKING:
    import httpx

    from controlplane.cli.relay.handshake import Handshake
    from controlplane.cli.relay.pipes import Output

RESUME_FOR_S = 60.0
"""An answer whose stream broke is given up after this long without a connection."""
LINGER_S = 0.25
"""For a stream to end by itself after its answer: then its connection serves the next request."""
MAX_PAGES = 100
"""Of a listing of tools that is asked for because a call was refused; a paginator without end must not hang it."""
EVENTS_ONLY = {"Accept": "text/event-stream"}

Learn = Callable[[Frame, bytes, str | None], None]
"""Told of each answer before the client is: the request, the answer, and a session's id that came with it."""


@define(eq=False)
class Channel:
    """One endpoint and one client's output."""

    upstream: Upstream
    output: Output
    note: Callable[[str], None]
    learn: Learn
    _marks: Marks = field(factory=Marks, init=False)

    def fields(self, frame: Frame, session: Handshake | None) -> dict[str, str]:
        """Return the fields that go with a message."""
        if frame.is_modern:
            return ACCEPT | modern_fields(frame) | self._marks.fields(frame)
        return ACCEPT | (session.fields if session is not None else {})

    async def post(self, flight: Flight) -> bool:
        """Post a request and deliver its answer; False, with nothing delivered, if it can be mended and posted again.

        Raises:
            CommandFailed: it was refused, or the connection broke.
        """
        fields = self.fields(flight.frame, flight.session)
        async with self.upstream.exchange("POST", fields, flight.frame.raw, sent=flight.sent) as response:
            if is_events(response):
                await self._events(response, flight)
                return True
            body = await body_of(response)
            if flight.can_be_mended(response.status_code, body):
                return False
            await self._document(response, body, flight)
            return True

    async def _events(self, response: httpx.Response, flight: Flight) -> None:
        """Deliver a stream's messages until it ends, or a moment after nothing is waited for any more."""
        with trio.CancelScope() as linger:
            async for message in messages(response, flight.parser):
                await self.deliver(message, flight, response)
                if not flight.waiting and linger.deadline == float("inf"):
                    linger.deadline = trio.current_time() + LINGER_S

    async def _document(self, response: httpx.Response, body: bytes, flight: Flight) -> None:
        """Deliver an answer that is no stream.

        Raises:
            CommandFailed: it is none, but a refusal.
        """
        if response.is_success and body.strip():
            await self.deliver(body, flight, response)
        for id_ in sorted(flight.waiting):
            found = error_in(id_, body)
            if found is not None:
                await self.deliver(found, flight, response)
        if flight.waiting and not response.is_success:
            raise CommandFailed(self._refusal(response, body))

    def _refusal(self, response: httpx.Response, body: bytes) -> Problem:
        return problem_in(response.status_code, body, response.headers, about_token(self.upstream.target))

    async def deliver(self, message: bytes, flight: Flight | None, response: httpx.Response) -> None:
        """Hand a message to the client, having learnt from it what the transport must know first."""
        frame = read(message)
        if frame is None:
            self.note("the endpoint sent what is no JSON-RPC message; it was left out")
            return
        if flight is not None and not flight.waiting.isdisjoint(frame.answers):
            flight.waiting.difference_update(frame.answers)
            self.learn(flight.frame, message, response.headers.get("mcp-session-id"))
            if flight.frame.is_modern and flight.frame.method == "tools/list":
                self._learn_tools(message, first_page="cursor" not in flight.frame.params)
        await self.output.write(on_one_line(message))

    def _learn_tools(self, answer: bytes, *, first_page: bool) -> bytes | None:
        """Learn the tools' marks, and return the cursor of the next page."""
        result = members(answer).get("result")
        self._marks.learn(decoded(result), first_page=first_page)
        cursor = members(result).get("nextCursor")
        return None if cursor == b"null" else cursor

    async def ask(self, frame: Frame, session: Handshake | None) -> tuple[bytes, str | None]:
        """Send a message and keep its answer from the client; returns it with the session's id that came along.

        Raises:
            CommandFailed: it was refused, or the connection broke.
        """
        async with self.upstream.exchange("POST", self.fields(frame, session), frame.raw) as response:
            session_id = response.headers.get("mcp-session-id")
            if not is_events(response):
                body = await body_of(response)
                if not response.is_success:
                    raise CommandFailed(self._refusal(response, body))
                return body, session_id
            async for message in messages(response, SseParser()):
                found = read(message)
                if found is not None and found.kind == "response" and found.id == frame.id:
                    return message, session_id
        raise CommandFailed(Problem(title="The server ended its answer before there was one"))

    async def relist(self, call: Frame) -> None:
        """List the tools for a call whose fields were found wrong: its schema says which it needs.

        Raises:
            CommandFailed: that was refused, or the connection broke.
        """
        cursor: bytes | None = None
        for _ in range(MAX_PAGES):
            page = b"" if cursor is None else b',"cursor":' + cursor
            params = b'{"_meta":' + call.params.get("_meta", b"{}") + page + b"}"
            frame = read(b'{"jsonrpc":"2.0","id":"corral-proxy","method":"tools/list","params":' + params + b"}")
            assert frame is not None
            answer, _ = await self.ask(frame, None)
            cursor = self._learn_tools(answer, first_page=cursor is None)
            if cursor is None:
                return

    async def resume(self, flight: Flight, session: Handshake, problem: Problem) -> Problem:
        """Take up an answer's stream where it broke, by the last event that came; returns why it is given up."""
        delay, given_up_at = RETRY_FIRST_S, trio.current_time() + RESUME_FOR_S
        while flight.waiting and trio.current_time() < given_up_at:
            await trio.sleep(pause(flight.parser, delay))
            delay = min(delay * 2, RETRY_MOST_S)
            flight.parser = taken_up(flight.parser)
            try:
                fields = EVENTS_ONLY | session.fields | last_event(flight.parser)
                async with self.upstream.exchange("GET", fields) as response:
                    if not is_events(response):
                        return self._refusal(response, await body_of(response))
                    delay, given_up_at = RETRY_FIRST_S, trio.current_time() + RESUME_FOR_S
                    await self._events(response, flight)
            except CommandFailed as failure:
                problem = failure.problem
        return problem

    async def listen(self, session: Handshake) -> int:
        """Keep the stream open by which the server of a legacy session speaks first; returns the status that ends it."""
        parser, delay = SseParser(), RETRY_FIRST_S
        while True:
            try:
                fields = EVENTS_ONLY | session.fields | last_event(parser)
                async with self.upstream.exchange("GET", fields, silence_s=LISTEN_SILENCE_S) as response:
                    if not is_events(response) and response.status_code < 500 and response.status_code != 409:
                        return response.status_code  # 405: there is none; 404: the session has ended
                    async for message in messages(response, parser):
                        delay = RETRY_FIRST_S
                        await self.deliver(message, None, response)
            except CommandFailed:
                pass  # the next request says what is wrong
            await trio.sleep(pause(parser, delay))
            delay = min(delay * 2, RETRY_MOST_S)
            parser = taken_up(parser)
