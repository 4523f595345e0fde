"""The host page: the control plane, what it needs, its machine, and what can be run there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Static

from controlplane.wire.units import duration
from tui.board.host_facts import sections
from tui.client import Failure
from tui.panes.overview import Page
from tui.screens.base import BoardScreen
from tui.widgets.factsheet import FactSheet
from tui.working import set_to_work

if TYPE_CHECKING:
    from textual import events
    from textual.app import ComposeResult
    from textual.widget import Widget

READ_EVERY_S = 2.0
SLOWLY_EVERY = 15
"""Readings between two of what changes rarely: isolation, runtimes, and the store, which is walked for it."""
FORBIDDEN, NOT_FOUND = 403, 404
WIDE_CELLS, WIDEST_CELLS = 104, 160
"""From which the sections stand in two and in three columns."""
COLUMNS = (("control", "services"), ("machine", "isolation", "fleet"), ("runtimes", "store"))


class HostScreen(BoardScreen):
    """Read every two seconds while it is in front. What only administrators may see says so."""

    crumbs = ("host",)
    place = "host"
    DEFAULT_CSS = """
    HostScreen > #note { height: auto; padding: 0 1; color: $text-warning; display: none; }
    HostScreen > #note.-told { display: block; }
    HostScreen Horizontal { height: auto; layout: vertical; }
    HostScreen Horizontal > Vertical { height: auto; width: 1fr; }
    HostScreen.-wide Horizontal { layout: grid; grid-size: 2; grid-rows: auto; }
    HostScreen.-widest Horizontal { layout: horizontal; }
    HostScreen Page { scrollbar-size-vertical: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+r", "reload", "Read anew"),
        Binding("U", "app.go('usage')", "Usage"),
        Binding("T", "app.go('tokens')", "Tokens"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._isolation: dict[str, Any] = {}
        self._runtimes: dict[str, Any] = {}
        self._cache: dict[str, Any] | None = None
        self._readings = 0
        self._read_at = 0.0

    def body(self) -> ComposeResult:
        yield Static(id="note")
        with Page(), Horizontal():
            for column in COLUMNS:
                with Vertical():
                    for name in column:
                        yield FactSheet(id=name)

    def main_widget(self) -> Widget:
        return self.query_one(Page)

    def on_mount(self) -> None:
        self._begin()

    def on_screen_resume(self) -> None:
        self._begin()

    def on_screen_suspend(self) -> None:
        self.workers.cancel_group(self, "read")

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(WIDE_CELLS <= event.size.width < WIDEST_CELLS, "-wide")
        self.set_class(event.size.width >= WIDEST_CELLS, "-widest")

    def action_reload(self) -> None:
        self._readings = 0
        self._begin()

    def _begin(self) -> None:
        set_to_work(self, self._read_on, group="read", exclusive=True)

    async def _read_on(self) -> None:
        while True:
            try:
                await self._read()
            except Failure as failure:
                self._say(failure)
            await asyncio.sleep(READ_EVERY_S)

    async def _read(self) -> None:
        """Read everything that is due and show it.

        Raises:
            Failure: the control plane is away, or refused.
        """
        api = self.plane.api
        stats = await api.get("/stats")
        if self._readings % SLOWLY_EVERY == 0:
            self._isolation = await self._get_unless("/isolation", NOT_FOUND) or {}  # not in older servers
            self._runtimes = await api.get("/runtimes")
            self._cache = await self._get_unless("/cache", FORBIDDEN)  # for administrators
        self._readings += 1
        self._read_at = self.plane.clock()
        health = await self._health()
        for name, section in sections(health, stats, self._isolation, self._runtimes, self._cache).items():
            self.query_one(f"#{name}", FactSheet).tell(section)
        self.query_one("#note").remove_class("-told")

    async def _health(self) -> dict[str, Any]:
        try:
            document = await self.plane.api.get("/health")
        except Failure as failure:
            document = failure.document
            if not isinstance(document, dict) or "services" not in document:
                raise
        return document if isinstance(document, dict) else {}

    async def _get_unless(self, path: str, status: int) -> Any:
        """The document; None where the answer is a problem of this status."""
        try:
            return await self.plane.api.get(path)
        except Failure as failure:
            if failure.status == status:
                return None
            raise

    def _say(self, failure: Failure) -> None:
        """What is shown stays, with its age."""
        age = f" What is shown is {duration(self.plane.clock() - self._read_at)} old." if self._read_at else ""
        note = self.query_one("#note", Static)
        note.update(Content(f"! {failure}.{age} {failure.hint}".rstrip()))
        note.add_class("-told")
