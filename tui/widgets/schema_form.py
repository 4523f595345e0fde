"""A form of a JSON Schema: a control for each field, what is wrong beside it, and what is entered as plain texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Select, Static, TextArea

from tui.inspector.form_rows import FormRow, rows_of
from tui.inspector.form_values import assembled

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.widget import Widget

    from tui.inspector.form_values import Assembled
    from tui.inspector.schema_form import Field, Key

INDENT = 2
MAX_ENTRY_CHARS = 1_000_000
"""Of one field; more is cut when it is pasted."""


class FieldRow(Vertical):
    """A field: its name and what it takes, its control, and what is wrong with it."""

    DEFAULT_CSS = """
    FieldRow { height: auto; padding: 0 1; }
    FieldRow > .label { height: auto; max-height: 3; }
    FieldRow > .wrong { height: auto; color: $text-error; display: none; }
    FieldRow.-wrong > .wrong { display: block; }
    FieldRow Input { width: 1fr; background: $boost; }
    FieldRow Select { width: 1fr; }
    FieldRow TextArea { height: auto; min-height: 2; max-height: 8; background: $boost; }
    """

    def __init__(self, row: FormRow, text: str) -> None:
        super().__init__()
        self.row, self._text = row, text
        self.styles.margin = (0, 0, 0, INDENT * row.depth)

    def compose(self) -> ComposeResult:
        yield Static(_label(self.row), classes="label")
        if self.row.control != "heading":
            yield _control(self.row, self._text)
            yield Static(classes="wrong")

    def complain(self, text: str) -> None:
        """Say what is wrong; empty: nothing."""
        if self.row.control != "heading":
            self.set_class(bool(text), "-wrong")
            self.query_one(".wrong", Static).update(Content(f"✗ {text}" if text else ""))

    @property
    def control(self) -> Widget | None:
        return next((child for child in self.children if isinstance(child, Input | Select | TextArea)), None)


class SchemaForm(VerticalScroll, can_focus=False):
    """The form of one field tree. `entries` is what is in it, and survives it."""

    DEFAULT_CSS = """
    SchemaForm { height: 1fr; scrollbar-size-vertical: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "app.focus_next", "Next field", show=False),
        Binding("up", "app.focus_previous", "Field before", show=False),
    ]

    class Changed(Message):
        """Something else is entered."""

    class Submitted(Message):
        """Enter in a field of one line."""

    def __init__(self, field: Field, entries: dict[Key, str], *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.field, self.entries = field, entries
        self._touched: set[Key] = set()
        self._all = False

    def compose(self) -> ComposeResult:
        yield from self._rows()

    def _rows(self) -> list[Widget]:
        rows: list[Widget] = [FieldRow(row, self.entries.get(row.key, "")) for row in rows_of(self.field, self.entries)]
        return rows or [Static(Content.styled("  takes no arguments", "$text-muted"))]

    async def show(self, field: Field, entries: dict[Key, str]) -> None:
        """Show another form, or the same with other entries."""
        self.field, self.entries = field, entries
        self._touched, self._all = set(), False
        await self._rebuild()

    async def _rebuild(self, focus: Key | None = None) -> None:
        with self.app.batch_update():
            await self.remove_children()
            await self.mount_all(self._rows())
        self._complain()
        for row in self.query(FieldRow):
            if focus is not None and row.row.key == focus and row.control is not None:
                row.control.focus()

    def collect(self) -> None:
        """Take what is in the controls just now: a key that sends may come before the message of the last letter."""
        for row in self.query(FieldRow):
            control = row.control
            if control is not None:
                self._entered(control, _text_in(control))

    def value(self) -> Assembled:
        """What the entries stand for."""
        return assembled(self.field, self.entries)

    def complain_of_all(self) -> None:
        """Show what is wrong with fields that were not touched as well."""
        self._all = True
        self._complain()

    def focus_first(self) -> bool:
        """Give the keyboard to the first control; False when there is none."""
        for row in self.query(FieldRow):
            if row.control is not None:
                row.control.focus()
                return True
        return False

    def _complain(self) -> None:
        wrong = {problem.key: problem.text for problem in self.value().problems}
        for row in self.query(FieldRow):
            key = row.row.key
            row.complain(wrong.get(key, "") if self._all or key in self._touched else "")

    def _entered(self, control: Widget, text: str) -> Key | None:
        """Take what a control says; the key if that is new."""
        row = control.parent
        if not isinstance(row, FieldRow) or self.entries.get(row.row.key, "") == text:
            return None
        key = row.row.key
        self._touched.add(key)
        if text or key == row.row.field.raw:
            self.entries[key] = text[:MAX_ENTRY_CHARS]
        else:
            self.entries.pop(key, None)
        self._complain()
        self.post_message(self.Changed())
        return key

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._entered(event.input, event.input.value)

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        event.stop()
        self._entered(event.text_area, event.text_area.text)

    async def on_select_changed(self, event: Select.Changed) -> None:
        event.stop()
        self._entered(event.select, _text_in(event.select))
        row = event.select.parent
        if isinstance(row, FieldRow) and row.row.field.variants and self._is_outdated():
            await self._rebuild(focus=row.row.key)

    def _is_outdated(self) -> bool:
        """Whether another variant was chosen than the one whose fields are shown."""
        shown = [row.row.key for row in self.query(FieldRow)]
        return shown != [row.key for row in rows_of(self.field, self.entries)]

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.post_message(self.Submitted())


def _text_in(control: Widget) -> str:
    if isinstance(control, Select):
        return "" if control.value is Select.NULL else str(control.value)
    return control.value if isinstance(control, Input) else control.text if isinstance(control, TextArea) else ""


def _label(row: FormRow) -> Content:
    name = Content.styled(row.label, "bold")
    star = Content.styled(" *", "bold $text-warning") if row.required else Content("")
    return Content.assemble(name, star, Content.styled(f"  {row.note}" if row.note else "", "$text-muted"))


def _control(row: FormRow, text: str) -> Widget:
    if row.control == "line":
        return Input(text, password=row.secret, compact=True, select_on_focus=False)
    if row.control == "choice":
        options = [(Content(label), str(at)) for at, label in enumerate(row.options)]
        blank = text or Select.NULL
        return Select(options, prompt="not given", allow_blank=True, value=blank, compact=True)
    return TextArea(text, compact=True, soft_wrap=True, show_line_numbers=False)
