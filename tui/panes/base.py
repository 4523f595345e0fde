"""What every tab of an instance has: its instance, a beginning and an end of being in view, and the board's changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.containers import Vertical

if TYPE_CHECKING:
    from textual.widget import Widget

    from tui.app import Dashboard
    from tui.board.board import Touched
    from tui.board.rows import Row
    from tui.plane import Plane


class Pane(Vertical):
    """One tab. Streams are open only while it is in view: `opened` begins them as workers of group `view`, which end
    when the tab or the screen is left."""

    title: ClassVar[str] = ""
    filter_words: ClassVar[str] = ""
    """What its filter takes, in a line; empty where nothing can be filtered, and `/` is dead."""
    DEFAULT_CSS = """
    Pane { height: 1fr; }
    """

    def __init__(self, instance_id: str) -> None:
        super().__init__()
        self.instance_id = instance_id
        self.in_view = False

    @property
    def dashboard(self) -> Dashboard:
        return cast("Dashboard", self.app)

    @property
    def plane(self) -> Plane:
        return self.dashboard.plane

    @property
    def row(self) -> Row | None:
        """The instance on the board; None once it is deleted."""
        return self.plane.board.rows.get(self.instance_id)

    def enter_view(self) -> None:
        """The tab is the one that is seen."""
        if not self.in_view:
            self.in_view = True
            self.opened()

    def leave_view(self) -> None:
        """It is not any more."""
        if self.in_view:
            self.in_view = False
            self.workers.cancel_group(self, "view")
            self.closed()

    def opened(self) -> None:
        """Read what is to be shown, and follow it: `set_to_work(self, …, group="view")`."""

    def closed(self) -> None:
        """Let go of what only a view needs."""

    def board_changed(self, touched: Touched) -> None:
        """Paint what changed; called while in view."""

    def filter_changed(self, text: str) -> None:
        """Show only what fits; empty: everything."""

    @property
    def filter_text(self) -> str:
        return ""

    def main_widget(self) -> Widget | None:
        """The widget that has the keyboard."""
        return None
