"""The first line of every screen: where we are, whether the picture is live, and what the fleet comes to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual.content import Content
from textual.widget import Widget

from controlplane.wire.units import mebibytes, percent
from tui.board.link import word
from tui.board.reading import text

if TYPE_CHECKING:
    from tui.board.board import Board
    from tui.contexts import Context

STYLES: Mapping[str, str] = {
    "good": "$text-success",
    "warn": "bold $text-warning",
    "bad": "bold $text-error",
}
SEPARATOR = " › "


class Masthead(Widget):
    """`corral › context › fleet › name` at the left, the link and totals at the right; what has no room is left out."""

    DEFAULT_CSS = """
    Masthead { dock: top; height: 1; padding: 0 1; background: $panel; color: $foreground; }
    Masthead.-red { background: $error-muted; }
    Masthead.-yellow { background: $warning-muted; }
    Masthead.-green { background: $success-muted; }
    Masthead.-blue, Masthead.-cyan { background: $primary-muted; }
    Masthead.-magenta { background: $secondary-muted; }
    Masthead.-black { background: black; color: white; }
    Masthead.-white { background: white; color: black; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._left = Content("")
        self._rights: list[Content] = []

    def tell(self, context: Context, crumbs: tuple[str, ...], board: Board, now: float, *, read_only: bool) -> None:
        """Say where we are and how the fleet is; every text is clean."""
        for colour in ("red", "yellow", "green", "blue", "cyan", "magenta", "black", "white"):
            self.set_class(context.colour == colour, f"-{colour}")
        places = SEPARATOR.join((context.name, *crumbs))
        left = Content.assemble(
            ("corral", "bold"), SEPARATOR, places, (" read-only" if read_only else "", "bold $text-warning")
        )
        rights = [_link(board, now), *(_totals(board) if board.has_picture else [])]
        if (left, rights) != (self._left, self._rights):
            self._left, self._rights = left, rights
            self.refresh()

    def render(self) -> Content:
        width = self.content_size.width
        rights = list(self._rights)
        while rights and cell_len(self._left.plain) + 2 + _width(rights) > width:
            rights.pop()  # the link comes first, so it stays longest
        right = Content("  ").join(reversed(rights))
        blanks = max(1, width - cell_len(self._left.plain) - cell_len(right.plain))
        return Content.assemble(self._left, " " * blanks, right)


def _width(parts: list[Content]) -> int:
    return sum(cell_len(part.plain) for part in parts) + 2 * (len(parts) - 1)


def _link(board: Board, now: float) -> Content:
    said, tone = word(board.link, now)
    return Content.styled(said, STYLES[tone])


def _totals(board: Board) -> list[Content]:
    rows = board.rows.values()
    counts = board.by_status()
    parts = [Content.assemble((f"{len(rows)}", "bold"), f" instance{'s' * (len(rows) != 1)}")]
    if unseen := board.unseen_alerts:
        parts.insert(0, Content.styled(f"! {unseen} alert{'s' * (unseen > 1)}", "bold $text-warning"))
    if counts["failed"]:
        parts.insert(0, Content.styled(f"✗ {counts['failed']} failed", "bold $text-error"))
    status = text(board.health.get("status"))
    if status in {"degraded", "unhealthy"}:
        parts.insert(0, Content.styled(f"! {status}", "bold $text-error"))
    parts.append(Content(f"{percent(sum(row.cpu or 0 for row in rows))} cpu"))
    parts.append(Content(f"{mebibytes(sum(row.memory or 0 for row in rows))} mem"))
    return parts
