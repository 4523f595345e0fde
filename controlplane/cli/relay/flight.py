"""A request under way, and the streams that its answer comes by.

Owns no connection: what one connection brought is kept here, so that the next one can take it up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from attrs import define, field

from controlplane.cli.exits import CommandFailed, Problem
from controlplane.cli.relay.frame import decoded, members
from controlplane.wire.sse import SseParser, SseTooLong

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from controlplane.cli.relay.frame import Frame
    from controlplane.cli.relay.handshake import Handshake

RETRY_FIRST_S, RETRY_MOST_S = 0.5, 5.0
"""Between two attempts to take up a stream; doubled each time, unless the endpoint asks for another time."""
HEADER_MISMATCH = -32020


@define(eq=False)
class Flight:
    """A request under way.

    Args:
        frame: The request, or a batch.
        session: The session that it is sent in; None in the modern era and for an initialize.
        waiting: The ids that no answer came for yet.
    """

    frame: Frame
    session: Handshake | None
    waiting: set[bytes]
    scope: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    sent: trio.Event = field(factory=trio.Event, init=False)
    parser: SseParser = field(factory=SseParser, init=False)
    is_second: bool = field(default=False, init=False)
    """It was posted before, and refused for what has been mended."""

    def can_be_mended(self, status: int, body: bytes) -> bool:
        """Whether a refusal is of an ended session, or of fields that a tool's schema asks for; nothing was done."""
        if self.is_second:
            return False
        if self.session is not None:
            return status == 404 and self.session.session_id is not None
        if status != 400 or self.frame.method != "tools/call":
            return False
        return bool(decoded(members(members(body).get("error")).get("code")) == HEADER_MISMATCH)

    def mended(self) -> None:
        """Make ready to be posted once more."""
        self.parser, self.is_second = SseParser(), True


def last_event(parser: SseParser) -> dict[str, str]:
    """Return the field that says where a stream broke; none for what no field can carry."""
    last = parser.last_event_id
    return {"Last-Event-ID": last} if last and last.isascii() and last.isprintable() else {}


def taken_up(parser: SseParser) -> SseParser:
    """Return the parser for the next connection of the same stream."""
    return SseParser(last_event_id=parser.last_event_id, retry_ms=parser.retry_ms)


def pause(parser: SseParser, delay: float) -> float:
    """Return the seconds until the next connection: what the endpoint asks for, or this delay."""
    return delay if parser.retry_ms is None else min(parser.retry_ms / 1000, RETRY_MOST_S)


async def messages(response: httpx.Response, parser: SseParser) -> AsyncIterator[bytes]:
    """Yield a stream's messages.

    Raises:
        CommandFailed: the stream cannot be read on.
    """
    async for chunk in response.aiter_bytes():
        try:
            events = parser.feed(chunk)
        except SseTooLong as error:
            raise CommandFailed(Problem(title="The stream cannot be read", detail=str(error))) from error
        for event in events:
            if event.event == "message" and event.data:
                yield event.data.encode()
