"""News from the LISTEN connection on its way to a Trio task: bounded, in order, never waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio
from attrs import define, field

from controlplane.store.values import Change, Subject

MAILBOX_MAX = 1_000
"""Changes not yet told; more collapse into "everything may have changed"."""


@define(eq=False)
class Mailbox:
    """Put from anywhere in the Trio thread; `deliver` calls back from a Trio task."""

    on_change: Callable[[Change], None]
    on_lost: Callable[[str], None]
    _news: deque[Change | str] = field(factory=deque, init=False)
    _wake: trio.Event = field(factory=trio.Event, init=False)

    def changed(self, change: Change) -> None:
        if len(self._news) >= MAILBOX_MAX:
            self._news.clear()
            change = Change(Subject.EVERYTHING)
        self._put(change)

    def lost(self, reason: str) -> None:
        self._put(reason)

    def _put(self, item: Change | str) -> None:
        self._news.append(item)
        self._wake.set()

    async def deliver(self) -> None:
        """Hand over news for ever; the only task that waits here."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._news:
                item = self._news.popleft()
                if isinstance(item, Change):
                    self.on_change(item)
                else:
                    self.on_lost(item)
