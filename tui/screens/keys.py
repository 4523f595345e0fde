"""`?`: every key that works where it was pressed, and every command."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from tui.commands import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.app import ComposeResult

KEY_CELLS = 16


class KeysScreen(ModalScreen[None]):
    """Two lists: keys and commands. Any of `?`, `q`, escape closes it."""

    DEFAULT_CSS = """
    KeysScreen { align: center middle; }
    KeysScreen > VerticalScroll {
        width: 90%; max-width: 100; height: 90%; padding: 1 2; background: $surface; border: round $primary;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark", "app.pop_screen", "Close")]

    def __init__(self, keys: Iterable[tuple[str, str]]) -> None:
        super().__init__()
        self._keys = list(keys)

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Static(Content.styled("Keys here", "bold $text-accent"))
            for key, what in self._keys:
                yield Static(_line(key, what))
            yield Static(Content.styled("\nCommands", "bold $text-accent"))
            for command in COMMANDS:
                names = ", ".join(f":{name}" for name in (command.name, *command.aliases))
                yield Static(_line(names, command.help, KEY_CELLS * 2))

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()


def _line(key: str, what: str, cells: int = KEY_CELLS) -> Content:
    return Content.assemble((key.ljust(cells), "bold"), what)
