"""What `ctrl+p` finds besides commands: every instance by name, to be opened."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content
from textual.markup import escape

from tui.board.fleet_columns import status_cell

if TYPE_CHECKING:
    from tui.app import Dashboard
    from tui.board.rows import Row

DISCOVERED = 20
"""Instances listed before anything is typed."""


class InstanceProvider(Provider):
    """The fleet, in the palette."""

    @property
    def _dashboard(self) -> Dashboard:
        return cast("Dashboard", self.app)

    async def discover(self) -> Hits:
        for row in list(self._dashboard.plane.board.rows.values())[:DISCOVERED]:
            open_it = partial(self._dashboard.open_instance, row.id)
            yield DiscoveryHit(Content(row.name), open_it, row.name, _help(row))

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for row in list(self._dashboard.plane.board.rows.values()):
            score = matcher.match(row.name)
            if score > 0:
                open_it = partial(self._dashboard.open_instance, row.id)
                yield Hit(score, Content(row.name), open_it, row.name, _help(row))


def _help(row: Row) -> str:
    return escape(f"{status_cell(row).text}  {row.language}")
