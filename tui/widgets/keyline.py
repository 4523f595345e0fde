"""The last line of every screen: as many of its keys as there is room for, and always the one that tells the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual.widgets import Footer
from textual.widgets._footer import FooterKey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from textual import events
    from textual.app import ComposeResult

LAST = "question_mark"
"""The key that has its place whatever else has none."""
WHILE_TYPING = ("escape", "f1")
"""Those that have it instead while `?` would be text: the way out, and the list of the keys."""


class KeyLine(Footer):
    """A footer that never runs out of the screen: what has no room is left out whole, the least important first."""

    DEFAULT_CSS = """
    KeyLine { background: $panel; }
    """

    def __init__(self) -> None:
        super().__init__(compact=True, show_command_palette=False)
        self._width = 0

    def compose(self) -> ComposeResult:
        self._width = self.size.width or self.app.size.width
        if self._bindings_ready:
            yield from self._fitting([key for key in super().compose() if isinstance(key, FooterKey)])

    def _fitting(self, keys: list[FooterKey]) -> Iterator[FooterKey]:
        last = [key for key in keys if key.key == LAST] or list(self._while_typing())
        named = {key.key for key in last}
        room = self._width - sum(_cells(key) for key in last)
        for key in keys:
            room -= _cells(key) if key.key not in named else 0
            if key.key not in named and room >= 0:
                yield key
        yield from last

    def _while_typing(self) -> Iterator[FooterKey]:
        active = self.screen.active_bindings
        for name in WHILE_TYPING:
            if name in active:
                _, binding, enabled, _ = active[name]
                shown = self.app.get_key_display(binding)
                key = FooterKey(name, shown, binding.description, binding.action, disabled=not enabled)
                yield key.data_bind(compact=Footer.compact)

    def on_resize(self, event: events.Resize) -> None:
        if event.size.width != self._width:
            self.refresh(recompose=True)


def _cells(key: FooterKey) -> int:
    """What it takes of the line, the gap after it included."""
    return cell_len(f"{key.key_display} {key.description} ")
