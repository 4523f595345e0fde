"""Lines as a person reads them: cursor, marks, search, wrap, and a tail that is followed until somebody moves away."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar, TypeVar

from rich.cells import cell_len
from textual.binding import Binding, BindingType
from textual.message import Message

from tui.widgets.lineview import LineView

if TYPE_CHECKING:
    from textual import events

L = TypeVar("L")
STEP = 8
"""Cells that left and right move lines that are not wrapped."""


class Lines(LineView[L]):
    """A view of lines with the keys to read them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup,ctrl+b", "page(-1)", "Page up", show=False),
        Binding("pagedown,ctrl+f", "page(1)", "Page down", show=False),
        Binding("home,g", "first", "First line", show=False),
        Binding("end,G", "last", "Last line, and follow", show=False),
        Binding("left", "shift(-1)", "Left, where lines are not wrapped", show=False),
        Binding("right", "shift(1)", "Right, where lines are not wrapped", show=False),
        Binding("n", "match(1)", "Next match", show=False),
        Binding("N", "match(-1)", "Match before", show=False),
        Binding("w", "wrap", "Wrap"),
        Binding("m", "mark", "Mark", show=False),
        Binding("apostrophe", "marked", "Next mark", show=False, key_display="'"),
    ]

    class Moved(Message):
        """Another line has the cursor, or the tail is followed or not any more."""

    class TopReached(Message):
        """Somebody went to the first line: if there are older ones, they are wanted."""

    # -- searching

    def search(self, text: str) -> None:
        """Light up a text, in any case, and go to its last place at or before the cursor; empty: none."""
        self._needle = re.compile(re.escape(text), re.IGNORECASE) if text else None
        self._cuts.clear()
        self._count()
        if self._needle is not None and self.current is not None and not self._fits(self.current):
            self._seek(-1) or self._seek(1)
        self.refresh()

    def _seek(self, step: int) -> bool:
        """Go to the next line that has it; round at the ends."""
        many = len(self._items)
        for away in range(1, many + 1):
            place = (self._cursor + step * away) % many
            if self._fits(self._items[place]):
                self._go(place)
                return True
        return False

    # -- moving

    def action_move(self, by: int) -> None:
        """Go to a neighbour; through a line that is higher than the view, half a view at a time."""
        if not self._items:
            return
        self._cursor = self._in_sight(self._cursor)
        top, view = self.scroll_offset.y, max(1, self.size.height)
        low, high = self._stack.top(self._cursor), self._stack.end(self._cursor)
        half = max(1, view // 2)
        if by > 0 and high > top + view:
            self._place(min(top + half, high - view))
        elif by < 0 and low < top:
            self._pause()
            self._place(max(top - half, low))
        else:
            self._step(by)

    def _step(self, by: int) -> None:
        if by < 0 and self._cursor == 0:
            self.post_message(self.TopReached())
        self._go(self._cursor + by)

    def action_page(self, by: int) -> None:
        view = max(1, self.size.height - 1)
        if by < 0:
            self._pause()
            if self.scroll_offset.y == 0:
                self.post_message(self.TopReached())
        self._place(self.scroll_offset.y + by * view)
        self._go(self._in_sight(self._cursor), by_page=True)

    def action_first(self) -> None:
        self._pause()
        self._go(0)
        self._place(0)
        self.post_message(self.TopReached())

    def reveal(self, place: int) -> None:
        """Put the cursor on a line, and the line at the top of the view if there is enough below it."""
        if 0 <= place < len(self._items):
            self._go(place)
            self._place(self._stack.top(place))

    def action_last(self) -> None:
        self.follow(on=True)

    def follow(self, *, on: bool) -> None:
        """Stay with the last line from now on, or where we are."""
        self.following = on and self._follows
        if on and self._items:
            self._cursor = len(self._items) - 1
            self._to_end()
        self.refresh()
        self.post_message(self.Moved())

    def action_match(self, step: int) -> None:
        if self._needle is not None and not self._seek(step):
            self.notify("Not found", markup=False)

    def action_marked(self) -> None:
        """Go to the next mark, round at the end."""
        many = len(self._items)
        places = ((self._cursor + away) % many for away in range(1, many + 1))
        place = next((place for place in places if self._key(self._items[place]) in self.marks), None)
        if place is not None:
            self._go(place)

    def action_mark(self) -> None:
        """Mark the line, or take its mark away."""
        if self.current is not None:
            self.marks ^= {self._key(self.current)}
            self.refresh()

    def action_wrap(self) -> None:
        self.wraps, self._left = not self.wraps, 0
        self.lay_out()

    def action_shift(self, by: int) -> None:
        if not self.wraps:
            first = self.scroll_offset.y
            shown = self._items[first : first + self.size.height]
            widest = max((cell_len(self._cut(item)[0][0].text) for item in shown), default=0)
            self._left = max(0, min(self._left + by * STEP, widest - self._width))
            self.refresh()

    def on_click(self, event: events.Click) -> None:
        place = self._stack.at(self.scroll_offset.y + event.y)
        if place < len(self._items):
            self._go(place)

    def _go(self, place: int, *, by_page: bool = False) -> None:
        if not self._items:
            return
        place = max(0, min(place, len(self._items) - 1))
        if place < len(self._items) - 1:
            self.following = False
        self._cursor = place
        if not by_page:
            self._follow_cursor()
        self.refresh()
        self.post_message(self.Moved())

    def _pause(self) -> None:
        if self.following:
            self.following = False
            self.post_message(self.Moved())

    def _in_sight(self, place: int) -> int:
        """A line, or the nearest one of which something is in sight."""
        top = self.scroll_offset.y
        first, last = self._stack.at(top), self._stack.at(top + max(1, self.size.height) - 1)
        return max(0, min(max(first, min(place, last)), len(self._items) - 1))

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if not self._placing and new_value < old_value:  # the wheel, or the scroll bar
            self._pause()
            if new_value <= 0:
                self.post_message(self.TopReached())
