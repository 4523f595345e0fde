"""What the launches of one instance use: a tree in its folder, an install in the store.

Two revisions have launches at a time while one takes the other's place, and both
may use the same. What no launch uses any more can go.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio
from attrs import define, field

from controlplane.deploy.installs.linking import drop_tree

if TYPE_CHECKING:
    from pathlib import Path

    from controlplane.deploy.installs.keys import InstallKey

log = logging.getLogger("corral.deploy")


@define(eq=False)
class Lease:
    """Of one launch; its parts are filled in while it is prepared."""

    among: Leases
    tree: Path | None = field(default=None, init=False)
    install: InstallKey | None = field(default=None, init=False)

    async def put(self, tree: Path, make: Callable[[], Awaitable[None]], *, is_candidate: bool) -> None:
        """Make or mend its tree. One that another launch's processes run in is left as it is."""
        async with self.among.turn:
            self.tree = tree
            if not is_candidate or not self.among.has(tree, beside=self):
                await make()

    async def end(self) -> None:
        """Its launch has no process, and will have none: its tree goes, where no other uses it. Twice is once."""
        self.among.forget(self)
        async with self.among.turn:
            if self.tree is None or self.among.has(self.tree):
                return
            try:
                await trio.to_thread.run_sync(drop_tree, self.tree)
            except OSError as error:  # the next start without a process tries again
                log.warning("%s is not used any more, and could not be removed: %s", self.tree, error)


@define(eq=False)
class Leases:
    """All of one instance."""

    turn: trio.Lock = field(factory=trio.Lock, init=False)
    """Held while a tree is made or removed."""
    is_preparing: bool = field(default=False, init=False)
    """What is being built is held already, and is in no lease yet."""
    _given: set[Lease] = field(factory=set, init=False)

    def begin(self) -> Lease:
        """For a launch that is to be prepared."""
        lease = Lease(self)
        self._given.add(lease)
        return lease

    def forget(self, lease: Lease) -> None:
        self._given.discard(lease)

    def forget_others(self, lease: Lease) -> None:
        """No other launch has processes, or will have."""
        self._given &= {lease}

    def has(self, tree: Path, *, beside: Lease | None = None) -> bool:
        """Whether a launch uses this tree, other than that of `beside`."""
        return any(lease.tree == tree for lease in self._given if lease is not beside)

    def installs(self) -> set[InstallKey]:
        return {lease.install for lease in self._given if lease.install is not None}
