"""What the inspector keeps while the dashboard runs: drafts by instance, and the history. It outlives the screens."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

from attrs import define, field

from tui.client import Failure, path_of
from tui.inspector import keeping, offers

if TYPE_CHECKING:
    from tui.client import Api
    from tui.inspector.conversation import Heard, Outcome
    from tui.inspector.history import Entry
    from tui.inspector.offers import Offer
    from tui.inspector.schema_form import Key

HEARD_KEPT = 500
"""Notifications of one call; a server that says more is heard to its end, and the last ones are kept."""
MAX_DRAFTS = 200
"""Instances with something entered; the oldest goes first."""

View = Literal["tree", "reading", "raw"]
VIEWS: tuple[View, ...] = ("tree", "reading", "raw")


@define(eq=False)
class Offered:
    """What an instance offers, as last read."""

    offers: list[Offer] = field(factory=list)
    stale: bool = False
    failure: Failure | None = None
    """Why it could not be read this time."""
    is_read: bool = False
    has_asked: bool = False
    """Whether those were asked for as well that are offered only to clients that can be asked."""


@define(eq=False)
class Draft:
    """What is entered for one instance, and what the last call came to."""

    offer: Offer | None = None
    as_json: bool = False
    entries: dict[Key, str] = field(factory=dict)
    json_text: str = "{}"
    method: str = ""
    view: View = "reading"
    heard: deque[Heard] = field(factory=lambda: deque(maxlen=HEARD_KEPT))
    outcome: Outcome | None = None
    note: str = ""
    """Said in the result's place when there is none: cancelled, or nothing sent yet."""
    called: str = ""
    """What the last call was for, as the server knows it: another may have been chosen since."""
    offered: Offered = field(factory=Offered)
    wanted: Offer | None = None
    """Chosen on the tools tab, and not yet taken up."""


@define(eq=False)
class Desk:
    """One dashboard's."""

    path: Path = field(factory=lambda: keeping.place(os.environ))
    histories: dict[str, list[Entry]] = field(factory=dict)
    _drafts: dict[tuple[str, str], Draft] = field(factory=dict)
    _turn: asyncio.Lock = field(factory=asyncio.Lock)

    def draft(self, url: str, instance_id: str) -> Draft:
        """What is entered for an instance of a control plane."""
        key = (url, instance_id)
        found = self._drafts.pop(key, None) or Draft()
        self._drafts[key] = found
        if len(self._drafts) > MAX_DRAFTS:
            del self._drafts[next(iter(self._drafts))]
        return found

    async def load(self) -> None:
        """Read the history."""
        async with self._turn:
            self.histories = await asyncio.to_thread(keeping.load, self.path)

    async def change(self, how: Callable[[dict[str, list[Entry]]], dict[str, list[Entry]]]) -> str:
        """Change the history as it is on disk, where another dashboard may have added to it; returns what went wrong."""
        async with self._turn:
            self.histories = how(await asyncio.to_thread(keeping.load, self.path) or self.histories)
            return await asyncio.to_thread(keeping.save, self.path, self.histories)


_desks: WeakKeyDictionary[object, Desk] = WeakKeyDictionary()


def desk_of(dashboard: object) -> Desk:
    """The desk of a dashboard."""
    found = _desks.get(dashboard)
    if found is None:
        found = _desks[dashboard] = Desk()
    return found


async def read_offers(api: Api, instance_id: str) -> Offered:
    """Ask what an instance offers. A server has prompts and resources only if it wants to, so those may fail alone."""
    found = Offered(is_read=True)
    for section in ("tools", "prompts", "resources"):
        try:
            document = await api.get(path_of("instances", instance_id, section))
        except Failure as failure:
            if section == "tools" or failure.is_passing:
                found.failure = failure
                return found
            continue
        found.stale = found.stale or document.get("stale") is True
        found.offers += _offers(section, document)
    return found


def _offers(section: str, document: dict[str, Any]) -> list[Offer]:
    if section == "tools":
        return offers.tools_of(document.get("tools"))
    if section == "prompts":
        return offers.prompts_of(document.get("prompts"))
    return [
        *offers.resources_of(document.get("resources")),
        *offers.templates_of(document.get("resource_templates")),
    ]
