"""The line at the foot of a screen: `:` takes a command, `/` a filter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.suggester import SuggestFromList
from textual.widgets import Input, Static

from tui.commands import hint

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.app import ComposeResult

Mode = Literal[":", "/"]


class Prompt(Horizontal):
    """Hidden until it is asked something. A filter takes effect as it is typed; escape takes it back.

    Tab (or right) takes what is suggested; up and down go through what was given before.
    """

    DEFAULT_CSS = """
    Prompt { dock: bottom; height: 1; display: none; background: $panel; }
    Prompt.-asked { display: block; }
    Prompt > #mode { width: 2; padding: 0 0 0 1; color: $text-accent; text-style: bold; }
    Prompt > #hint { width: auto; max-width: 50%; padding: 0 1; color: $text-muted; text-wrap: nowrap; }
    Prompt > Input { height: 1; border: none; padding: 0; background: $panel; width: 1fr; }
    Prompt > Input:focus { border: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", show=False),
        Binding("tab", "complete", "Complete", show=False),
        Binding("up", "past(-1)", "Command before", show=False),
        Binding("down", "past(1)", "Command after", show=False),
    ]

    class Filtered(Message):
        """The filter is another; `text` is empty for none."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Commanded(Message):
        """A command was given."""

        def __init__(self, line: str) -> None:
            super().__init__()
            self.line = line

    class Left(Message):
        """The line is hidden again, and the keyboard free."""

    def __init__(self) -> None:
        super().__init__()
        self.mode: Mode = ":"
        self._help = ""
        self._past: list[str] = []
        self._place = 0

    @property
    def is_asked(self) -> bool:
        """Whether something is being typed."""
        return self.has_class("-asked")

    def compose(self) -> ComposeResult:
        yield Static(id="mode")
        yield Input(compact=True)
        yield Static(id="hint")

    def ask(
        self,
        mode: Mode,
        text: str = "",
        *,
        suggestions: Iterable[str] = (),
        past: Sequence[str] = (),
        help: str = "",  # noqa: A002  (what it is)
    ) -> None:
        """Show the line and take the keyboard.

        Args:
            mode: A command or a filter.
            text: What stands in it.
            suggestions: What it may be completed to.
            past: What was given before, oldest first.
            help: What may be typed; a command has its own.
        """
        self.mode, self._help = mode, help
        self._past, self._place = [*past, text], len(past)
        self.query_one("#mode", Static).update(mode)
        field = self.query_one(Input)
        field.suggester = SuggestFromList(list(suggestions), case_sensitive=False)
        self._put(text)
        self.add_class("-asked")
        self.screen.set_focus(field)  # now, not in the next round: the keys after this one are meant for it

    def action_cancel(self) -> None:
        if self.mode == "/":
            self.post_message(self.Filtered(""))
        self._leave()

    def action_complete(self) -> None:
        field = self.query_one(Input)
        field.action_end()
        field.action_cursor_right()

    def action_past(self, step: int) -> None:
        if 0 <= self._place + step < len(self._past):
            self._place += step
            self._put(self._past[self._place])
            if self.mode == "/":
                self.post_message(self.Filtered(self._past[self._place]))

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._hint(event.value)
        if self.mode == "/":
            self.post_message(self.Filtered(event.value))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._leave()
        if self.mode == ":" and event.value.strip():
            self.post_message(self.Commanded(event.value.strip()))

    def _put(self, text: str) -> None:
        field = self.query_one(Input)
        with self.prevent(Input.Changed):
            field.value = text
        field.cursor_position = len(text)
        self._hint(text)

    def _hint(self, text: str) -> None:
        self.query_one("#hint", Static).update(Content(hint(text) if self.mode == ":" else self._help))

    def _leave(self) -> None:
        self.remove_class("-asked")
        self.post_message(self.Left())
