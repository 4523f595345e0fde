"""Files that processes hold open and no folder has any more, and memory that has a file descriptor and no address."""

from __future__ import annotations

# ruff: noqa: PTH115, PTH116 - a Path per descriptor would double the cost
import os
import stat
from collections.abc import Callable
from typing import TypeVar

from attrs import define, field

from controlplane.spawn import linux

BLOCK_BYTES = 512
"""Unit of `st_blocks` (POSIX stat)."""
DELETED = " (deleted)"
"""Ends a link below /proc/PID/fd to what has no name any more (proc_pid_fd(5))."""
IN_MEMORY = ("/memfd:", "/dev/shm/", "/SYSV")  # noqa: S108 - named, not used
"""Begin links to what is not on a disk."""
T = TypeVar("T")


@define
class Held:
    """By some processes together, each file once. `add` them one by one."""

    disk_bytes: int = 0
    memory_bytes: int = 0
    _seen: set[tuple[int, int]] = field(factory=set)

    def add(self, pid: int, uid: int) -> None:
        """Look through what one process has open; as much as may be seen. Blocking: some µs for each."""
        for link, status in as_itself(pid, uid, lambda: _nameless(f"/proc/{pid}/fd")) or []:
            inode = status.st_dev, status.st_ino
            if inode in self._seen or not stat.S_ISREG(status.st_mode):
                continue
            self._seen.add(inode)
            size = status.st_blocks * BLOCK_BYTES
            if link.startswith(IN_MEMORY):
                self.memory_bytes += size
            elif status.st_nlink == 0:
                self.disk_bytes += size


def _nameless(folder: str) -> list[tuple[str, os.stat_result]]:
    found = []
    for name in os.listdir(folder):
        path = f"{folder}/{name}"
        try:
            link = os.readlink(path)
            if link.endswith(DELETED) or link.startswith(IN_MEMORY):
                found.append((link, os.stat(path)))
        except FileNotFoundError:  # it was just closed
            continue
    return found


def as_itself(pid: int, uid: int, read: Callable[[], T]) -> T | None:
    """Read; as root without CAP_SYS_PTRACE (a default container) with the process's own file system ids."""
    try:
        return read()
    except PermissionError:
        if os.geteuid() != 0:
            return None
    except OSError:
        return None
    try:
        linux.set_filesystem_ids(uid, os.stat(f"/proc/{pid}").st_gid)
        return read()
    except OSError:
        return None
    finally:
        linux.set_filesystem_ids(0, 0)
