"""The line below the masthead while the picture is not live: since when, why, and what may help."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.widgets import Static

from tui.board.link import line

if TYPE_CHECKING:
    from tui.board.board import Board


class LinkLine(Static):
    """Hidden while the link is live, and before there is a picture: then its screen says more."""

    DEFAULT_CSS = """
    LinkLine {
        height: auto; max-height: 3; padding: 0 1; display: none;
        background: $error-muted; color: $foreground;
    }
    LinkLine.-on { display: block; }
    """

    def tell(self, board: Board, now: float) -> None:
        """Say how the link is."""
        is_stale = board.has_picture and not board.link.is_live
        self.set_class(is_stale, "-on")
        if is_stale:
            self.update(Content(line(board.link, now)))
