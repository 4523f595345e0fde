"""The spawner's account of control groups: which job is in which, and that a group goes with its last job.

Standard library only: the spawner runs without site-packages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controlplane.spawn.cgroups import GroupLimits, Hierarchy


class Groups:
    """All groups of this life. Nothing here waits: what is not empty yet is tried again at the next `advance`."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.hierarchy = hierarchy
        self._group_of: dict[str, str] = {}  # job key to group name
        self._leaving: set[str] = set()

    @property
    def is_settled(self) -> bool:
        """Whether no group is waiting to be removed."""
        return not self._leaving

    def admit(self, job: str, name: str, limits: GroupLimits) -> None:
        """Before a job is forked: there is a group for it with these limits, which hold for all that are in it.

        Raises:
            OSError: the kernel refuses; the job is not recorded.
            ValueError: `name` is no name for a group.
        """
        try:
            self.hierarchy.make(name, limits)
        except OSError:
            if name not in self._group_of.values():
                self.hierarchy.remove(name)
            raise
        self._group_of[job] = name
        self._leaving.discard(name)

    def dismiss(self, job: str) -> None:
        """A job and all that it had is gone, or it never came to be."""
        name = self._group_of.pop(job, None)
        if name is not None and name not in self._group_of.values():
            self._leaving.add(name)
            self.advance()

    def advance(self) -> None:
        """Kill what is left in groups without a job, and remove those that are empty."""
        for name in [*self._leaving]:
            if self.hierarchy.kill(name) and self.hierarchy.remove(name):
                self._leaving.discard(name)

    def dismiss_all(self) -> None:
        """At the end: no job is needed any more."""
        self._leaving.update(self._group_of.values())
        self._group_of.clear()
        self.advance()
