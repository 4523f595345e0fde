"""The control planes that one may switch to, and whether each can be reached."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import evolve
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from controlplane.wire.text import clean
from tui.board.context_columns import CONTEXT_COLUMNS, ContextRow, about, linked
from tui.client import Api, Failure
from tui.screens.table import TableScreen
from tui.widgets.grid import Grid
from tui.working import set_to_work

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from tui.board.board import Touched
    from tui.contexts import Context

PROBE_S = 3.0
"""One that has not said how it is within this is away, as far as a person choosing is concerned."""
PROBE_EVERY_S = 10.0
"""While they are looked at: what is read here is to be true, and a probe costs each of them one small request."""
HOW_TO_ADD = (
    "corral context add NAME URL adds one (--colour red, --read-only); corral tui shows it from its next start on"
)


class ContextsScreen(TableScreen[ContextRow]):
    """Enter switches. Tokens are never shown, only whether there is one."""

    crumbs = ("contexts",)
    place = "contexts"
    filter_words = "a part of name and address"
    DEFAULT_CSS = """
    ContextsScreen > #why { height: auto; max-height: 3; padding: 0 2; color: $text-muted; }
    ContextsScreen > #how { height: auto; padding: 0 2; color: $text-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+r", "probe", "Ask again"),
        # Here already: another one on top of it would only be in the way.
        Binding("c", "probe", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._rows: dict[str, ContextRow] = {}
        self._was_live = True

    def body(self) -> ComposeResult:
        yield Grid(CONTEXT_COLUMNS, lambda row: row.name, empty="Nothing fits the filter", clock=self.plane.clock)
        yield Static(id="why", markup=False)
        yield Static(HOW_TO_ADD, id="how", markup=False)

    def on_mount(self) -> None:
        self._rows = {c.name: self._row(c) for c in self.dashboard.contexts.known}
        self.show_rows()
        self.grid.move_to(self.plane.context.name)
        self.action_probe()
        self.set_interval(PROBE_EVERY_S, self._probe_again)

    def _row(self, context: Context) -> ContextRow:
        return ContextRow(
            name=context.name,
            url=context.url,
            colour=context.colour,
            read_only=context.read_only or self.dashboard.read_only,
            has_token=bool(context.token),
            current=context.name == self.plane.context.name,
        )

    def show_rows(self) -> None:
        words = self.filter_text.strip().lower()
        link = self.plane.board.link
        rows = [linked(row, link) if row.current else row for row in self._rows.values()]
        wanted = [row for row in rows if words in f"{row.name} {row.url}".lower()]
        self.grid.show(wanted)
        self._tell()

    def _tell(self) -> None:
        row = self.grid.current
        said = about(row).text if row is not None else ""
        text = f"{row.name}: {said}" if row is not None and said else ""
        self.query_one("#why", Static).update(Content(clean(text)))

    def board_changed(self, _touched: Touched) -> None:
        """The control plane that the dashboard is at has gone, or is back: known before the next probe."""
        was_live, self._was_live = self._was_live, self.plane.board.link.is_live
        if self._rows and was_live != self._was_live:
            self.show_rows()
            self._probe_again()

    def _probe_again(self) -> None:
        """What was found stays until there is an answer, or none."""
        if self.is_current:
            self._ask_all()

    # -- keys

    def action_probe(self) -> None:
        """Ask all of them how they are, at once."""
        for name, row in self._rows.items():
            self._rows[name] = evolve(row, state="asking", why="")
        self.show_rows()
        self._ask_all()

    def _ask_all(self) -> None:
        set_to_work(self, self._probe_all, group="probe", exclusive=True)

    async def _probe_all(self) -> None:
        await asyncio.gather(*(self._probe(context) for context in self.dashboard.contexts.known))

    async def _probe(self, context: Context) -> None:
        began = self.plane.clock()
        try:
            async with asyncio.timeout(PROBE_S), Api(context) as api:
                document = await _health(api)
            found: dict[str, Any] = {
                "state": clean(document.get("status") or "?"),
                "version": clean(document.get("version") or ""),
                "uptime_s": document.get("uptime_s"),
                "instances": document.get("active_instances"),
                "took_ms": (self.plane.clock() - began) * 1000,
            }
        except Failure as failure:
            found = {"state": "away", "why": str(failure)}
        except TimeoutError:
            found = {"state": "away", "why": f"no answer within {PROBE_S:g} s"}
        self._rows[context.name] = evolve(self._rows[context.name], **found)
        self.show_rows()

    def on_grid_highlighted(self) -> None:
        self._tell()

    async def on_grid_chosen(self, message: Grid.Chosen) -> None:
        message.stop()
        if message.key == self.plane.context.name:
            self.dashboard.call_later(self.dashboard.action_back)
        else:
            await self.dashboard.switch(message.key)


async def _health(api: Api) -> dict[str, Any]:
    """What it says of itself; an unhealthy one answers 503, and still says how it is.

    Raises:
        Failure: it is away, or is not Corral.
    """
    try:
        document = await api.get("/health")
    except Failure as failure:
        document = failure.document
        if not isinstance(document, dict) or "services" not in document:
            raise
    if not isinstance(document, dict):
        raise Failure("Something that is not Corral answers there")
    return document
