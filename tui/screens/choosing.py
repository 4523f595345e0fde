"""Short dialogs of the inspector: choose one of many, choose one of few, give a name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from tui.widgets.grid import Grid

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from tui.board.cells import Column

R = TypeVar("R")
MAX_NAME_CHARS = 200

FRAME = """
    {0} {{ align: center middle; }}
    {0} > Vertical {{
        width: 90%; max-width: {1}; height: {2}; padding: 0 1; background: $surface; border: round $accent;
        border-title-color: $text-accent;
    }}
"""


class PickScreen(ModalScreen["str | None"], Generic[R]):
    """Rows in a table, and a line that finds among them. Dismissed with the key of the one that was chosen.

    `more` are further keys: what they are called, and what is done with the row, after which the rows are shown anew.
    """

    DEFAULT_CSS = FRAME.format("PickScreen", 120, "80%") + "PickScreen Input { background: $boost; margin-bottom: 1; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Back"),
        Binding("down", "to_rows", "Rows", show=False),
    ]

    def __init__(
        self,
        title: str,
        columns: Sequence[Column[R]],
        key: Callable[[R], str],
        rows: Callable[[str], Sequence[R]],
        *,
        empty: str = "Nothing here",
        foot: str = "",
    ) -> None:
        super().__init__()
        self._title, self._rows, self._foot = title, rows, foot
        self.grid: Grid[R] = Grid(columns, key, empty=empty)

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = Content(self._title)
            box.border_subtitle = Content(self._foot)
            yield Input(placeholder="find", compact=True)
            yield self.grid

    def on_mount(self) -> None:
        self.show_rows()
        self.query_one(Input).focus()

    def show_rows(self) -> None:
        """Show the rows that fit what is typed."""
        self.grid.show(self._rows(self.query_one(Input).value))

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.show_rows()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.grid.action_choose()

    def on_grid_chosen(self, event: Grid.Chosen) -> None:
        event.stop()
        self.dismiss(event.key)

    def action_to_rows(self) -> None:
        self.grid.focus()

    def action_cancel(self) -> None:
        self.dismiss(None)


class MenuScreen(ModalScreen["str | None"]):
    """A few things that can be done. Dismissed with the id of the one that was chosen."""

    DEFAULT_CSS = FRAME.format("MenuScreen", 60, "auto") + "MenuScreen OptionList { height: auto; border: none; }"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "Back")]

    def __init__(self, title: str, options: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._title, self._options = title, options

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = Content(self._title)
            yield OptionList(*(Option(Content(text), id=name) for name, text in self._options))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option.id)

    def action_cancel(self) -> None:
        self.dismiss(None)


class NameScreen(ModalScreen["str | None"]):
    """One line to write. Dismissed with it; None: never mind."""

    DEFAULT_CSS = FRAME.format("NameScreen", 80, "auto") + "NameScreen Input { background: $boost; }"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "Back")]

    def __init__(self, title: str, value: str = "", note: str = "") -> None:
        super().__init__()
        self._title, self._value, self._note = title, value, note

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = Content(self._title)
            yield Input(self._value, compact=True, max_length=MAX_NAME_CHARS, select_on_focus=False)
            yield Static(Content.styled(self._note, "$text-muted"))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.dismiss(event.value.strip())

    def action_cancel(self) -> None:
        self.dismiss(None)
