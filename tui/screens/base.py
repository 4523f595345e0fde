"""What every full screen has: the masthead, the prompt, the keys' line, and a part of its own between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Input, TextArea

from controlplane.wire.text import clean
from tui.board.board import FLEET, Touched
from tui.commands import Complaint, parse, suggestions
from tui.widgets.keyline import KeyLine
from tui.widgets.linkline import LinkLine
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
    place: str = ""
    """Its name in `tui.navigation`, where it has one."""
    filter_words: ClassVar[str] = ""
    """What its filter takes, in a line; empty where nothing can be filtered, and `/` is dead."""
    DEFAULT_CSS = """
    BoardScreen.-stale Grid { text-opacity: 60%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.back", "Back", show=False),
        # At once, before the next key is looked at: who types on would else give commands with the letters of a filter.
        Binding("colon", "command", "Command", key_display=":", priority=True),
        Binding("slash", "filter", "Filter", key_display="/", priority=True),
    ]

    @property
    def dashboard(self) -> Dashboard:
        return cast("Dashboard", self.app)

    @property
    def plane(self) -> Plane:
        return self.dashboard.plane

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """What is typed into a field is text, and where nothing can be filtered no filter is offered."""
        if action in {"command", "filter"} and isinstance(self.focused, Input | TextArea):
            return False
        if action == "filter" and not self.filter_help:
            return False
        return super().check_action(action, parameters)

    def compose(self) -> ComposeResult:
        yield Masthead()
        yield LinkLine()
        yield from self.body()
        yield KeyLine()
        yield Prompt()  # in the same line, above it

    def body(self) -> ComposeResult:
        yield from ()

    def board_changed(self, touched: Touched) -> None:
        """Paint what changed."""

    def selected(self) -> list[Row]:
        """The instances that a verb is meant for: the marked ones, or the one in view."""
        return []

    @property
    def view(self) -> tuple[str, ...]:
        """What is shown, so that it can be shown again: a place, or an instance and its tab."""
        return (self.place,)

    def acted(self) -> None:
        """Something was done to what is selected."""

    def take_back(self) -> bool:
        """Widen what was narrowed down, before escape leaves; False where there is nothing to widen."""
        if not self.filter_text:
            return False
        self.filter_changed("")
        return True

    def focus_body(self) -> None:
        """Give the keyboard back to the part that it belongs to; not while somebody types a command or a filter."""
        target = self.main_widget()
        if target is not None and not self.query_one(Prompt).is_asked:
            self.set_focus(target)  # now: `focus` would do it later, when the prompt may have been asked

    def main_widget(self) -> Widget | None:
        """The widget that has the keyboard unless another was chosen."""
        return None

    def filter_changed(self, text: str) -> None:
        """Show only what fits; empty: everything."""

    @property
    def filter_help(self) -> str:
        """What the filter of what is in view takes; empty: there is none."""
        return self.filter_words

    @property
    def filter_text(self) -> str:
        """The filter in force."""
        return ""

    def refresh_board(self, touched: Touched) -> None:
        """Called by the app; the masthead is everybody's."""
        for masthead in self.query(Masthead):  # none while the screen is taken down
            plane = self.plane
            masthead.tell(plane.context, self.crumbs, plane.board, plane.clock(), read_only=plane.read_only)
            self.query_one(LinkLine).tell(plane.board, plane.clock())
            self.set_class(plane.board.has_picture and not plane.board.link.is_live, "-stale")
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
        self.query_one(Prompt).ask(":", suggestions=words, past=list(app.commanded))

    def action_filter(self) -> None:
        past = [text for text in self.dashboard.filtered if text != self.filter_text]
        self.query_one(Prompt).ask("/", self.filter_text, past=past, help=self.filter_help)

    def on_prompt_filtered(self, message: Prompt.Filtered) -> None:
        message.stop()
        self.filter_changed(message.text)

    def on_prompt_left(self) -> None:
        self.dashboard.remember(self.dashboard.filtered, self.filter_text)
        self.focus_body()

    def on_prompt_commanded(self, message: Prompt.Commanded) -> None:
        message.stop()
        self.dashboard.remember(self.dashboard.commanded, message.line)
        read = parse(message.line)
        if isinstance(read, Complaint):
            self.notify(clean(read.text), severity="warning", markup=False)
        else:
            # Not from here: what it does may take this screen down, which waits for its messages to be handled.
            self.dashboard.call_later(self.dashboard.obey, read)
