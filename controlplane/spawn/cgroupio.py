"""One control group as a folder: its limits, what it uses, its members, its end.

Blocks for microseconds; waits for nothing. Standard library only: the spawner
runs without site-packages.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from controlplane.spawn import cgroupfiles
from controlplane.spawn.cgroupfiles import CPU_PERIOD_US, CpuCount, Driver

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE_BYTES = 1 << 16
"""Above any file that is read here but a list of members."""
KILLS_IN: dict[Driver, str] = {"cgroup2": "memory.events", "cgroup1": "memory.oom_control"}
"""The file that counts the kills for want of memory."""


def write(path: str | Path, value: object) -> None:
    """In one write(2), without making a file where the kernel has none."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(value).encode())
    finally:
        os.close(fd)


def read(path: str) -> str | None:
    """Whole; None where this kernel has no such file, or the group is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(fd, FILE_BYTES).decode("ascii", "replace")
    except OSError:
        return None
    finally:
        os.close(fd)


def children(folder: Path) -> list[Path]:
    """The groups in a folder; none when it is gone."""
    try:
        return [child for child in folder.iterdir() if child.is_dir()]
    except OSError:
        return []


def make_folder(driver: Driver, above: Path, name: str) -> None:
    """Make a group if it is not there, and the folder above it, which goes with the last group."""
    group = above / name
    if group.is_dir():
        return
    above.mkdir(exist_ok=True)
    if driver == "cgroup2":
        share_out(above)
    group.mkdir(exist_ok=True)


def controllers(folder: Path) -> frozenset[str]:
    """Which controllers of use a folder of version 2 has itself."""
    return frozenset((read(f"{folder}/cgroup.controllers") or "").split()) & {*cgroupfiles.CONTROLLERS}


def shared_out(folder: Path) -> frozenset[str]:
    """Which of them the groups below it have."""
    return frozenset((read(f"{folder}/cgroup.subtree_control") or "").split()) & {*cgroupfiles.CONTROLLERS}


def share_out(folder: Path) -> frozenset[str]:
    """Give them to the groups below it; says which those have now."""
    for controller in controllers(folder) - shared_out(folder):
        with suppress(OSError):  # one that cannot be shared out must not cost the others
            write(folder / "cgroup.subtree_control", f"+{controller}")
    return shared_out(folder)


def take_back(folder: Path) -> None:
    """Undo `share_out`; what a group below has shared out in turn stays."""
    for controller in shared_out(folder):
        with suppress(OSError):
            write(folder / "cgroup.subtree_control", f"-{controller}")


# Limits


def limit_memory(driver: Driver, group: str, limit: int | None) -> None:
    """Swap is memory too: a group that may use it without end has no limit."""
    if driver == "cgroup2":
        with suppress(FileNotFoundError):  # a kernel without swap accounting
            write(f"{group}/memory.swap.max", "max" if limit is None else 0)
        with suppress(FileNotFoundError):  # before Linux 4.19
            write(f"{group}/memory.oom.group", int(limit is not None))  # half a tree answers nobody
        write(f"{group}/memory.max", "max" if limit is None else limit)
        return
    value = -1 if limit is None else limit
    files = [f"{group}/memory.limit_in_bytes", f"{group}/memory.memsw.limit_in_bytes"]
    if not Path(files[1]).exists():
        write(f"{group}/memory.swappiness", 60 if limit is None else 0)
        files.pop()
    try:
        for file in files:
            write(file, value)
    except OSError as refused:
        try:
            for file in reversed(files):  # memory and swap together may never be less than memory alone
                write(file, value)
        except OSError:
            raise refused from None  # busy: more is in use


def limit_cpu(driver: Driver, group: str, percent: int | None) -> None:
    """As a quota for each tenth of a second."""
    quota = None if percent is None else cgroupfiles.cpu_quota_us(percent)
    if driver == "cgroup2":
        write(f"{group}/cpu.max", f"{'max' if quota is None else quota} {CPU_PERIOD_US}")
        return
    write(f"{group}/cpu.cfs_period_us", CPU_PERIOD_US)
    write(f"{group}/cpu.cfs_quota_us", -1 if quota is None else quota)


def limit_processes(group: str, count: int | None) -> None:
    """Threads count too."""
    write(f"{group}/pids.max", "max" if count is None else count)


# Usage


def oom_kills(driver: Driver, group: str) -> int | None:
    """`GroupEvents.oom_kills`, from the group's folder where memory is limited."""
    return cgroupfiles.figure(read(f"{group}/{KILLS_IN[driver]}") or "", "oom_kill")


def processes(group: str) -> int | None:
    """`GroupEvents.processes`, from the group's folder where they are limited."""
    return cgroupfiles.number(read(f"{group}/pids.current") or "")


def cpu_count(driver: Driver, group: str) -> CpuCount | None:
    """CPU time alone, from the group's folder where it is counted: one file."""
    path = f"{group}/{'cpu.stat' if driver == 'cgroup2' else 'cpuacct.usage'}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        identity, text = os.fstat(fd).st_ino, os.read(fd, FILE_BYTES).decode("ascii", "replace")
    except OSError:
        return None
    finally:
        os.close(fd)
    is_2 = driver == "cgroup2"
    used = cgroupfiles.figure(text, "usage_usec") if is_2 else _thousandth(cgroupfiles.number(text))
    return None if used is None else CpuCount(identity, used)


def _thousandth(value: int | None) -> int | None:
    return None if value is None else value // 1000


# The end of a group


def own_members(group: Path) -> list[int]:
    """Pids in a group itself, zombies left out; 0 stands for one of another pid namespace."""
    try:
        return [int(word) for word in (group / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def members(group: Path) -> list[int]:
    """Pids in a group and in all below it."""
    return [pid for folder in (group, *_below(group)) for pid in own_members(folder)]


def _below(group: Path) -> Iterator[Path]:
    """What a program made below its own group, deepest last."""
    for child in children(group):
        yield child
        yield from _below(child)


def kill(group: Path) -> None:
    """By the kernel where it can, else one by one while the group stands still, so that none is born meanwhile."""
    try:
        write(group / "cgroup.kill", 1)
    except FileNotFoundError:  # version 1, or before Linux 5.14
        pass
    except OSError:
        return
    else:
        return
    _freeze(group)
    try:
        for pid in members(group):
            _kill_member(pid, f"/{group.parent.name}/{group.name}/")
    finally:
        thaw(group)


def _kill_member(pid: int, group: str) -> None:
    """If it is still in the group: the descriptor is opened first, so whoever is looked at is who gets the signal."""
    if pid in (0, os.getpid()):  # 0: of another pid namespace
        return
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        with suppress(OSError):
            if group in Path(f"/proc/{pid}/cgroup").read_text(errors="replace").replace("\n", "/"):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
    finally:
        os.close(fd)


def _freeze(group: Path) -> None:
    for file, value in (("cgroup.freeze", 1), ("freezer.state", "FROZEN")):
        with suppress(OSError):
            write(group / file, value)


def thaw(group: Path) -> None:
    """Let a group go on that stands still; one that does not is left as it is."""
    for file, value in (("cgroup.freeze", 0), ("freezer.state", "THAWED")):
        with suppress(OSError):
            write(group / file, value)


def remove(group: Path) -> bool:
    """Take a group away with all below it; False while something is in it."""
    for folder in (*reversed([*_below(group)]), group):
        try:
            folder.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True


def tidy(above: Path) -> bool:
    """Take away the folder above the groups if that was the last one; always fine."""
    with suppress(OSError):
        above.rmdir()
    return True
