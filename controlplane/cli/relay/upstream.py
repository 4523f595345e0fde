"""The instance's endpoint: one HTTP exchange at a time, with every failure mapped to a problem.

Owns the connection pool and its bounds; nothing of httpx's failures leaves this module. Knows no message.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import httpx
import trio
from attrs import define, field

from controlplane.cli.client import CONNECT_TIMEOUT_S, lost
from controlplane.cli.exits import CommandFailed, Problem

if TYPE_CHECKING:
    from controlplane.cli.target import Target

ANSWER_SILENCE_S = 330.0
"""Without a byte of an answer: longer than a call may take by default; an event stream has a comment every 15 s."""
LISTEN_SILENCE_S = 45.0
"""Without a byte of a stream that is only listened to: three of its comments."""
WRITE_S = 30.0
"""For the endpoint to take one piece of a message."""
CLOSE_S = 1.0
"""For a connection that is left early to close."""
IDLE_CONNECTIONS = 8
"""Kept open for the next request."""
MAX_BODY_BYTES = 32 * 1024 * 1024
"""Of an answer that is no stream: twice the longest message that an instance may send."""

SENT = ("http11.send_request_body.complete", "http2.send_request_body.complete")


@define(eq=False)
class Upstream:
    """One endpoint, as one client sees it."""

    url: str
    target: Target
    _http: httpx.AsyncClient = field(init=False)

    def __attrs_post_init__(self) -> None:
        headers = {"User-Agent": "corral-proxy"}
        if self.target.token:
            headers["Authorization"] = f"Bearer {self.target.token}"
        # A proxy named in the environment must not see what is meant for this machine.
        self._http = httpx.AsyncClient(
            headers=headers,
            trust_env=not self.target.is_loopback,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=IDLE_CONNECTIONS),
        )

    async def close(self) -> None:
        await self._http.aclose()

    @asynccontextmanager
    async def exchange(
        self,
        method: str,
        headers: Mapping[str, str],
        content: bytes | None = None,
        *,
        silence_s: float = ANSWER_SILENCE_S,
        sent: trio.Event | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """Send a request; the answer's body is read inside, and cut when the block is left early.

        Args:
            method: The HTTP method.
            headers: The fields of this request.
            content: The message.
            silence_s: Seconds without a byte after which the connection counts as broken.
            sent: Set once the message has left.

        Raises:
            CommandFailed: no connection, or it broke.
        """

        async def trace(event: str, _info: Mapping[str, Any]) -> None:
            if event in SENT and sent is not None:
                sent.set()

        timeout = httpx.Timeout(silence_s, connect=CONNECT_TIMEOUT_S, write=WRITE_S, pool=None)
        request = self._http.build_request(
            method, self.url, content=content, headers=dict(headers), timeout=timeout, extensions={"trace": trace}
        )
        try:
            response = await self._http.send(request, stream=True)
            try:
                yield response
            finally:
                with trio.move_on_after(CLOSE_S, shield=True), suppress(httpx.HTTPError):
                    await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise lost(self.target, error) from error


def is_events(response: httpx.Response) -> bool:
    """Whether an answer is an event stream."""
    return response.is_success and response.headers.get("content-type", "").startswith("text/event-stream")


async def body_of(response: httpx.Response) -> bytes:
    """Read a whole body.

    Raises:
        CommandFailed: it is longer than any message may be.
    """
    pieces, held = [], 0
    async for piece in response.aiter_bytes():
        held += len(piece)
        if held > MAX_BODY_BYTES:
            raise CommandFailed(Problem(title="The answer is longer than a message may be"))
        pieces.append(piece)
    return b"".join(pieces)
