"""Lines of text, as many as there may be, of which only those in sight are cut, styled and painted.

What is kept of every line is one number, the row where it ends; a flood costs as much as there are lines, a repaint as
much as the terminal is high. Lines are whoever's they are; `Lines` asks for the text and for what stands before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, Generic, TypeVar

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.board.cells import Cell, placed
from tui.board.rowstack import RowStack
from tui.board.wrapping import FOLDED, LINE_END, Piece, height, pieces

L = TypeVar("L")
MARKED, UNMARKED, CURSOR = "▌", " ", "▸"
GUTTER = 2
"""Cells at the left for the mark and the cursor, as in tables."""
KEPT_CUTS = 256
"""Lines whose rows are remembered: more than a terminal shows."""
TEXT_MIN = 20
"""Cells that the text gets at least; what stands before it has to give way."""


class LineView(ScrollView, Generic[L], can_focus=True):
    """Lines with a cursor, marks and matches, painted. How a person moves among them is `Lines`' part."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "lines--cursor", "lines--marked", "lines--match", "lines--good", "lines--warn", "lines--bad", "lines--dim",
        "lines--accent", "lines--strong", "lines--empty",
    }  # fmt: skip
    DEFAULT_CSS = """
    LineView {
        height: 1fr; width: 1fr; overflow-x: hidden; overflow-y: auto; scrollbar-size-vertical: 1;
        & > .lines--cursor { background: $surface-lighten-2; }
        &:focus > .lines--cursor { background: $block-cursor-background 30%; }
        & > .lines--marked { background: $secondary 25%; }
        & > .lines--match { background: $warning 60%; color: $text; text-style: bold underline; }
        & > .lines--good { color: $text-success; }
        & > .lines--warn { color: $text-warning; }
        & > .lines--bad { color: $text-error; }
        & > .lines--dim { color: $text-muted; }
        & > .lines--accent { color: $text-accent; }
        & > .lines--strong { text-style: bold; }
        & > .lines--empty { color: $text-muted; text-style: italic; }
    }
    """

    def __init__(
        self,
        text: Callable[[L], str],
        key: Callable[[L], int],
        *,
        lead: Callable[[L], Sequence[Cell]] = lambda _: (),
        tone: Callable[[L], str] = lambda _: "",
        follows: bool = True,
        wraps: bool = True,
        empty: str = "Nothing here",
        id: str | None = None,  # noqa: A002  (Textual's name)
    ) -> None:
        super().__init__(id=id)
        self.empty, self.wraps, self._follows = empty, wraps, follows
        self.following = follows
        self.lead_width = 0
        """Cells of what stands before each line; `lay_out` after a change."""
        self.marks: set[int] = set()
        self.matches = 0
        """Lines in which the text searched for was found."""
        self._text, self._key, self._lead, self._line_tone = text, key, lead, tone
        self._items: list[L] = []
        self._stack = RowStack()
        self._cursor, self._left, self._width = 0, 0, 0
        self._needle: re.Pattern[str] | None = None
        self._cuts: dict[int, tuple[list[Piece], list[tuple[int, int]]]] = {}
        self._placing = False

    # -- lines

    @property
    def items(self) -> Sequence[L]:
        return self._items

    @property
    def current(self) -> L | None:
        """The line that has the cursor."""
        return self._items[self._cursor] if self._items else None

    def chosen(self) -> list[L]:
        """The marked lines, or the one that has the cursor when none is."""
        marked = [item for item in self._items if self._key(item) in self.marks]
        return marked or ([self.current] if self.current is not None else [])

    def show(self, items: Iterable[L]) -> None:
        """Show these lines from now on; the cursor stays on its line if that is among them."""
        key = self._key(self.current) if self.current is not None else None
        self._items = list(items)
        self.marks &= {self._key(item) for item in self._items} if self.marks else set()
        places = (place for place, item in enumerate(self._items) if self._key(item) == key)
        last = max(0, len(self._items) - 1)
        self._cursor = last if self.following else next(places, min(self._cursor, last))
        self._count()
        self.lay_out()

    def change(self, dropped: int, before: Sequence[L], after: Sequence[L]) -> None:
        """Let go of the first lines, put others before them and behind the last; what is in sight stays where it is."""
        at = self.scroll_offset.y + self._stack.base
        self._drop(dropped)
        self._put_before(before)
        self._append(after)
        self.matches += self._found(before) + self._found(after)
        self._resize()
        if self.following:
            self._to_end()
        elif at - self._stack.base != self.scroll_offset.y:
            self._place(at - self._stack.base)
        self.refresh()

    def lay_out(self) -> None:
        """Cut all lines anew: width, wrap or what stands before them is another."""
        self._width = self.text_width
        self._cuts.clear()
        self._stack.build(map(self._height, self._items))
        self._resize()
        if self.following:
            self._to_end()
        else:
            self._follow_cursor()
        self.refresh()

    @property
    def text_width(self) -> int:
        """Cells that a line's text has in one row."""
        return max(TEXT_MIN, self.size.width - GUTTER - self.lead_width)

    def _height(self, item: L) -> int:
        return height(self._text(item), self._width) if self.wraps else 1

    def _drop(self, many: int) -> None:
        if many <= 0:
            return
        gone = self._items[:many]
        self.matches -= self._found(gone)
        if self.marks:
            self.marks -= {self._key(item) for item in gone}
        self._stack.drop(many)
        del self._items[:many]
        self._cursor = max(0, self._cursor - many)

    def _put_before(self, items: Sequence[L]) -> None:
        self._stack.put_before([self._height(item) for item in items])
        self._items[:0] = items
        self._cursor += len(items)

    def _append(self, items: Sequence[L]) -> None:
        self._stack.append(map(self._height, items))
        self._items += items
        if self.following:
            self._cursor = max(0, len(self._items) - 1)

    def _count(self) -> None:
        self.matches = self._found(self._items)

    def _found(self, items: Sequence[L]) -> int:
        return sum(map(self._fits, items)) if self._needle is not None else 0

    def _fits(self, item: L) -> bool:
        return self._needle is not None and self._needle.search(self._text(item)) is not None

    # -- painting

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        row = self.scroll_offset.y + y
        place = self._stack.at(row)
        if not self._items and y == 1:
            style = self._whole("empty")
            return Strip([Segment(placed(f"  {self.empty}", width), style)], width)
        if place >= len(self._items):
            return Strip.blank(width, self.rich_style)
        return self._row(place, row - self._stack.top(place), width)

    def _row(self, place: int, part: int, width: int) -> Strip:
        item = self._items[place]
        marked, here = self._key(item) in self.marks, place == self._cursor
        ground = self.rich_style
        for on, name in ((marked, "marked"), (here, "cursor")):
            ground += Style(bgcolor=self._whole(name).bgcolor) if on else Style.null()
        gutter = (MARKED if marked else UNMARKED) + (CURSOR if here and not part else " ")
        segments = [Segment(gutter, ground), *self._lead_segments(item, part, ground)]
        segments += self._text_segments(item, part, ground + self._tone(self._line_tone(item)))
        return Strip(segments).adjust_cell_length(width, ground)

    def _lead_segments(self, item: L, part: int, ground: Style) -> list[Segment]:
        if part or not self.lead_width:
            return [Segment(" " * self.lead_width, ground)]
        cells = self._lead(item)
        segments = [Segment(cell.text, ground + self._tone(cell.tone)) for cell in cells]
        return list(Segment.adjust_line_length(segments, self.lead_width, ground))

    def _text_segments(self, item: L, part: int, style: Style) -> Iterable[Segment]:
        rows, spans = self._cut(item)
        piece = rows[min(part, len(rows) - 1)]
        segments = self._lit(piece, spans, style)
        if self.wraps:
            return segments
        if piece.text.isascii() and not spans:
            return [Segment(piece.text[self._left : self._left + self._width], style)]
        return Strip(segments).crop(self._left, self._left + self._width)

    def _lit(self, piece: Piece, spans: Sequence[tuple[int, int]], style: Style) -> list[Segment]:
        """A row's text, with what was searched for in it lit up."""
        match = self._whole("match") if spans else Style.null()
        segments, at = [], 0
        for start, end in spans:
            low, high = max(at, start - piece.start), min(len(piece.text), end - piece.start)
            if low < high:
                segments += [Segment(piece.text[at:low], style), Segment(piece.text[low:high], style + match)]
                at = high
        return [*segments, Segment(piece.text[at:], style)]

    def _cut(self, item: L) -> tuple[list[Piece], list[tuple[int, int]]]:
        key = self._key(item)
        known = self._cuts.get(key)
        if known is None:
            if len(self._cuts) >= KEPT_CUTS:
                self._cuts.clear()
            text = self._text(item)
            if not self.wraps:
                text = text.replace(LINE_END, FOLDED)
            rows = pieces(text, self._width) if self.wraps else [Piece(0, text)]
            spans = [match.span() for match in self._needle.finditer(text)] if self._needle is not None else []
            known = self._cuts[key] = (rows, spans)
        return known

    def _tone(self, tone: str) -> Style:
        if not tone:
            return Style.null()
        style = self._whole(tone)
        return Style(color=style.color, bold=style.bold)

    def _whole(self, name: str) -> Style:
        """A style as it is on the ground of this widget: only there do shares of a colour, as in `$text-muted`, come to
        one that can be read in a dark and a light theme alike."""
        return self.get_component_rich_style(f"lines--{name}")

    # -- scrolling

    def _follow_cursor(self) -> None:
        """Scroll so that the line with the cursor is in sight, its beginning first of all."""
        if not self._items:
            return
        top, view = self.scroll_offset.y, max(1, self.size.height)
        low, high = self._stack.top(self._cursor), self._stack.end(self._cursor)
        if low < top:
            self._place(low)
        elif high > top + view:
            self._place(min(low, high - view))

    def _to_end(self) -> None:
        self._place(self.virtual_size.height)

    def _place(self, y: float) -> None:
        self._placing = True
        try:
            self.scroll_to(y=y, animate=False, force=True, immediate=True)
        finally:
            self._placing = False

    def _resize(self) -> None:
        size = Size(self.size.width, self._stack.rows)
        if size != self.virtual_size:
            self._placing = True
            try:
                self.virtual_size = size
            finally:
                self._placing = False

    def on_resize(self) -> None:
        if not self.size.width:  # out of view: there is nothing to cut for
            return
        if self.text_width != self._width:
            self.lay_out()
        else:
            self._resize()
            if self.following:
                self._to_end()
