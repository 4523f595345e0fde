"""Hard limits: one control group per instance, below a folder of this control plane's own.

`find` looks for where groups can really be made, by making one; the `Hierarchy`
it returns is a value that both the spawner, which makes groups and has children
enter them, and the control plane, which reads what they use, can hold. Version
1 has a folder per controller, version 2 one for all.

Blocks for microseconds, except for `find` and `sweep`. Standard library only:
the spawner runs without site-packages.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import NamedTuple

from controlplane.spawn import cgroupfiles, cgroupio, cgroupsplit, trials
from controlplane.spawn.cgroupfiles import CpuCount, Driver, GroupEvents, GroupLimits, Place

__all__ = ["CpuCount", "GroupEvents", "GroupLimits", "Hierarchy", "find", "folder_name", "own_places", "sweep"]

ALSO_1 = ("cpuacct", "freezer")
"""What version 1 has in hierarchies of their own, and version 2 in every group."""
ENTRANCES: dict[Driver, str] = {"cgroup1": "tasks", "cgroup2": "cgroup.procs"}
"""Moving one thread waits for nobody; moving a whole process waits until every CPU has looked up, some 5 ms. Version 2
moves whole processes only."""
SWEEP_LIMIT_S = 5.0
"""For what an earlier life left in its groups to end."""
SWEEP_PAUSE_S = 0.01
TRIED_LIMITS = GroupLimits(memory_bytes=64 << 20, cpu_percent=50, processes=20)
"""What `find` gives the group that it tries."""
SWEEP_DEPTH = 12
"""Folders below a mount point that leftovers are looked for in."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


class Hierarchy(NamedTuple):
    """Where this control plane's groups are: the folder above them for each purpose, None where there is none.

    Args:
        memory: Without it, memory cannot be limited; so for `cpu` and `processes`.
        accounting: Where CPU time is counted.
        freezer: Where a group can be made to stand still.
    """

    driver: Driver
    memory: str | None = None
    cpu: str | None = None
    processes: str | None = None
    accounting: str | None = None
    freezer: str | None = None

    @property
    def has_memory(self) -> bool:
        return self.memory is not None

    @property
    def has_cpu(self) -> bool:
        return self.cpu is not None

    @property
    def has_processes(self) -> bool:
        return self.processes is not None

    @property
    def folders(self) -> list[str]:
        """Each once: version 2 has the same for everything."""
        return list(dict.fromkeys(folder for folder in self[1:] if folder is not None))

    def make(self, name: str, limits: GroupLimits) -> None:
        """Make a group, or give the one there is these limits; a limit this hierarchy has no place for is not set.

        Raises:
            OSError: the kernel refuses (a memory limit below what cannot be given back, for one).
        """
        for folder in self.folders:
            cgroupio.make_folder(self.driver, Path(folder), _checked(name))
        if self.memory is not None:
            cgroupio.limit_memory(self.driver, f"{self.memory}/{name}", limits.memory_bytes)
        if self.cpu is not None:
            cgroupio.limit_cpu(self.driver, f"{self.cpu}/{name}", limits.cpu_percent)
        if self.processes is not None:
            cgroupio.limit_processes(f"{self.processes}/{name}", limits.processes)

    def enter(self, name: str) -> None:
        """The calling process, which has one thread, joins, and with it all that it starts from here on.

        Raises:
            OSError: there is no such group, or it may not be entered.
        """
        for folder in self.folders:
            cgroupio.write(f"{folder}/{_checked(name)}/{ENTRANCES[self.driver]}", 0)

    def events(self, name: str) -> GroupEvents | None:
        """Its kills and its processes: two small files. None when there is no group of that name."""
        if not os.access(f"{self.folders[0]}/{_checked(name)}", os.F_OK):
            return None
        return GroupEvents(
            None if self.memory is None else cgroupio.oom_kills(self.driver, f"{self.memory}/{name}"),
            None if self.processes is None else cgroupio.processes(f"{self.processes}/{name}"),
        )

    def cpu_count(self, name: str) -> CpuCount | None:
        """The CPU time of the group alone: one small file, 15 µs. None where it is not counted, or gone."""
        return (
            None if self.accounting is None else cgroupio.cpu_count(self.driver, f"{self.accounting}/{_checked(name)}")
        )

    def kill(self, name: str) -> bool:
        """SIGKILL everything in the group, wherever it has moved in sessions and users; says whether it is empty now.

        Does not wait: what was killed needs a moment to end, so call again until it says so.
        """
        for folder in reversed(self.folders):  # the freezer's first: nothing is born while it is at work
            cgroupio.kill(Path(folder, _checked(name)))
        return not any(cgroupio.members(Path(folder, name)) for folder in self.folders)

    def remove(self, name: str) -> bool:
        """Take an empty group away, and the folder above it with the last one; False while something is in it."""
        removed = [cgroupio.remove(Path(folder, _checked(name))) for folder in self.folders]
        for folder in self.folders:
            cgroupio.tidy(Path(folder))
        return all(removed)

    def names(self) -> list[str]:
        """The groups there are."""
        found = {child.name for folder in self.folders for child in cgroupio.children(Path(folder))}
        return sorted(found)


def find(marker: str) -> Hierarchy | None:
    """Where groups for memory, CPU and processes can be made; None where for none of them. Blocks, and forks.

    Tries for real: a group is made, given a limit, entered by a process, and removed. In version 2
    the processes of a delegated group are moved one level down, since a group with limits below may hold
    none itself; that is done only where all of them are of one tree with this one. Call it before taking
    real-time priority: some kernels refuse to share out CPU time to such a process.

    Args:
        marker: The owner id; the groups are below a folder named for it.
    """
    places = [place for place in own_places() if place.is_writable]
    found = [hierarchy for hierarchy in (_find_2(marker, places), _find_1(marker, places)) if hierarchy is not None]
    return max(found, key=_reach, default=None)  # version 2 where both reach as far


def survey(marker: str) -> Hierarchy | None:
    """What `find` would find, for somebody who makes no groups: one that was split for it is put together again.

    Controllers that the host's topmost group shares out from then on stay shared: they limit nobody by themselves.
    """
    self_name = f"{folder_name(marker)}-self"
    try:
        return find(marker)
    finally:
        for place in own_places():
            own = Path(cgroupsplit.before_split(place, self_name).own)
            cgroupsplit.join(own, own / self_name)


def _reach(hierarchy: Hierarchy | None) -> int:
    """How many of the three it has."""
    if hierarchy is None:
        return 0
    return hierarchy.has_memory + hierarchy.has_cpu + hierarchy.has_processes


def _find_1(marker: str, places: list[Place]) -> Hierarchy | None:
    """Each controller has its own place: below the own group, or as near to it as may be."""
    folders: dict[str, str] = {}
    for place in places:
        wanted = place.controllers & {*cgroupfiles.CONTROLLERS, *ALSO_1}
        above = next((above for above in _upward(place) if wanted and _may_make(marker, above, wanted)), None)
        if above is not None:
            folders.update(dict.fromkeys(wanted, f"{above}/{folder_name(marker)}"))
    found = Hierarchy("cgroup1", *map(folders.get, (*cgroupfiles.CONTROLLERS, *ALSO_1)))
    return found if _reach(found) else None


def _find_2(marker: str, places: list[Place]) -> Hierarchy | None:
    """The own group if it was handed to us whole, else beside it or above: the nearest that has most of the three."""
    self_name = f"{folder_name(marker)}-self"
    best: Hierarchy | None = None
    for place in (cgroupsplit.before_split(place, self_name) for place in places):
        if place.driver != "cgroup2" or not cgroupio.controllers(Path(place.point)):
            continue
        for above in _upward(place):
            controllers = cgroupsplit.sharable(above, place, self_name)
            if len(controllers) > _reach(best) and _may_make(marker, above, controllers):
                best = _at_2(f"{above}/{folder_name(marker)}", controllers)
    return best


def _at_2(folder: str, controllers: frozenset[str]) -> Hierarchy:
    memory, cpu, processes = (folder if name in controllers else None for name in cgroupfiles.CONTROLLERS)
    return Hierarchy("cgroup2", memory, cpu, processes, folder, folder)


def _upward(place: Place) -> list[Path]:
    """The own group and those above it, as far as they can be seen."""
    own = Path(place.own)
    return [folder for folder in (own, *own.parents) if folder.is_relative_to(place.point)]


def _may_make(marker: str, above: Path, controllers: frozenset[str]) -> bool:
    """Whether a group for these can be made below `above`, limited, entered and removed."""
    folder = str(above / folder_name(marker))
    if (above / "cgroup.controllers").exists():
        hierarchy = _at_2(folder, controllers)
    else:
        memory, cpu, processes = (folder if name in controllers else None for name in cgroupfiles.CONTROLLERS)
        hierarchy = Hierarchy("cgroup1", memory, cpu, processes, folder)
    name = f"probe-{os.getpid()}"
    try:
        hierarchy.make(name, TRIED_LIMITS)
        return trials.works(lambda: hierarchy.enter(name))
    except OSError:
        return False
    finally:
        hierarchy.remove(name)


def own_places() -> list[Place]:
    """Where the calling process is; empty without /proc or control groups."""
    try:
        return cgroupfiles.places(
            Path("/proc/self/cgroup").read_text(errors="surrogateescape"),
            Path("/proc/self/mountinfo").read_text(errors="surrogateescape"),
        )
    except OSError:
        return []


def folder_name(marker: str) -> str:
    """The folder that holds all groups of one control plane."""
    return f"corral-{_checked(marker)}"


def sweep(marker: str) -> int:
    """Kill and remove the groups of an earlier life, wherever on this host it was. Blocks, for 5 s at the most.

    The caller holds the home's lock: there is no other control plane of the same owner.

    Returns:
        How many groups there were.
    """
    name = folder_name(marker)
    found = [group for place in own_places() if place.is_writable for group in _left_in(Path(place.point), name)]
    deadline = time.monotonic() + SWEEP_LIMIT_S
    for group in found:
        cgroupio.thaw(group)
        while True:
            cgroupio.kill(group)
            if cgroupio.remove(group) or time.monotonic() > deadline:
                break
            time.sleep(SWEEP_PAUSE_S)
        cgroupio.tidy(group.parent)
    return len({group.name for group in found})


def _left_in(point: Path, name: str) -> list[Path]:
    """The groups below every folder of that name; empty such folders go at once."""
    found = []
    for folder, below, _files in os.walk(point):
        if name in below:
            below.remove(name)
            cgroupio.tidy(Path(folder, name))
            found += cgroupio.children(Path(folder, name))
        if folder.count("/") - str(point).count("/") >= SWEEP_DEPTH:
            below.clear()
    return found


def _checked(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} is no name for a control group")
    return name
