"""Lines of a form: a label, something to type or choose in, and below it what is wrong with it.

A line is one row high, so that a form of a dozen fields fits into 24 rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Select, Static

from controlplane.wire.text import clean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from textual.app import ComposeResult
    from textual.widget import Widget

MAX_VARIABLES = 256
"""The API's own bound."""


class FormLine(Vertical):
    """One field. `value` is what is in it; `complain` says what is wrong with that."""

    DEFAULT_CSS = """
    FormLine { height: auto; }
    FormLine > Horizontal { height: auto; }
    FormLine .label { width: 16; padding: 0 1 0 2; color: $text-muted; }
    FormLine:focus-within .label { color: $text-accent; text-style: bold; }
    FormLine Input { width: 1fr; height: 1; border: none; padding: 0 1; background: $surface; }
    FormLine Input:focus { border: none; background: $panel; }
    FormLine Select { width: 24; height: auto; }
    FormLine .complaint { display: none; padding: 0 1 0 16; color: $text-error; }
    FormLine.-wrong .complaint { display: block; }
    FormLine.-wrong .label { color: $text-error; }
    """

    def __init__(self, key: str, label: str, control: Widget, choices: Sequence[str] = ()) -> None:
        super().__init__(id=f"line-{key}")
        self.key, self.choices = key, choices
        self._label, self._control = label, control

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield Static(self._label, classes="label", markup=False)
            yield self._control
        yield Static(classes="complaint", markup=False)

    @property
    def value(self) -> str:
        control = self._control
        if isinstance(control, Select):
            return str(control.value)
        return control.value if isinstance(control, Input) else ""

    def put(self, text: str) -> None:
        """Fill it in."""
        if isinstance(self._control, (Select, Input)):
            self._control.value = text

    def suggest(self, text: str) -> None:
        """Say in its place what an empty one means."""
        if isinstance(self._control, Input):
            self._control.placeholder = text

    def relabel(self, labels: Mapping[str, str]) -> None:
        """Show other words for some of the choices; what is chosen stays."""
        control = self._control
        if isinstance(control, Select):
            chosen = control.value
            with control.prevent(Select.Changed):
                control.set_options([(labels.get(choice, choice), choice) for choice in self.choices])
                control.value = chosen

    def complain(self, message: str) -> None:
        """Say what is wrong; empty: nothing is."""
        self.query_one(".complaint", Static).update(Content(f"✗ {clean(message)}" if message else ""))
        self.set_class(bool(message), "-wrong")

    def take_focus(self) -> None:
        target = self._control if self._control.can_focus else next(iter(self._control.query("Input")), None)
        if target is not None:
            target.focus()


def text_line(key: str, label: str, hint: str = "", *, secret: bool = False) -> FormLine:
    """A field to type in."""
    return FormLine(key, label, Input(placeholder=hint, password=secret, compact=True, select_on_focus=False))


def choice_line(key: str, label: str, choices: Sequence[str]) -> FormLine:
    """A field that is one of a few words; the first is what it begins with."""
    control = Select([(word, word) for word in choices], value=choices[0], allow_blank=False, compact=True)
    return FormLine(key, label, control, choices)


class Variables(Vertical):
    """Pairs of name and value. A value is never shown; there is always an empty pair at the end."""

    DEFAULT_CSS = """
    Variables { width: 1fr; height: auto; }
    Variables > Horizontal { height: 1; }
    Variables Input.name { width: 2fr; }
    Variables Input.value { width: 3fr; margin-left: 1; }
    """

    class Changed(Message):
        """A pair is another."""

    def compose(self) -> ComposeResult:
        yield self._pair()

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """All that have a name or a value."""
        rows = [list(row.query(Input)) for row in self.query(Horizontal)]
        return [(row[0].value, row[1].value) for row in rows if row and (row[0].value or row[1].value)]

    async def put(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Replace all of them."""
        await self.remove_children()
        await self.mount_all([*(self._pair(*pair) for pair in pairs), self._pair()])

    def _pair(self, name: str = "", value: str = "") -> Horizontal:
        return Horizontal(
            Input(name, placeholder="NAME", classes="name", compact=True, select_on_focus=False),
            Input(value, placeholder="value: never shown", classes="value", password=True, compact=True),
        )

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        row = event.input.parent
        if event.input.has_class("name") and "=" in event.value and isinstance(row, Horizontal):
            name, _, value = event.value.partition("=")
            event.input.value = name
            target = row.query_one(".value", Input)
            target.value = value or target.value
            target.focus()
        rows = list(self.query(Horizontal))
        if rows and rows[-1].query_one(".name", Input).value and len(rows) < MAX_VARIABLES:
            self.mount(self._pair())
        self.post_message(self.Changed())
