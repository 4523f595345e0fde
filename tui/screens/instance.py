"""One instance: a tab for each way of looking at it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static, TabbedContent, TabPane

from tui.board.board import FLEET
from tui.board.fleet_columns import status_cell
from tui.panes.catalog import PANES
from tui.panes.logs import LogsPane
from tui.screens.base import BoardScreen
from tui.widgets.tones import toned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from textual.app import ComposeResult
    from textual.widget import Widget

    from tui.board.board import Touched
    from tui.board.rows import Row
    from tui.panes.base import Pane


class InstanceTabs(TabbedContent):
    """Its tabs: only who asks for a tab changes it."""

    def _on_tab_pane_focused(self, event: TabPane.Focused) -> None:
        """The framework would go back to a tab that gets the keyboard late, when the next one was asked for already."""
        event.prevent_default()
        event.stop()


class InstanceScreen(BoardScreen):
    """Opened with enter on the fleet; `1` to `7` and `tab` choose the tab, escape goes back."""

    DEFAULT_CSS = """
    InstanceScreen > #status { height: 1; padding: 0 1; background: $surface; }
    InstanceScreen TabbedContent { height: 1fr; }
    InstanceScreen TabPane { padding: 0; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(place), f"tab('{name}')", name.title(), show=False) for place, name in enumerate(PANES, 1)),
        Binding("left_square_bracket", "step(-1)", "Tab before", show=False),
        Binding("right_square_bracket", "step(1)", "Next tab", show=False),
        Binding("r", "app.verb('restart')", "Restart", show=False),
        Binding("s", "app.verb('stop')", "Stop", show=False),
        Binding("t", "app.verb('start')", "Start", show=False),
        Binding("ctrl+d", "app.verb('delete')", "Delete", show=False),
    ]

    def __init__(self, instance_id: str, name: str, tab: str = "overview") -> None:
        super().__init__()
        self.instance_id, self._tab = instance_id, tab
        self._is_laid_out, self._wanted = False, tab
        self.crumbs = ("fleet", name, tab)

    def body(self) -> ComposeResult:
        yield Static(id="status")
        with InstanceTabs(initial=self._tab):
            for place, (name, pane) in enumerate(PANES.items(), 1):
                yield TabPane(f"{place} {pane.title}", pane(self.instance_id), id=name)

    @property
    def row(self) -> Row | None:
        return self.plane.board.rows.get(self.instance_id)

    @property
    def view(self) -> tuple[str, ...]:
        return ("instance", self.instance_id, self._tab)

    def selected(self) -> list[Row]:
        return [self.row] if self.row is not None else []

    @property
    def pane(self) -> Pane | None:
        """The tab in view; None while the screen is put together, when keys may come already."""
        return next((pane for name, pane in self.panes() if name == self._tab), None)

    def panes(self) -> Iterator[tuple[str, Pane]]:
        """Every tab with its name."""
        for name, kind in PANES.items():
            for pane in self.query(f"#{name} > {kind.__name__}").results(kind):
                yield name, pane

    def main_widget(self) -> Widget | None:
        return self.pane.main_widget() if self.pane is not None else None

    @property
    def filter_help(self) -> str:
        return self.pane.filter_words if self.pane is not None else ""

    @property
    def filter_text(self) -> str:
        return self.pane.filter_text if self.pane is not None else ""

    def filter_changed(self, text: str) -> None:
        if self.pane is not None:
            self.pane.filter_changed(text)

    def board_changed(self, touched: Touched) -> None:
        if touched.fleet or self.instance_id in touched.ids:
            for status in self.query("#status").results(Static):
                status.update(self._status())
        if self.pane is not None and self.pane.in_view:
            self.pane.board_changed(touched)

    def show_tab(self, name: str) -> None:
        """Bring a tab into view; of a screen that is not laid out yet, as soon as it is."""
        self._wanted = name
        if self._is_laid_out:
            self.query_one(TabbedContent).active = name

    def show_log_of(self, number: int) -> None:
        """Bring the log of one of its processes into view."""
        self.show_tab("logs")
        for logs in self.query(LogsPane):
            logs.show_incarnation(number)

    def action_tab(self, name: str) -> None:
        self.show_tab(name)

    def action_step(self, by: int) -> None:
        names = list(PANES)
        self.show_tab(names[(names.index(self._tab) + by) % len(names)])

    def on_tabbed_content_tab_activated(self, event: TabbedContent.TabActivated) -> None:
        if event.tabbed_content is not self.query_one(TabbedContent):
            return
        if not self._is_laid_out:
            self._is_laid_out = True
            self.show_tab(self._wanted)
        self._tab = event.pane.id or self._tab
        self.crumbs = (*self.crumbs[:2], self._tab)
        self._look()
        self.refresh_bindings()  # not every tab can be filtered
        self.call_after_refresh(self.focus_body)

    def on_screen_suspend(self) -> None:
        if isinstance(self.app.screen, ModalScreen):
            return  # a question in front of it: what it follows goes on behind
        for _, pane in self.panes():
            pane.leave_view()

    def on_screen_resume(self) -> None:
        self._look()

    def _look(self) -> None:
        for name, pane in self.panes():
            if name != self._tab:
                pane.leave_view()
        if self.pane is not None:
            self.pane.enter_view()
        self.refresh_board(FLEET)

    def _status(self) -> Content:
        row = self.row
        if row is None:
            return Content.styled("deleted: what is left is its history", "$text-warning")
        cell = status_cell(row)
        parts = [toned(cell)]
        trouble = row.trouble.reason if row.trouble is not None else ""
        if row.phase not in {row.status, trouble}:
            parts.append(Content(row.phase))
        if row.trouble is not None and row.status != "running":
            parts.append(Content.styled(row.trouble.reason, "$text-error"))
        elif row.pid is not None:
            parts.append(Content.styled(f"pid {row.pid} · r{row.revision} · {row.isolation}", "$text-muted"))
        return Content("  ").join(parts)
