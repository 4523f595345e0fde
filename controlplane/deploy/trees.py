"""Give away and remove trees that somebody hostile may have built.

No link is followed. Everything is named relative to an open folder, so no path
is too long and none can be swapped on the way; depth costs neither stack nor
descriptors. While a tree is given away, nothing runs as its owner; where one is
removed beside a running process of the owner's, something may be left, no more.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from attrs import define

from controlplane.spawn.diskuse import FOLDER


def give(folder: Path, before: int, uid: int) -> None:
    """Hand what belongs to `before` to `uid`, the folder itself last; what belongs to neither is left alone.

    So is a file of Corral's own that has more than one name: others have it too.

    Raises:
        OSError: a part could not be given.
    """
    fd = os.open(folder, FOLDER)
    try:
        for at, name, status in _bottom_up(fd, unlock=False):
            if status.st_uid == before and not _is_shared(status):
                os.chown(name, uid, uid, dir_fd=at, follow_symlinks=False)
        os.fchown(fd, uid, uid)
    finally:
        os.close(fd)


def remove(path: Path) -> None:
    """Remove whatever stands there, as far as it can be; fine if nothing does.

    Raises:
        OSError: something is left.
    """
    _remove(path, None)


def remove_at(at: int, name: str) -> None:
    """The same for an entry of an open folder.

    Raises:
        OSError: something is left.
    """
    _remove(name, at)


def _remove(path: Path | str, at: int | None) -> None:
    try:
        if not stat.S_ISDIR(os.lstat(path, dir_fd=at).st_mode):
            os.unlink(path, dir_fd=at)
            return
    except FileNotFoundError:
        return
    make_enterable(path, at)
    fd = os.open(path, FOLDER, dir_fd=at)
    try:
        for inside, name, status in _bottom_up(fd, unlock=True):
            with suppress(OSError):  # the folder above will not go either, and says so
                os.rmdir(name, dir_fd=inside) if stat.S_ISDIR(status.st_mode) else os.unlink(name, dir_fd=inside)
    finally:
        os.close(fd)
    os.rmdir(path, dir_fd=at)


def _is_shared(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_nlink > 1 and status.st_uid == os.geteuid()


@define
class _Level:
    """A folder on the way down: who it is, and what of it is still to be seen."""

    status: os.stat_result
    names: Iterator[str]
    name: str = ""

    @classmethod
    def of(cls, fd: int, name: str = "") -> _Level:
        return cls(os.fstat(fd), iter(os.listdir(fd)), name)

    def is_at(self, fd: int) -> bool:
        return os.path.samestat(self.status, os.fstat(fd))


def _bottom_up(top: int, *, unlock: bool) -> Iterator[tuple[int, str, os.stat_result]]:
    """Every entry below `top`, after everything below it, with the open folder that it is in.

    One folder is open at a time. The way back up is `..`, which must lead to
    where it came from.
    """
    fd = os.dup(top)
    levels = [_Level.of(fd)]
    try:
        while True:
            level = levels[-1]
            name = next(level.names, None)
            if name is None:
                levels.pop()
                if not levels:
                    return
                fd = _reopen(fd, "..")
                if not levels[-1].is_at(fd):
                    raise OSError("a folder was moved while its tree was being walked")
                yield fd, level.name, level.status
                continue
            status = os.lstat(name, dir_fd=fd)
            if stat.S_ISDIR(status.st_mode) and _can_enter(fd, name, unlock=unlock):
                fd = _reopen(fd, name)
                levels.append(_Level.of(fd, name))
            else:
                yield fd, name, status
    finally:
        os.close(fd)


def _reopen(fd: int, name: str) -> int:
    opened = os.open(name, FOLDER, dir_fd=fd)
    os.close(fd)
    return opened


def make_enterable(path: Path | str, at: int | None) -> None:
    """A plain user cannot empty a folder of its own that it has closed to itself. Never through a link put there now."""
    with suppress(OSError):
        fd = os.open(path, os.O_PATH | FOLDER, dir_fd=at)
        try:
            os.chmod(f"/proc/self/fd/{fd}", stat.S_IRWXU)  # fchmod does not take what is open as a path
        finally:
            os.close(fd)


def _can_enter(fd: int, name: str, *, unlock: bool) -> bool:
    if unlock:
        make_enterable(name, fd)
    return os.access(name, os.R_OK | os.X_OK, dir_fd=fd)
