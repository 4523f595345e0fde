"""Hearing of changes by LISTEN: one connection, watched, replaced when it is lost; plain asyncio.

A NOTIFY that is sent while nobody listens is lost for ever. So a lost connection is
reported at once, and after every new LISTEN the listener is told to read everything
again. An idle connection tells nothing of a frozen server: it is asked every 2 s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import asyncpg
from attrs import define

from controlplane.store.failures import NoConnection, read
from controlplane.store.pool import connect
from controlplane.store.values import Change, Subject

log = logging.getLogger(__name__)

CHANNEL = "mcp_changes"
BEAT_S = 2.0
"""Between two questions on an idle connection; with `BEAT_TIMEOUT_S` a loss is known within 4 s."""
BEAT_TIMEOUT_S = 2.0
RETRY_MIN_S, RETRY_MAX_S = 0.1, 2.0
"""Between attempts to listen again, doubling."""


def change_of(payload: str) -> Change:
    """Read a notification; one that makes no sense means anything may have changed."""
    subject, colon, key = payload.partition(":")
    try:
        return Change(Subject(subject), key) if colon else Change(Subject.EVERYTHING)
    except ValueError:
        return Change(Subject.EVERYTHING)


@define(eq=False)
class Ear:
    """Listens until cancelled. `tell` gets every change, `lost` the reason of each loss, once; neither may wait."""

    url: str
    tell: Callable[[Change], None]
    lost: Callable[[str], None]
    listening: bool = False
    _deaf: bool = False

    async def listen(self) -> None:
        delay = RETRY_MIN_S
        while True:
            try:
                await self._listen_once()
            except (
                OSError,
                NoConnection,
                asyncpg.PostgresError,
                asyncpg.InterfaceError,
                asyncpg.InternalClientError,
            ) as error:
                delay = RETRY_MIN_S if self.listening else min(RETRY_MAX_S, delay * 2)
                self._report(read(error).reason)
            await asyncio.sleep(delay)

    def _report(self, reason: str) -> None:
        self.listening = False
        if not self._deaf:
            self._deaf = True
            self.lost(reason)

    async def _listen_once(self) -> None:
        connection = await connect(self.url, command_timeout_s=BEAT_TIMEOUT_S)
        try:
            await connection.add_listener(CHANNEL, self._heard)
            self.listening, self._deaf = True, False
            self.tell(Change(Subject.EVERYTHING))
            while True:
                await _wait_closed(connection, BEAT_S)
                await connection.execute("SELECT 1")
        finally:
            connection.terminate()

    def _heard(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        self.tell(change_of(payload))


async def _wait_closed(connection: Any, seconds: float) -> None:
    """Wait until the connection is lost, at most `seconds`."""
    closed = asyncio.Event()

    def note(_connection: Any) -> None:
        closed.set()

    connection.add_termination_listener(note)
    try:
        await asyncio.wait_for(closed.wait(), seconds)
    except TimeoutError:
        return
    finally:
        connection.remove_termination_listener(note)
