"""Where each of many lines begins and ends, when lines have heights, come at both ends and go at the first. Pure.

One number is kept of each line: the row at which it ends, counted from a base that moves, so that whatever comes or
goes at the beginning leaves the numbers of all others as they are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate

from attrs import define, field


@define(eq=False)
class RowStack:
    """Rows are given and taken as seen from the top of the first line."""

    ends: list[int] = field(factory=list, init=False)
    base: int = field(default=0, init=False)

    @property
    def rows(self) -> int:
        """All rows together."""
        return self.ends[-1] - self.base if self.ends else 0

    def top(self, place: int) -> int:
        """The row at which a line begins."""
        return self.ends[place - 1] - self.base if place else 0

    def end(self, place: int) -> int:
        """The row behind a line's last."""
        return self.ends[place] - self.base

    def at(self, row: int) -> int:
        """Which line a row belongs to; as many as there are, for one behind the last."""
        return bisect_right(self.ends, row + self.base)

    def build(self, heights: Iterable[int]) -> None:
        """Begin anew with these."""
        self.base = 0
        self.ends = list(accumulate(heights))

    def drop(self, many: int) -> None:
        """Let go of the first lines."""
        if many > 0 and self.ends:
            many = min(many, len(self.ends))
            self.base = self.ends[many - 1]
            del self.ends[:many]

    def put_before(self, heights: list[int]) -> None:
        self.base -= sum(heights)
        self.ends[:0] = list(accumulate(heights, initial=self.base))[1:]

    def append(self, heights: Iterable[int]) -> None:
        end = self.ends[-1] if self.ends else self.base
        self.ends += list(accumulate(heights, initial=end))[1:]
