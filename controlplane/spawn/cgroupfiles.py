"""What the kernel writes about control groups (cgroups(7)), read from text: no I/O here.

Where a process is in which hierarchy, and what a group's files say, for both
versions. Standard library only: the spawner runs without site-packages.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Driver = Literal["cgroup2", "cgroup1"]

CONTROLLERS = ("memory", "cpu", "pids")
"""Those that limits need, by the kernel's names."""
CPU_PERIOD_US = 100_000
"""The kernel's own default: a group over its quota stands still until the period ends."""

_ESCAPED = re.compile(r"\\([0-7]{3})")


class Place(NamedTuple):
    """Where this process is in one hierarchy.

    Args:
        controllers: Those of version 1 that are mounted here; in version 2 the folder tells.
        point: The mount point; nothing above it can be seen.
        own: The folder of the process's own group; `point` where that cannot be told.
        is_writable: Whether the file system is.
    """

    driver: Driver
    controllers: frozenset[str]
    point: str
    own: str
    is_writable: bool


class GroupLimits(NamedTuple):
    """What a group may use; None is no limit. `cpu_percent`: 100 is one core. `processes` counts threads too."""

    memory_bytes: int | None = None
    cpu_percent: int | None = None
    processes: int | None = None


class GroupEvents(NamedTuple):
    """What tells that a limit is near or reached; None where the host's groups do not tell.

    Args:
        oom_kills: Processes killed because the group reached its memory limit.
        processes: Processes and threads.
    """

    oom_kills: int | None = None
    processes: int | None = None


class CpuCount(NamedTuple):
    """What a group has used since it was made; another group of its name has another `identity`."""

    identity: int
    used_us: int


def memberships(text: str) -> dict[str, str]:
    """/proc/PID/cgroup as controller to path; version 2's controller is the empty name.

    >>> memberships("4:cpu,cpuacct:/a\\n0::/b\\n")
    {'cpu': '/a', 'cpuacct': '/a', '': '/b'}
    """
    found = {}
    for line in text.splitlines():
        _number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        found.update(dict.fromkeys(names.split(","), path))
    return found


def _unescape(word: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), word)


def _below(point: str, root: str, path: str) -> str:
    """Where a group of that path is, given that the mount shows what is below `root`."""
    root = "" if root == "/" else root
    if path == root or path.startswith(f"{root}/"):
        return (point + path[len(root) :]).rstrip("/") or "/"
    return point  # another namespace's path; what is mounted is all there is


def places(cgroup: str, mountinfo: str) -> list[Place]:
    """Where a process is, from /proc/PID/cgroup and /proc/PID/mountinfo (proc_pid_mountinfo(5)).

    A hierarchy mounted twice counts once: the last mount is the one that is seen.
    """
    paths = memberships(cgroup)
    found: dict[frozenset[str], Place] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        words, kind = before.split(), after.split()
        if len(words) < 6 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        root, point = _unescape(words[3]), _unescape(words[4])
        options = {*kind[2].split(",")}
        driver: Driver = "cgroup2" if kind[0] == "cgroup2" else "cgroup1"
        controllers = frozenset[str]() if driver == "cgroup2" else frozenset(options & paths.keys())
        path = paths.get("" if driver == "cgroup2" else next(iter(controllers), "-"))
        if path is not None:
            writable = "rw" in words[5].split(",") and "rw" in options
            found[controllers] = Place(driver, controllers, point, _below(point, root, path), writable)
    return list(found.values())


def figure(text: str, key: str) -> int | None:
    """One number of a file of lines `key number`, such as memory.stat, cpu.stat, pids.events.

    >>> figure("low 0\\nmax 3\\n", "max")
    3
    """
    start = 0 if text.startswith(f"{key} ") else text.find(f"\n{key} ") + 1
    if start == 0 and not text.startswith(f"{key} "):
        return None
    return number(text[start + len(key) + 1 : (text + "\n").index("\n", start)])


def number(text: str) -> int | None:
    """A file of one number; None for "max" and what is none."""
    word = text.strip()
    return int(word) if word.isdecimal() else None


def cpu_quota_us(percent: int) -> int:
    """What a group may run in each `CPU_PERIOD_US`; the kernel takes no less than 1 ms."""
    return max(1_000, percent * CPU_PERIOD_US // 100)
