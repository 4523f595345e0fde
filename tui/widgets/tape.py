"""A table that grows at its end, and stays there until somebody looks further up."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeVar

from textual.binding import Binding, BindingType
from textual.message import Message

from tui.widgets.grid import Grid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events

R = TypeVar("R")
WHEEL_ROWS = 3


class Tape(Grid[R]):
    """Rows are put at the end. The cursor goes along with the last one while `following`."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "pause", "Pause", show=False),
    ]

    class PauseWanted(Message):
        """The space bar: hold the table still, or let it go on."""

    following = True

    def roll(self, rows: Sequence[R]) -> None:
        """Show these rows; the last one has the cursor if it is followed."""
        self.show(rows)
        if self.following and rows:
            self.move_to(self._key(rows[-1]))

    def action_pause(self) -> None:
        self.post_message(self.PauseWanted())

    def action_move(self, by: int) -> None:
        self.following = self.following and by > 0
        super().action_move(by)

    def action_page(self, by: int) -> None:
        self.following = self.following and by > 0
        super().action_page(by)

    def action_edge(self, by: int) -> None:
        self.following = by > 0
        super().action_edge(by)

    def on_click(self, _: events.Click) -> None:
        self.following = False

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.prevent_default().stop()  # the cursor goes along, or the next row would scroll back to it
        self.action_move(-WHEEL_ROWS)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.prevent_default().stop()
        super().action_move(WHEEL_ROWS)
