"""What every full screen has: the masthead, the prompt, the keys' line, and a part of its own between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Footer

from tui.board.board import FLEET, Touched
from tui.commands import Complaint, parse, suggestions
from tui.widgets.masthead import Masthead
from tui.widgets.prompt import Prompt

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.widget import Widget

    from tui.app import Dashboard
    from tui.board.rows import Row
    from tui.plane import Plane


class BoardScreen(Screen[None]):
    """A screen that shows something of the board.

    A screen gives `crumbs` (where we are), `body` (its widgets) and `board_changed` (paint what changed: called at most
    ten times a second, and with everything when the screen comes to the front).
    """

    crumbs: tuple[str, ...] = ()
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.back", "Back", show=False),
        Binding("colon", "command", "Command", key_display=":"),
        Binding("slash", "filter", "Filter", key_display="/"),
    ]

    @property
    def dashboard(self) -> Dashboard:
        return cast("Dashboard", self.app)

    @property
    def plane(self) -> Plane:
        return self.dashboard.plane

    def compose(self) -> ComposeResult:
        yield Masthead()
        yield from self.body()
        yield Prompt()
        yield Footer(compact=True)

    def body(self) -> ComposeResult:
        yield from ()

    def board_changed(self, touched: Touched) -> None:
        """Paint what changed."""

    def selected(self) -> list[Row]:
        """The instances that a verb is meant for: the marked ones, or the one in view."""
        return []

    def focus_body(self) -> None:
        """Give the keyboard back to the part that it belongs to."""
        target = self.main_widget()
        if target is not None:
            target.focus()

    def main_widget(self) -> Widget | None:
        """The widget that has the keyboard unless another was chosen."""
        return None

    def filter_changed(self, text: str) -> None:
        """Show only what fits; empty: everything."""

    @property
    def filter_text(self) -> str:
        """The filter in force."""
        return ""

    def refresh_board(self, touched: Touched) -> None:
        """Called by the app; the masthead is everybody's."""
        for masthead in self.query(Masthead):  # none while the screen is taken down
            plane = self.plane
            masthead.tell(plane.context, self.crumbs, plane.board, plane.clock(), read_only=plane.read_only)
            self.board_changed(touched)

    def on_mount(self) -> None:
        self.refresh_board(FLEET)
        self.call_after_refresh(self.focus_body)

    def on_screen_resume(self) -> None:
        self.refresh_board(FLEET)

    def action_command(self) -> None:
        rows, app = self.plane.board.rows.values(), self.dashboard
        contexts = [context.name for context in app.contexts.known]
        words = suggestions([row.name for row in rows], contexts, sorted(app.available_themes))
        self.query_one(Prompt).ask(":", suggestions=words)

    def action_filter(self) -> None:
        self.query_one(Prompt).ask("/", self.filter_text)

    def on_prompt_filtered(self, message: Prompt.Filtered) -> None:
        message.stop()
        self.filter_changed(message.text)

    def on_prompt_left(self) -> None:
        self.focus_body()

    async def on_prompt_commanded(self, message: Prompt.Commanded) -> None:
        message.stop()
        read = parse(message.line)
        if isinstance(read, Complaint):
            self.notify(read.text, severity="warning", markup=False)
            return
        await self.dashboard.obey(read)
