"""Quotas, and what is used of them; for administrators also what every owner has."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from controlplane.wire.text import clean
from controlplane.wire.units import count, mebibytes, percent
from tui.board.reading import mapping
from tui.board.usage_columns import OWNER_COLUMNS, QUOTA_COLUMNS, Row
from tui.client import Failure
from tui.screens.base import BoardScreen
from tui.widgets.grid import HEADER_LINES, Grid
from tui.working import set_to_work

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.widget import Widget

READ_EVERY_S = 2.0
OWNERS_SHOWN = 12
"""In sight at once, where the terminal is high enough: the quotas get the rest."""
NOT_FOUND = 404


class UsageScreen(BoardScreen):
    """Enter on an owner shows that owner's quotas; escape goes back to one's own."""

    crumbs = ("usage",)
    place = "usage"
    DEFAULT_CSS = """
    UsageScreen > .heading { height: 1; padding: 0 1; color: $text-primary; text-style: bold; }
    UsageScreen > #owners { max-height: 40%; }
    UsageScreen > #owners.-none, UsageScreen > #whose.-none { display: none; }
    UsageScreen > #note { height: auto; padding: 0 1; color: $text-warning; display: none; }
    UsageScreen > #note.-told { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+r", "reload", "Read anew"),
        Binding("tab", "app.focus_next", "Other table", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._owner: str | None = None

    def body(self) -> ComposeResult:
        yield Static(id="note")
        yield Static("reading …", id="total", classes="heading")
        yield Grid(QUOTA_COLUMNS, lambda row: clean(row.get("name")), id="quotas", clock=self.plane.clock)
        yield Static("Owners: enter shows one's quotas", id="whose", classes="heading -none")
        yield Grid(
            OWNER_COLUMNS, lambda row: str(row.get("name")), id="owners", classes="-none", clock=self.plane.clock
        )

    def main_widget(self) -> Widget:
        return self.query_one("#quotas")

    def on_mount(self) -> None:
        self.action_reload()

    def on_screen_resume(self) -> None:
        self.action_reload()

    def on_screen_suspend(self) -> None:
        self.workers.cancel_group(self, "read")

    def take_back(self) -> bool:
        if self._owner is None:
            return False
        self._owner = None
        self.action_reload()
        return True

    def action_reload(self) -> None:
        set_to_work(self, self._read_on, group="read", exclusive=True)

    async def _read_on(self) -> None:
        while True:
            note = self.query_one("#note", Static)
            try:
                self._show(mapping(await self.plane.api.get("/usage", owner=self._owner)))
                note.remove_class("-told")
            except Failure as failure:
                note.update(Content(_said(failure)))
                note.add_class("-told")
            await asyncio.sleep(READ_EVERY_S)

    def _show(self, document: Row) -> None:
        total = mapping(document.get("total"))
        whose = f"{clean(document.get('owner'))} ({clean(document.get('role'))})"
        has = f"{count(total.get('instances'))} instances, {count(total.get('running'))} running"
        uses = f"{mebibytes(total.get('memory_mb'))}, {percent(total.get('cpu_percent'))} CPU"
        back = "   esc: your own" if self._owner is not None else ""
        self.query_one("#total", Static).update(Content(f"{whose}: {has}, {uses}{back}"))
        self.query_one("#quotas", Grid).show([mapping(row) for row in document.get("quotas") or ()])
        owners = [mapping(row) for row in document.get("owners") or ()]
        if self._owner is None:
            table = self.query_one("#owners", Grid)
            table.styles.height = min(len(owners), OWNERS_SHOWN) + HEADER_LINES
            table.show(owners)
            for part in ("#owners", "#whose"):
                self.query_one(part).set_class(not owners, "-none")

    def on_grid_chosen(self, message: Grid.Chosen) -> None:
        message.stop()
        if message.grid.id == "owners":
            self._owner = message.key
            self.query_one("#quotas").focus()
            self.action_reload()


def _said(failure: Failure) -> str:
    if failure.status == NOT_FOUND:
        return "! This control plane is of a version that does not tell of usage"
    return f"! {failure} {failure.hint}".rstrip()
