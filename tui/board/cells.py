"""What stands in a table: cells with a tone, columns, and how columns share a terminal's width. Pure.

A tone is a word for what a colour means; the theme gives it one. It never stands alone: the text says the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal, TypeVar

from attrs import field, frozen
from rich.cells import cell_len, set_cell_size

R = TypeVar("R")

Tone = Literal["", "good", "warn", "bad", "dim", "accent", "plot", "strong"]
ELLIPSIS = "…"
GAP = 1
"""Blanks between two columns."""
BARS = "▁▂▃▄▅▆▇█"


@frozen
class Cell:
    """Clean text, and what its colour means."""

    text: str
    tone: Tone = ""


@frozen(kw_only=True)
class Column(Generic[R]):
    """A column of a table of `R`.

    Args:
        key: Its name in `:sort` and in what is saved.
        title: Its heading.
        width: Cells that it needs.
        cell: What stands in it; gets the row and the time in seconds since the epoch.
        order: What it is sorted by; None: not at all. `None` values come last either way.
        letter: The upper-case key that sorts by it.
        right: Numbers stand at the right.
        grows: Its share of the width that is left; 0: none.
        spare: Left out of a narrow terminal; the highest goes first, 0 never.
        descending: Whether the first press of its key puts the largest first.
    """

    key: str
    title: str
    width: int
    cell: Callable[[R, float], Cell]
    order: Callable[[R, float], Any] | None = None
    letter: str = ""
    right: bool = False
    grows: int = 0
    spare: int = 0
    descending: bool = field(default=False)


def fit(columns: Sequence[Column[R]], width: int) -> list[tuple[Column[R], int]]:
    """Choose the columns that a width has room for, and how wide each is."""
    chosen = list(columns)
    while _needed(chosen) > width and any(column.spare for column in chosen):
        chosen.remove(max(chosen, key=lambda column: column.spare))
    left = max(0, width - _needed(chosen))
    shares = sum(column.grows for column in chosen)
    sized: list[tuple[Column[R], int]] = []
    for column in chosen:
        more = left * column.grows // shares if column.grows else 0
        left, shares = left - more, shares - column.grows
        sized.append((column, column.width + more))
    return sized


def _needed(columns: Sequence[Column[Any]]) -> int:
    return sum(column.width for column in columns) + GAP * max(0, len(columns) - 1)


def placed(text: str, width: int, *, right: bool = False) -> str:
    """Return clean text in exactly `width` cells; what is cut ends in an ellipsis."""
    length = cell_len(text)
    if length > width:
        return set_cell_size(text, width - 1) + ELLIPSIS if width > 0 else ""
    blanks = " " * (width - length)
    return blanks + text if right else text + blanks


def sparkline(values: Sequence[float], width: int, most: float | None = None) -> str:
    """Return the newest values as bars, one cell each; `most` is a full one (absent: the largest of them)."""
    shown = list(values)[-width:]
    top = max(most or 0.0, max(shown, default=0.0))
    if top <= 0:
        return (BARS[0] * len(shown)).rjust(width)
    return "".join(BARS[min(7, max(0, int(value / top * 7.999)))] for value in shown).rjust(width)


def ordered(rows: Sequence[R], column: Column[R] | None, now: float, *, descending: bool) -> list[R]:
    """Sort rows by a column, those without a value last; equal ones keep their order."""
    if column is None or column.order is None:
        return list(rows)
    order = column.order
    keyed = [(order(row, now), row) for row in rows]
    there = sorted((pair for pair in keyed if pair[0] is not None), key=lambda pair: pair[0], reverse=descending)
    return [row for _, row in there] + [row for value, row in keyed if value is None]
