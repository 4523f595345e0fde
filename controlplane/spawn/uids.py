"""User ids for instances, each given to one instance on the whole host.

Claims are byte-range locks on one file: they end with the processes that hold
the file open, however they end, and two control planes never share a user.
Outside root there is nothing to claim, and `claim` returns None.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import secrets
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import define, field

from controlplane.spawn.pool import FIRST_UID, LAST_UID, is_pooled
from controlplane.spawn.proctree import scan

DIRECTORIES = (Path("/run/corral"), Path("/dev/shm/corral"))  # noqa: S108
"""The first that works: /run is read-only in some containers. All control planes of a host come to the same one."""
COUNT = LAST_UID - FIRST_UID + 1
FLOCK_FORMAT = "hhqqi4x"
"""`struct flock` on 64-bit Linux: type, whence, start, length, pid."""


class UidsExhausted(Exception):
    """Every user id of the range is in use on this host."""

    def __init__(self) -> None:
        super().__init__(f"all {COUNT} user ids from {FIRST_UID} to {LAST_UID} are in use on this host")


@define(eq=False)
class UidPool:
    """The claims of this control plane. `_fd` is -1 where there is nothing to claim."""

    _fd: int
    _claimed: set[int] = field(factory=set, init=False)
    _next: int = field(factory=lambda: secrets.randbelow(COUNT), init=False)
    """Claims go round the range, so that a user is reused as late as can be."""

    @property
    def held_fds(self) -> tuple[int, ...]:
        """What another process keeps open to keep the claims."""
        return (self._fd,) if self._fd >= 0 else ()

    def claim(self, preferred: int | None = None) -> int | None:
        """Take a user id that no account and no process of this host has; None outside root.

        Args:
            preferred: Taken if it is free: what an instance had before, whose files it owns.

        Raises:
            UidsExhausted: there is none.
        """
        if self._fd < 0:
            return None
        running = {proc.uid for proc in scan().values()}
        for uid in self._candidates(preferred):
            if uid not in self._claimed and uid not in running and not has_account(uid) and self._lock(uid):
                self._claimed.add(uid)
                return uid
        raise UidsExhausted

    def release(self, uid: int | None) -> None:
        """Give a user id back, once nothing runs as it and it owns no file."""
        if uid is not None and uid in self._claimed:
            self._claimed.discard(uid)
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_UNLCK, uid))

    def _candidates(self, preferred: int | None) -> Iterator[int]:
        if preferred is not None and is_pooled(preferred):
            yield preferred
        for _ in range(COUNT):
            uid = FIRST_UID + self._next
            self._next = (self._next + 1) % COUNT
            yield uid

    def _lock(self, uid: int) -> bool:
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK, uid))
        except (BlockingIOError, PermissionError):
            return False
        return True


@contextmanager
def open_uid_pool(*directories: Path) -> Iterator[UidPool]:
    """Open the host's pool of user ids; closing it gives back all claims that no spawner holds.

    Args:
        directories: Where the claims are kept: the first that can be used.

    Raises:
        OSError: Corral is root and none of the folders can be used.
    """
    if os.geteuid() != 0:
        yield UidPool(-1)
        return
    fd = _open_claims(directories or DIRECTORIES)
    try:
        yield UidPool(fd)
    finally:
        os.close(fd)


def _open_claims(directories: Sequence[Path]) -> int:
    for directory in directories:
        try:
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            found = directory.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o022:
                continue  # somebody else's, in a place where everybody may make folders
            return os.open(directory / "uids", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            continue
    places = " or ".join(map(str, directories))
    raise OSError(errno.EROFS, f"user ids of instances are claimed in {places}: one of them must be writable")


def _flock(kind: int, uid: int) -> bytes:
    return struct.pack(FLOCK_FORMAT, kind, os.SEEK_SET, uid, 1, 0)


def has_account(uid: int) -> bool:
    """Whether the host knows the user by name."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
