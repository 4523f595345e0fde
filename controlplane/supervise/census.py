"""Which processes there are, without reading all of a busy host's in each pass.

A file of /proc costs some 20 µs to read. What does not descend from the control
plane is none of its instances', and never comes to be: everything that instances
start stays below the spawner. So of those others only a share is read again in each
pass, in case another process has got the pid.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from attrs import define, field

from controlplane.spawn import proctree

AGAIN_EVERY = 10
"""Passes in which each process of others is read once."""
NOBODY = 0
"""The parent of a namespace's first process, and of what was put into it from outside."""


@define(eq=False)
class Census:
    """Of what descends from `top`. Blocks: for one worker thread at a time."""

    top: int = field(factory=os.getpid)
    _others: set[int] = field(factory=set, init=False)
    _passes: int = field(default=0, init=False)

    def take(self) -> dict[int, proctree.Proc]:
        """Every process below `top` by pid, and some that are not."""
        self._passes += 1
        turn = self._passes % AGAIN_EVERY
        there = {int(name) for name in os.listdir("/proc") if name[0] in "123456789"}
        self._others &= there
        known = {pid for pid in self._others if pid % AGAIN_EVERY != turn}
        found = {pid: proc for pid in there - known if (proc := proctree.look(pid)) is not None}
        self._others = known | self._not_below(found, known)
        return found

    def _not_below(self, found: Mapping[int, proctree.Proc], known: set[int]) -> set[int]:
        """Those whose parents do not lead to `top`; each is looked at once.

        Where they lead to one that has ended meanwhile, the next pass tells: the spawner may have got its children.
        """
        is_below = {self.top: True}
        for start in found:
            chain, pid = [], start
            while pid not in is_below and pid in found:
                is_below[pid] = False  # ends the walk should a reused pid have made a ring of this
                chain.append(pid)
                pid = found[pid].ppid
            has_ended = pid not in found and pid not in known and pid != NOBODY
            verdict = is_below.get(pid, has_ended)
            is_below.update(dict.fromkeys(chain, verdict))
        return {pid for pid in found if not is_below[pid]}
