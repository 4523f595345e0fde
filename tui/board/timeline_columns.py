"""The columns of the fleet's timeline, and what its filter looks at. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui.board.cells import Cell, Column
from tui.board.event_columns import moment
from tui.board.filtering import has_words
from tui.board.sentences import SIGNS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tui.board.board import Happening

TIMELINE_COLUMNS: tuple[Column[Happening], ...] = (
    Column(key="at", title="TIME", width=15, cell=lambda h, now: Cell(moment(h.at, now), "dim")),
    Column(
        key="name", title="INSTANCE", width=14, grows=2, cell=lambda h, _: Cell(h.name or "control plane", "strong")
    ),
    Column(key="type", title="TYPE", width=15, spare=1, cell=lambda h, _: Cell(h.type, "dim")),
    Column(key="sign", title="", width=1, cell=lambda h, _: Cell(SIGNS[h.said.tone], h.said.tone)),
    Column(key="said", title="WHAT HAPPENED", width=36, grows=8, cell=lambda h, _: Cell(h.said.text, h.said.tone)),
)


def fitting(happenings: Iterable[Happening], text: str) -> list[Happening]:
    """Those that fit a filter: words of name, type and sentence, `!word` for one that must not be there."""
    return [h for h in happenings if has_words(f"{h.name} {h.type} {h.said.text}", text)]
