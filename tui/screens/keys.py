"""`?`: every key that works where it was pressed, and every command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from attrs import field, frozen
from rich.cells import cell_len
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen, Screen
from textual.widgets import Static

from tui.commands import COMMANDS
from tui.screens.base import BoardScreen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import App, ComposeResult

KEY_CELLS, COMMAND_CELLS = 14, 24
TEXTUALS = frozenset({"tab", "shift+tab", "ctrl+c", "super+c"})
"""Keys that every Textual program has."""


@frozen
class Section:
    """Some keys that belong together; each with what it does. `note` stands below the title."""

    title: str
    keys: dict[str, str] = field(factory=dict)
    note: str = ""


def sections(screen: Screen[Any], app: App[Any]) -> list[Section]:
    """The keys that work now: those of the part in focus, of the screen, and of everywhere; and what its filter takes."""
    here, of_screen, everywhere = Section("In this list"), Section("On this screen"), Section("Everywhere")
    for node, binding, enabled, _ in screen.active_bindings.values():
        if enabled and binding.description and binding.key not in TEXTUALS:
            section = everywhere if node is app else of_screen if isinstance(node, Screen) else here
            key = app.get_key_display(binding)
            said = section.keys.get(binding.description, "").split()
            section.keys[binding.description] = " ".join(dict.fromkeys([*said, key]))  # two may have one name: ctrl+@
    narrowing = Section("A filter ( / )", note=screen.filter_help if isinstance(screen, BoardScreen) else "")
    return [section for section in (here, of_screen, everywhere, narrowing) if section.keys or section.note]


class KeysScreen(ModalScreen[None]):
    """Lists of keys, of what the filter takes where there is one, and of commands. Any of `?`, `q`, escape closes it."""

    DEFAULT_CSS = """
    KeysScreen { align: center middle; }
    KeysScreen > VerticalScroll {
        width: 96%; max-width: 100; height: 94%; padding: 0 2; background: $surface; border: round $primary;
        scrollbar-size-vertical: 1;
    }
    KeysScreen Static { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark", "app.pop_screen", "Close"),
        Binding("j", "scroll(1)", "Down", show=False),
        Binding("k", "scroll(-1)", "Up", show=False),
    ]

    def __init__(self, keys: Sequence[Section]) -> None:
        super().__init__()
        self._sections = keys

    def compose(self) -> ComposeResult:
        with VerticalScroll() as box:
            box.border_title, box.border_subtitle = "Keys", "esc closes"
            yield Static(Content("\n").join(self._lines()))

    def _lines(self) -> list[Content]:
        lines: list[Content] = []
        for section in self._sections:
            lines += [_heading(section.title), *([Content(section.note)] if section.note else [])]
            lines += [_line(key, what, KEY_CELLS) for what, key in section.keys.items()]
        lines += [_heading("Commands ( : )")]
        for command in COMMANDS:
            names = " ".join((command.name, *command.aliases))
            lines.append(_line(names, command.help, COMMAND_CELLS))
        return lines

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()

    def action_scroll(self, by: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=by, animate=False)


def _heading(title: str) -> Content:
    return Content.styled(f"\n{title}", "bold $text-accent")


def _line(key: str, what: str, cells: int) -> Content:
    return Content.assemble((key + " " * max(1, cells - cell_len(key)), "bold"), what)
