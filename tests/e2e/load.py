"""Load from outside while something is broken: callers that check every answer, and readers of event streams."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import count
from typing import TYPE_CHECKING, Any

import httpx
import trio
from attrs import define, field

from controlplane.wire.sse import SseParser
from tests.e2e.plane import POLL_S, text_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.e2e.plane import Plane

PAUSE_S = 0.005
"""Between two calls of one canary, so that several share two cores with what they test."""


async def until(condition: Callable[[], Any], within_s: float, what: str) -> Any:
    """Poll until the condition holds, and return what it returned; an AssertionError if it does not in time."""
    with trio.move_on_after(within_s):
        while not (value := condition()):
            await trio.sleep(POLL_S)
        return value
    raise AssertionError(f"not within {within_s:g} s: {what}")


@define(eq=False)
class Canary:
    """Calls one instance's `echo` all the time. `wrong` holds every answer that was not its own."""

    plane: Plane
    name: str
    answered: int = field(default=0, init=False)
    wrong: list[str] = field(factory=list, init=False)
    took_s: list[float] = field(factory=list, init=False)

    async def run(self) -> None:
        """Until cancelled."""
        async with self.plane.aclient() as http:
            for number in count():
                await self._call(http, f"{self.name} {number} ☃")
                await trio.sleep(PAUSE_S)

    async def _call(self, http: httpx.AsyncClient, nonce: str) -> None:
        began = trio.current_time()
        body = {"method": "tools/call", "params": {"name": "echo", "arguments": {"text": nonce}}}
        try:
            answer = await http.post(f"/mcp/{self.name}/execute", json=body)
        except httpx.HTTPError as error:
            self.wrong.append(repr(error))
            return
        self.took_s.append(trio.current_time() - began)
        if answer.status_code != 200 or text_of(answer) != nonce:
            self.wrong.append(f"{answer.status_code} {answer.text[:500]}")
        else:
            self.answered += 1

    def percentile(self, percent: float) -> float:
        """Seconds within which this share of the calls was answered."""
        return sorted(self.took_s)[min(len(self.took_s) - 1, int(len(self.took_s) * percent / 100))]

    def assert_undisturbed(self) -> None:
        """Every answer was right, and none took longer than a person would wait."""
        assert self.wrong == []
        assert self.answered > 0
        assert self.percentile(99) < 2.5, f"p99 of {self.answered} calls: {self.percentile(99):.3f} s"


@asynccontextmanager
async def canary(plane: Plane, name: str) -> AsyncIterator[Canary]:
    """A canary that calls for as long as the block lasts, and at least once."""
    bird = Canary(plane, name)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bird.run)
        await until(lambda: bird.took_s or bird.wrong, 30, "the first call")
        yield bird
        nursery.cancel_scope.cancel()


@define(eq=False)
class Stream:
    """What one reader of an event stream got. `ended`: the server closed it."""

    events: list[dict[str, Any]] = field(factory=list, init=False)
    last_id: str = field(default="", init=False)
    ended: bool = field(default=False, init=False)

    async def run(
        self, plane: Plane, path: str, task_status: trio.TaskStatus[None], last_event_id: str | None = None
    ) -> None:
        """Read until the server ends it; started once the first event is there."""
        headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        parser = SseParser()
        async with plane.aclient(timeout=None) as http, http.stream("GET", path, headers=headers) as answer:
            assert answer.status_code == 200
            try:
                async for chunk in answer.aiter_raw():
                    first = not self.events
                    for event in parser.feed(chunk):
                        self.events.append(json.loads(event.data))
                        self.last_id = event.id
                    if first and self.events:
                        task_status.started()
            except httpx.HTTPError:
                pass  # killed in the middle of a chunk: what came before it counts
        self.ended = True

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]


@asynccontextmanager
async def stream(plane: Plane, path: str, last_event_id: str | None = None) -> AsyncIterator[Stream]:
    """Read an event stream for as long as the block lasts."""
    reader = Stream()

    async def run(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await reader.run(plane, path, task_status, last_event_id)

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        yield reader
        nursery.cancel_scope.cancel()


def seconds_between(earlier: dict[str, Any], later: dict[str, Any]) -> float:
    """Between two events, by their own times."""
    return (moment(later["timestamp"]) - moment(earlier["timestamp"])).total_seconds()


def moment(text: str) -> datetime:
    """An RFC 3339 time of the API."""
    return datetime.fromisoformat(text)
