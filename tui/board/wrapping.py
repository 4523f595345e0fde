"""How clean text is cut into rows of a width. Pure.

Most of what is shown is ASCII, where a character is a cell; only other text is measured.
"""

from __future__ import annotations

from attrs import frozen
from rich.cells import chop_cells

LINE_END = "\n"
FOLDED = " ⏎ "
"""Stands for a line's end where each line has one row only."""
WIDTH_MIN = 4
"""Narrower than this, and a wide character would have no room beside what stands at the left."""


@frozen
class Piece:
    """One row of a text; `start` is where it begins in it."""

    start: int
    text: str


def height(text: str, width: int) -> int:
    """How many rows a text takes; at least one."""
    if text.isascii() and LINE_END not in text:
        return max(1, -(-len(text) // max(width, WIDTH_MIN)))
    return len(pieces(text, width))


def pieces(text: str, width: int) -> list[Piece]:
    """Cut a text, in which only line feeds may be control characters, into rows of at most `width` cells."""
    found: list[Piece] = []
    start, width = 0, max(width, WIDTH_MIN)
    for part in text.split(LINE_END):
        found += _of_part(part, start, width)
        start += len(part) + 1
    return found


def _of_part(part: str, start: int, width: int) -> list[Piece]:
    if not part:
        return [Piece(start, "")]
    if part.isascii():
        return [Piece(start + at, part[at : at + width]) for at in range(0, len(part), width)]
    found = []
    for text in chop_cells(part, width):
        found.append(Piece(start, text))
        start += len(text)
    return found
