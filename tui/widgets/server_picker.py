"""Paste an `mcpServers` file, tick the servers in it, deploy those."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, SelectionList, Static, TextArea
from textual.widgets.selection_list import Selection

from controlplane.wire.text import clean
from tui.deploying.batch import read_servers, told

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.widget import Widget

    from controlplane.packing.servers import Entry
    from tui.app import Dashboard

MAX_TEXT_BYTES = 1024 * 1024
"""Of a client's settings file; the largest seen have some hundred servers in 100 kB."""


class ServerPicker(Vertical):
    """First a place to paste into, then the servers found. What was pasted is shown no more: it may hold secrets."""

    DEFAULT_CSS = """
    ServerPicker { height: auto; padding: 0 1; }
    ServerPicker Input { height: 1; border: none; padding: 0 1; background: $surface; }
    ServerPicker TextArea { height: 8; border: none; margin-top: 1; background: $surface; }
    ServerPicker TextArea:focus { border: none; background: $panel; }
    ServerPicker SelectionList { height: auto; max-height: 12; border: none; padding: 0; background: $surface; }
    ServerPicker .note { color: $text-muted; }
    ServerPicker .wrong { color: $text-error; display: none; }
    ServerPicker .wrong.-on { display: block; }
    ServerPicker #found { display: none; }
    ServerPicker.-found #found { display: block; }
    ServerPicker.-found #asked { display: none; }
    ServerPicker #found, ServerPicker #asked { height: auto; }
    """
    # A binding, as a method for the key would come after the dashboard's own `a`.
    BINDINGS: ClassVar[list[BindingType]] = [Binding("a", "all", "All or none", show=False)]

    def __init__(self) -> None:
        super().__init__()
        self._entries: list[Entry] = []

    def compose(self) -> ComposeResult:
        with Vertical(id="asked"):
            yield Static(
                "Paste an MCP client's JSON (mcpServers, or VS Code's servers), or name its file:", classes="note"
            )
            yield Input(placeholder="~/.cursor/mcp.json, then enter", compact=True, id="file")
            yield TextArea(id="text", compact=True, placeholder='{"mcpServers": {"memory": {"command": "npx", …}}}')
            yield Static(classes="wrong", markup=False)
        with Vertical(id="found"):
            yield Static(id="heading", markup=False)
            yield SelectionList[str](id="servers", compact=True)
            yield Static(id="unusable", markup=False)
            yield Static("space ticks, a ticks all or none, backspace pastes another", classes="note")

    def main_widget(self) -> Widget:
        """The part that has the keyboard."""
        return self.query_one(SelectionList) if self.has_class("-found") else self.query_one(TextArea)

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        text = event.text_area.text
        self._complain("")
        if text.strip():
            self._read(text, settled=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        name = event.value.strip()
        try:
            text = _content(Path(name).expanduser())
        except OSError as error:
            self._complain(f"{name}: {error.strerror}")
        except (ValueError, RuntimeError) as error:
            self._complain(f"{name}: {error}")
        else:
            self._read(text, settled=True)

    def _read(self, text: str, *, settled: bool) -> None:
        """Show the servers in a text; while it is being typed, a text that is not whole yet is no mistake."""
        try:
            entries = read_servers(text)
        except ValueError as error:
            if settled or text.rstrip().endswith("}"):
                self._complain(str(error))
            return
        if entries:
            self._show(entries)
        elif settled:
            self._complain("it names no servers")

    def _show(self, entries: list[Entry]) -> None:
        self._entries = entries
        usable = [entry for entry in entries if entry.request is not None]
        names = {row.name for row in cast("Dashboard", self.app).plane.board.rows.values()}
        ticks = self.query_one(SelectionList)
        ticks.clear_options()
        for entry in usable:
            there = " (there is one already)" if entry.name in names else ""
            line = Content.assemble((clean(entry.name), "bold"), there, "  ", (told(entry), "dim"))
            ticks.add_option(Selection(line, entry.key, entry.name not in names))
        rest = [f"- {clean(entry.name)}: {told(entry)}" for entry in entries if entry.request is None]
        self.query_one("#unusable", Static).update(Content("\n".join(rest)))
        self.query_one("#heading", Static).update(Content(f"{len(entries)} servers in it"))
        with self.prevent(TextArea.Changed):
            self.query_one(TextArea).text = ""
        self.add_class("-found")
        ticks.focus()

    def key_backspace(self) -> None:
        """Begin again."""
        if self.has_class("-found"):
            self._entries = []
            self.remove_class("-found")
            self.query_one(TextArea).focus()

    def action_all(self) -> None:
        """Tick all, or none when all are."""
        ticks = self.query_one(SelectionList)
        if self.has_class("-found"):
            whole = len(ticks.selected) == ticks.option_count
            ticks.deselect_all() if whole else ticks.select_all()

    def ticked(self) -> list[Entry]:
        """The servers that are to be deployed, in the order of the file."""
        chosen = set(self.query_one(SelectionList).selected)
        return [entry for entry in self._entries if entry.key in chosen]

    def _complain(self, message: str) -> None:
        wrong = self.query_one(".wrong", Static)
        wrong.update(Content(f"✗ {clean(message)}" if message else ""))
        wrong.set_class(bool(message), "-on")


def _content(path: Path) -> str:
    """Read a client's file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too large, or no text.
    """
    with path.open("rb") as file:
        content = file.read(MAX_TEXT_BYTES + 1)
    if len(content) > MAX_TEXT_BYTES:
        raise ValueError(f"larger than {MAX_TEXT_BYTES // 2**20} MiB")
    return content.decode("utf-8-sig")
