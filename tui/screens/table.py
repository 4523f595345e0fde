"""What a screen has whose body is one table: the keyboard goes there, and `/` narrows it down."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from tui.screens.base import BoardScreen
from tui.widgets.grid import Grid

if TYPE_CHECKING:
    from textual.widget import Widget

R = TypeVar("R")


class TableScreen(BoardScreen, Generic[R]):
    """A table of `R`. A screen of this kind gives `show_rows`, which shows the rows that fit `filter_text`."""

    filter_words: ClassVar[str] = "word  !not"

    def __init__(self) -> None:
        super().__init__()
        self._filter = ""

    @abstractmethod
    def show_rows(self) -> None:
        """Filter and sort anew, and show what comes of it."""

    @property
    def grid(self) -> Grid[R]:
        return self.query_one(Grid)

    def main_widget(self) -> Widget:
        return self.grid

    @property
    def filter_text(self) -> str:
        return self._filter

    def filter_changed(self, text: str) -> None:
        self._filter = text
        self.show_rows()
