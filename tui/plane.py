"""One control plane under the dashboard: its API, its board, and the loops that keep the board true.

One connection carries the whole fleet. After each break the fleet is read anew, so that nothing rests on events that
may be gone; while the server is away the board keeps its last picture.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import define, field

from tui.board.board import Board, Touched
from tui.client import Api, Failure
from tui.following import RETRY_MOST_S, Broken, Told, follow

if TYPE_CHECKING:
    from tui.board.link import LinkState
    from tui.contexts import Context

HEALTH_EVERY_S = 5.0
"""Between two looks at `/health`; administrators hear of a change sooner, by an event."""
REFUSED_AGAIN_S = 10.0
"""A refused token is tried again: it may have been made valid in the meantime."""


@define(eq=False)
class Plane:
    """A control plane by its context. `on_change` is told of every change of the board, many times a second."""

    context: Context
    on_change: Callable[[Touched], None]
    read_only: bool = False
    clock: Callable[[], float] = time.time
    api: Api = field(init=False)
    board: Board = field(factory=Board, init=False)
    kept: dict[str, Any] = field(factory=dict, init=False, repr=False)
    """What a screen keeps from one visit to the next, by the screen's place: a form half filled in."""

    def __attrs_post_init__(self) -> None:
        self.read_only = self.read_only or self.context.read_only
        self.api = Api(self.context, read_only=self.read_only)

    async def run(self) -> None:
        """Service loop: follow the fleet until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_fleet())
            tasks.create_task(self._watch_health())

    async def close(self) -> None:
        await self.api.close()

    async def refresh(self) -> None:
        """Read the whole fleet.

        Raises:
            Failure: the server is away or refused.
        """
        documents = await self.api.pages("/instances", "instances")
        self.on_change(self.board.take_fleet(documents, self.clock()))

    async def _follow_fleet(self) -> None:
        while True:
            try:
                async for said in follow(self.api, "/events"):
                    if isinstance(said, Told):
                        await self._hear(said.document)
                    else:
                        self._lose(said)
            except Failure as failure:
                state: LinkState = "away" if failure.is_passing else "refused"
                self.on_change(self.board.take_link(state, self.clock(), str(failure), hint=failure.hint))
            await asyncio.sleep(RETRY_MOST_S if self.board.link.state == "away" else REFUSED_AGAIN_S)

    async def _hear(self, event: dict[str, Any]) -> None:
        now = self.clock()
        if event.get("type") == "connected":
            await self.refresh()
            self.on_change(self.board.take_link("live", self.clock()))
        self.on_change(self.board.take_event(event, now))

    def _lose(self, broken: Broken) -> None:
        failure = broken.failure
        self.on_change(self.board.take_link("away", self.clock(), str(failure), broken.attempt, failure.hint))

    async def _watch_health(self) -> None:
        while True:
            try:
                self._take_health(await self.api.get("/health"))
            except Failure as failure:
                self._take_health(failure.document)  # an unhealthy one answers 503, and still says what is away
            await asyncio.sleep(HEALTH_EVERY_S)

    def _take_health(self, document: Any) -> None:
        if isinstance(document, dict) and "services" in document:
            self.on_change(self.board.take_health(document, self.clock()))
