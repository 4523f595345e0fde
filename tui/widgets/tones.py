"""Which of the theme's colours each tone has, in running text; tables have theirs in their own style sheet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from textual.content import Content

if TYPE_CHECKING:
    from tui.board.cells import Cell, Tone

TONES: Mapping[Tone, str] = {
    "": "",
    "good": "$text-success",
    "warn": "$text-warning",
    "bad": "$text-error",
    "dim": "$text-muted",
    "accent": "$text-accent",
    "plot": "$text-primary",
    "strong": "bold",
}


def toned(cell: Cell) -> Content:
    """A cell as text with its colour."""
    return Content.styled(cell.text, TONES[cell.tone])
