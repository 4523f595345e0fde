"""The line at the foot of a screen: `:` takes a command, `/` a filter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.suggester import SuggestFromList
from textual.widgets import Input, Static

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.app import ComposeResult

Mode = Literal[":", "/"]


class Prompt(Horizontal):
    """Hidden until it is asked something. A filter takes effect as it is typed; escape takes it back."""

    DEFAULT_CSS = """
    Prompt { dock: bottom; height: 1; display: none; background: $panel; }
    Prompt.-asked { display: block; }
    Prompt > Static { width: 2; padding: 0 0 0 1; color: $text-accent; text-style: bold; }
    Prompt > Input { height: 1; border: none; padding: 0; background: $panel; width: 1fr; }
    Prompt > Input:focus { border: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "Cancel", show=False)]

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
        self._before = ""

    def compose(self) -> ComposeResult:
        yield Static("")
        yield Input(compact=True)

    def ask(self, mode: Mode, text: str = "", suggestions: Iterable[str] = ()) -> None:
        """Show the line and take the keyboard."""
        self.mode, self._before = mode, text
        self.query_one(Static).update(mode)
        field = self.query_one(Input)
        field.suggester = SuggestFromList(list(suggestions), case_sensitive=False)
        with self.prevent(Input.Changed):
            field.value = text
        field.cursor_position = len(text)
        self.add_class("-asked")
        field.focus()

    def action_cancel(self) -> None:
        if self.mode == "/":
            self.post_message(self.Filtered(""))
        self._leave()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        if self.mode == "/":
            self.post_message(self.Filtered(event.value))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._leave()
        if self.mode == ":" and event.value.strip():
            self.post_message(self.Commanded(event.value.strip()))

    def _leave(self) -> None:
        self.remove_class("-asked")
        self.post_message(self.Left())
