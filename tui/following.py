"""Event streams that outlive their connections: taken up again with growing pauses, from the last event seen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from attrs import frozen

from tui.client import Api, Failure, Query

RETRY_FIRST_S, RETRY_MOST_S = 0.25, 5.0
"""Between two attempts; doubled each time, so that a server that comes back is noticed soon and none is hammered."""


@frozen
class Told:
    """One event of the stream."""

    document: dict[str, Any]


@frozen
class Broken:
    """The connection is gone; the next attempt follows by itself."""

    failure: Failure
    attempt: int


async def follow(
    api: Api, path: str, query: Query | None = None, *, again: Query | None = None
) -> AsyncIterator[Told | Broken]:
    """Yield what a stream tells, and each time that it breaks; ends when the server refuses for good.

    Args:
        api: Whom to ask.
        path: The stream's path.
        query: Query members of the first connection.
        again: Of the later ones, where they differ: a follower does not want its backlog twice.

    Raises:
        Failure: the server refused, and would again.
    """
    last_event_id, attempt = "", 0
    while True:
        try:
            async for event in api.events(path, query=query, last_event_id=last_event_id):
                last_event_id, attempt = event.id or last_event_id, 0
                document = _document(event.data)
                if document is not None:
                    yield Told(document)
            failure = Failure("The server ended the stream", code="away")
        except Failure as refused:
            if not refused.is_passing:
                raise
            failure = refused
        attempt += 1
        yield Broken(failure, attempt)
        await asyncio.sleep(min(RETRY_FIRST_S * 2 ** (attempt - 1), RETRY_MOST_S))
        query = query if again is None else again


def _document(data: str) -> dict[str, Any] | None:
    """An event's object; None for what is none, which nobody can make anything of."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
