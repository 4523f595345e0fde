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
    from textual.widget import Widget

LAST = "question_mark"
"""The key that has its place whatever else has none."""


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
        yield from self._fitting(list(super().compose()))

    def _fitting(self, keys: list[Widget]) -> Iterator[Widget]:
        last = next((key for key in keys if isinstance(key, FooterKey) and key.key == LAST), None)
        room = self._width - (_cells(last) if last is not None else 0)
        for key in keys:
            room -= _cells(key) if key is not last else 0
            if key is not last and room >= 0:
                yield key
        if last is not None:
            yield last

    def on_resize(self, event: events.Resize) -> None:
        if event.size.width != self._width:
            self.refresh(recompose=True)


def _cells(key: Widget) -> int:
    """What it takes of the line, the gap after it included."""
    return cell_len(f"{key.key_display} {key.description} ") if isinstance(key, FooterKey) else 0
