"""What an instance offers: tools, prompts, resources and templates, and all about the one under the cursor."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.widgets import Static

from tui.inspector.desk import desk_of, read_offers
from tui.inspector.offer_columns import COLUMNS
from tui.inspector.offers import Offer, fitting
from tui.panes.base import Pane
from tui.widgets.grid import Grid
from tui.widgets.json_tree import JsonTree
from tui.working import set_to_work

if TYPE_CHECKING:
    from textual import events
    from textual.app import ComposeResult
    from textual.widget import Widget

    from tui.inspector.desk import Draft

KINDS = ("", "tool", "prompt", "resource")
"""What `v` goes through; templates stand with the resources."""
WIDE = 110
"""Columns from which on the details stand beside the table."""


class ToolsPane(Pane):
    """Enter opens the inspector with what is under the cursor."""

    title: ClassVar[str] = "Tools"
    filter_words: ClassVar[str] = "word  (of name, title and kind)"
    DEFAULT_CSS = """
    ToolsPane > #head { height: 1; padding: 0 1; }
    ToolsPane > #parts { height: 1fr; layout: vertical; }
    ToolsPane #about { height: 1fr; border-top: solid $panel; }
    ToolsPane #about > Static { height: auto; max-height: 8; padding: 0 1; }
    ToolsPane.-wide > #parts { layout: horizontal; }
    ToolsPane.-wide #about { width: 2fr; height: 1fr; border-top: none; border-left: solid $panel; }
    ToolsPane.-wide Grid { width: 3fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("v", "kind", "Kind"),
        Binding("ctrl+r", "reload", "Read anew", show=False),
    ]

    def __init__(self, instance_id: str) -> None:
        super().__init__(instance_id)
        self._filter, self._kind = "", ""
        self._shown: Offer | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="head")
        with Container(id="parts"):
            yield Grid(COLUMNS, lambda offer: offer.key, empty="Nothing is offered", id="offers")
            with Container(id="about"):
                yield Static(id="text")
                yield JsonTree(id="document")

    @property
    def draft(self) -> Draft:
        return desk_of(self.dashboard).draft(self.plane.context.url, self.instance_id)

    def opened(self) -> None:
        self._paint()
        set_to_work(self, self._read, group="view")

    def main_widget(self) -> Widget | None:
        return self.query_one(Grid)

    @property
    def filter_text(self) -> str:
        return self._filter

    def filter_changed(self, text: str) -> None:
        self._filter = text
        self._paint()

    def action_kind(self) -> None:
        """Show the next kind alone, or all again."""
        self._kind = KINDS[(KINDS.index(self._kind) + 1) % len(KINDS)]
        self._paint()

    def action_reload(self) -> None:
        set_to_work(self, self._read, group="view")

    async def _read(self) -> None:
        found = await read_offers(self.plane.api, self.instance_id)
        if found.failure is not None and self.draft.offered.offers:
            found.offers = self.draft.offered.offers  # the last picture stays
        self.draft.offered = found
        self._paint()

    def _paint(self) -> None:
        offered = self.draft.offered
        of_kind = [
            o for o in offered.offers if self._kind in ("", o.kind) or (self._kind, o.kind) == ("resource", "template")
        ]
        grid: Grid[Offer] = self.query_one("#offers", Grid)
        grid.empty = "Nothing is offered" if offered.is_read else "Asking …"
        grid.show(fitting(of_kind, self._filter))
        self.query_one("#head", Static).update(self._head(len(grid.rows)))
        self._show(grid.current)

    def _head(self, shown: int) -> Content:
        offered = self.draft.offered
        counts = [(kind, sum(offer.kind == kind for offer in offered.offers)) for kind in KINDS[1:]]
        parts = [Content(f"{count} {kind}{'' if count == 1 else 's'}") for kind, count in counts]
        if self._kind or self._filter:
            only = f"only {self._kind}s" if self._kind else f"only {self._filter!r}"
            parts.insert(0, Content.styled(f"{shown} shown, {only}", "$text-accent"))
        if offered.stale:
            parts.append(Content.styled("as last seen: it does not run just now", "$text-warning"))
        if offered.failure is not None:
            parts.append(Content.styled(f"✗ {offered.failure}  ctrl+r tries again", "$text-error"))
        return Content(" · ").join(parts)

    def _show(self, offer: Offer | None) -> None:
        if offer is self._shown:
            return
        self._shown = offer
        text = self.query_one("#text", Static)
        if offer is None:
            text.update("")
            self.query_one(JsonTree).show({})
            return
        hints = f"says it is {', '.join(offer.hints)}" if offer.hints else ""
        lines = [Content.styled(offer.label, "bold"), Content(offer.title), Content(offer.text)]
        lines += [Content.styled(hints, "$text-warning")]
        text.update(Content("\n").join(line for line in lines if line.plain))
        self.query_one(JsonTree).show(offer.document)

    def on_grid_highlighted(self, event: Grid.Highlighted) -> None:
        event.stop()
        self._show(event.grid.current)

    def on_grid_chosen(self, event: Grid.Chosen) -> None:
        event.stop()
        self.draft.wanted = event.grid.current
        self.dashboard.open_instance(self.instance_id, "inspector")

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(event.size.width >= WIDE, "-wide")
