"""Version 2's rule: a group that shares controllers out to groups below may hold no process itself.

So a group that was handed to this control plane whole (systemd's `Delegate=yes`,
a container of its own) is split: its processes move one level down, and the
limited groups come beside them. A group that anything foreign is in is left
alone, and so are the controllers of groups above it, but for the top one.

Standard library only: the spawner runs without site-packages.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from controlplane.spawn import cgroupfiles, cgroupio, proctree
from controlplane.spawn.sweep import with_descendants

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

ROUNDS = 10
"""Passes of moving processes down; one that is born during a pass is met in the next."""
DELEGATION_MARKS = ("user.delegate", "trusted.delegate")
"""What systemd writes on a group that it leaves to somebody (extended attributes)."""


def sharable(above: Path, place: cgroupfiles.Place, self_name: str) -> frozenset[str]:
    """Which controllers groups below `above` can have; splits the own group where that is allowed.

    Args:
        above: The own group or one above it.
        self_name: What the group is called that the own processes move to.
    """
    is_top = not (above / "cgroup.type").exists()  # only the host's topmost group has no such file
    if is_top:
        return cgroupio.share_out(above)
    shared = cgroupio.shared_out(above)
    if str(above) != place.own or len(shared) == len(cgroupfiles.CONTROLLERS):
        return shared
    procs = proctree.scan()
    if not is_handed_over(above, is_visible_top=str(above) == place.point) or not are_kin(
        cgroupio.own_members(above), procs, os.getpid()
    ):
        return frozenset()
    return _split(above, above / self_name)


def before_split(place: cgroupfiles.Place, self_name: str) -> cgroupfiles.Place:
    """As `place` was before an earlier spawner of this life split its group."""
    own = Path(place.own)
    return place._replace(own=str(own.parent)) if own.name == self_name else place


def join(group: Path, leaf: Path) -> None:
    """Undo a split: the processes are back in the group, which shares nothing out. Does nothing where there was none."""
    if not leaf.is_dir():
        return
    cgroupio.take_back(group)
    _move_all(leaf, group)
    cgroupio.remove(leaf)


def is_handed_over(group: Path, *, is_visible_top: bool) -> bool:
    """Whether a group was given to us whole: marked so, owned by a plain user, or all that a container sees."""
    if not os.access(group / "cgroup.subtree_control", os.W_OK):
        return False
    for mark in DELEGATION_MARKS:
        with suppress(OSError):
            if os.getxattr(group, mark) == b"1":
                return True
    return is_visible_top or (os.geteuid() != 0 and group.stat().st_uid == os.geteuid())


def are_kin(pids: Collection[int], procs: Mapping[int, proctree.Proc], me: int) -> bool:
    """Whether all of `pids` are this process, ones it descends from, or ones that its parent started."""
    family = {me}
    above = procs[me].ppid if me in procs else 0
    if above > 1:
        family |= with_descendants(procs, [above])
    while above in procs:
        family.add(above)
        above = procs[above].ppid
    return family.issuperset(pids)


def _split(group: Path, leaf: Path) -> frozenset[str]:
    with suppress(FileExistsError):
        leaf.mkdir()
    _move_all(group, leaf)
    shared = cgroupio.share_out(group)
    if not shared:
        join(group, leaf)
    return shared


def _move_all(origin: Path, target: Path) -> None:
    for _ in range(ROUNDS):
        left = cgroupio.own_members(origin)
        if not left:
            break
        _move(left, target)


def _move(pids: Collection[int], group: Path) -> None:
    for pid in pids:
        with suppress(OSError):  # it has ended, or may not be moved
            cgroupio.write(group / "cgroup.procs", pid)
