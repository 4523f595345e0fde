"""Several servers deployed one after the other, a line each."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from controlplane.wire.text import clean
from tui.deploying.batch import ITEM_COLUMNS
from tui.deploying.sending import Deployment, Parcel
from tui.screens.base import BoardScreen
from tui.screens.course import problem_lines
from tui.widgets.grid import Grid
from tui.working import set_to_work

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.widget import Widget

    from tui.deploying.batch import Batch, Item
    from tui.plane import Plane

LOOK_EVERY_S = 0.1
PAUSE_S = 15.0
"""The server counts deploys by the minute: after this there is room for another one, or soon will be."""
PATIENCE = 8
POINTLESS = (401, 403)
"""Refusals that the next server would meet as well."""


async def deploy_all(plane: Plane, batch: Batch) -> None:
    """Deploy each; one that fails holds up none of the others, unless they would all fail as it did."""
    for item in batch.items:
        if batch.is_stopped:
            item.state, item.note = "skipped", "stopped before its turn"
            continue
        await _deploy(plane, item)
        failure = item.failure
        if failure is not None and (failure.status in POINTLESS or (failure.code in {"away", "read_only"})):
            batch.is_stopped = True
    batch.is_over = True


async def _deploy(plane: Plane, item: Item) -> None:
    parcel = Parcel(name=item.entry.name, document=item.entry.request or {})
    for _ in range(PATIENCE):
        item.state, item.note, item.failure = "going", "", None
        deployment = Deployment(plane.api, parcel, plane.clock, ExitStack())
        await _watched(deployment, item)
        if item.failure is None or item.failure.code != "rate_limited":
            return
        item.state, item.note = "next", "deploys are limited by the minute: waiting"
        await asyncio.sleep(PAUSE_S)


async def _watched(deployment: Deployment, item: Item) -> None:
    """Run one, with its phase in its line."""
    running = asyncio.ensure_future(deployment.run())
    try:
        while not running.done():
            await asyncio.wait([running], timeout=LOOK_EVERY_S)
            phases = deployment.course.phases
            item.note = phases[-1].name if phases else ""
    finally:
        running.cancel()
    item.instance_id, failure = deployment.course.instance_id, deployment.failure
    if failure is None:
        item.state = "running" if deployment.course.state == "running" else "waiting"
        item.note = ""
    elif failure.code == "conflict":
        item.state, item.note = "skipped", "there is one of this name already"
    else:
        item.state, item.failure = "failed", failure
        item.note = clean(failure.detail or failure.title)


class BatchScreen(BoardScreen):
    """Begins when it is opened; leaving it lets the rest go on."""

    crumbs = ("fleet", "deploy", "mcpServers")
    DEFAULT_CSS = """
    BatchScreen > #sum { height: 1; padding: 0 1; background: $surface; }
    BatchScreen > VerticalScroll { height: auto; max-height: 40%; padding: 0 1; display: none; }
    BatchScreen > VerticalScroll.-on { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+x", "stop", "Stop before the next"),
        Binding("escape", "leave", "Back", show=False),
    ]

    def __init__(self, batch: Batch) -> None:
        super().__init__()
        self._batch = batch

    def body(self) -> ComposeResult:
        yield Static(id="sum", markup=False)
        yield Grid(ITEM_COLUMNS, lambda item: item.key, clock=self.plane.clock)
        with VerticalScroll(can_focus=False):
            yield Static(id="why")

    def main_widget(self) -> Widget:
        return self.query_one(Grid)

    def on_mount(self) -> None:
        self.query_one(Grid).show(self._batch.items)
        self.set_interval(LOOK_EVERY_S, self._look)
        dashboard, plane, batch = self.dashboard, self.plane, self._batch

        async def run() -> None:
            await deploy_all(plane, batch)
            plane.kept.pop("deploy", None)
            if dashboard.screen is not self:
                dashboard.notify(f"mcpServers: {batch.summary()}", markup=False)

        set_to_work(dashboard, run, group="deploys", exit_on_error=False)

    def _look(self) -> None:
        grid, batch = self.query_one(Grid), self._batch
        grid.touch(item.key for item in batch.items)
        text = batch.summary() + ("   enter opens one" if batch.is_over else "   esc leaves the rest to go on")
        self.query_one("#sum", Static).update(Content(text))
        item = grid.current
        failure = item.failure if item is not None else None
        self.query_one(VerticalScroll).set_class(failure is not None, "-on")
        if failure is not None:
            self.query_one("#why", Static).update(Content("\n").join(problem_lines(failure)))

    def on_grid_chosen(self, message: Grid.Chosen) -> None:
        item = next(item for item in self._batch.items if item.key == message.key)
        if item.instance_id:
            self.dashboard.open_instance(item.instance_id)
        else:
            self.dashboard.warn(f"There is no {item.entry.name} to open")

    def action_stop(self) -> None:
        if not self._batch.is_over:
            self._batch.is_stopped = True
            self.notify("The one under way is the last", markup=False)

    def action_leave(self) -> None:
        if not self._batch.is_over:
            self.notify("The rest goes on by itself; the fleet shows how", markup=False)
        self.dashboard.call_later(self.dashboard.action_back)
