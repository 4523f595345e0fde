"""A short form in a dialog, and the one that shows a secret once."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from controlplane.wire.text import clean
from tui.widgets.form import FormLine, choice_line, text_line
from tui.working import set_to_work

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from typing import Any

    from textual.app import ComposeResult

    from tui.client import Failure

DIALOG_CSS = """
    {name} {{ align: center middle; }}
    {name} > Vertical {{
        width: 72; max-width: 96%; height: auto; max-height: 96%; padding: 0 1;
        background: $surface; border: round {colour};
    }}
    {name} .title {{ padding: 0 1; text-style: bold; }}
    {name} #wrong {{ padding: 0 1; color: $text-error; display: none; }}
    {name} #wrong.-told {{ display: block; }}
    {name} Horizontal.buttons {{ height: 1; margin-top: 1; align-horizontal: right; }}
    {name} Button {{ margin-left: 2; height: 1; min-width: 8; border: none; }}
    {name} Button:focus {{ text-style: bold reverse; }}
"""


class AskScreen(ModalScreen[None]):
    """A form that stays open, with what was typed, until the server took it.

    Args:
        title: What it is for.
        lines: Key, label, and what it may be: a hint for text, words for a choice.
        send: Sends the values; what it returns is why that did not work.
        pointers: The field of each place of the request, by JSON Pointer.
    """

    DEFAULT_CSS = DIALOG_CSS.format(name="AskScreen", colour="$primary")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Cancel"),
        Binding("ctrl+j", "send", "Do it"),
        # At once: what is typed quickly after it would else be in the field before.
        Binding("tab", "app.focus_next", "Next field", show=False, priority=True),
        Binding("shift+tab", "app.focus_previous", "Field before", show=False, priority=True),
    ]

    def __init__(
        self,
        title: str,
        lines: Sequence[tuple[str, str, str | Sequence[str]]],
        send: Callable[[dict[str, str]], Coroutine[Any, Any, Failure | None]],
        pointers: Mapping[str, str],
    ) -> None:
        super().__init__()
        self._title, self._lines, self._send, self._pointers = title, lines, send, pointers
        self._busy = False

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(Content(self._title), classes="title")
            for key, label, given in self._lines:
                yield text_line(key, label, given) if isinstance(given, str) else choice_line(key, label, given)
            yield Static(id="wrong", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Cancel (esc)", id="no", compact=True)
                yield Button("Make it (ctrl+j)", id="yes", variant="primary", compact=True)

    def on_mount(self) -> None:
        self.query(FormLine).first().take_focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.focus_next()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "yes":
            self.action_send()
        else:
            self.dismiss()

    def action_leave(self) -> None:
        self.dismiss()

    def action_send(self) -> None:
        if not self._busy:
            self._busy = True
            set_to_work(self, self._try)

    async def _try(self) -> None:
        try:
            failure = await self._send({line.key: line.value.strip() for line in self.query(FormLine)})
        finally:
            self._busy = False
        if failure is None:
            self.dismiss()
        else:
            self._refuse(failure)

    def _refuse(self, failure: Failure) -> None:
        by_field: dict[str, str] = {}
        for pointer, message in failure.errors:
            by_field[self._pointers.get(pointer, "")] = message
        for line in self.query(FormLine):
            line.complain(by_field.get(line.key, ""))
        known = any(line.key in by_field for line in self.query(FormLine))
        wrong = self.query_one("#wrong", Static)
        wrong.update(Content("" if known else f"✗ {failure}\n  {failure.hint}".rstrip()))
        wrong.set_class(not known, "-told")


class SecretScreen(ModalScreen[None]):
    """Shows a token, this one time. `y` copies it through the terminal (OSC 52), which works over SSH as well."""

    DEFAULT_CSS = (
        DIALOG_CSS.format(name="SecretScreen", colour="$warning")
        + """
    SecretScreen #secret { padding: 1 1; text-style: bold; color: $text-accent; }
    SecretScreen #advice { padding: 0 1; color: $text-warning; }
    """
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "copy", "Copy"),
        Binding("escape,enter,q", "leave", "Close"),
    ]

    def __init__(self, title: str, secret: str) -> None:
        super().__init__()
        self._title, self._secret = title, secret

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(Content(self._title), classes="title")
            yield Static(Content(clean(self._secret)), id="secret")
            yield Static(
                Content("! It is shown this once and kept nowhere: copy it now. Whoever has it has its rights."),
                id="advice",
            )
            with Horizontal(classes="buttons"):
                yield Button("Copy (y)", id="copy", compact=True)
                yield Button("Close (esc)", id="close", variant="primary", compact=True)

    def on_mount(self) -> None:
        self.query_one("#copy").focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "copy":
            self.action_copy()
        else:
            self.dismiss()

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(self._secret)
        self.notify("Copied, where the terminal allows it", markup=False)

    def action_leave(self) -> None:
        self.dismiss()
