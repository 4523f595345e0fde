"""The control plane that holds a home now: who it is, by the kernel's word, and how it is asked to stop.

A pid in a file may be anybody's a moment later, or be from another container. So the process is pinned first
(`pidfd_open`), then the kernel must say that it is this one that holds the lock, and only then is it signalled.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import frozen

from controlplane.home import HomeUnusable

LOCKS = Path("/proc/locks")
"""Who holds which lock, on the whole host; pids are those of the reader's own namespace."""
_FLOCK = re.compile(r"\d+: FLOCK +ADVISORY +WRITE (\d+) [0-9a-f]+:[0-9a-f]+:(\d+) 0 EOF")


@frozen
class Predecessor:
    """A control plane that runs; `pidfd` is this very process, whatever becomes of the number."""

    pid: int
    pidfd: int

    def ask_to_stop(self) -> None:
        """Ask it to stop in order. One that has ended meanwhile is no error."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGTERM)


@contextmanager
def find(home: Path) -> Iterator[Predecessor | None]:
    """Who holds the lock of a home; None if nobody does.

    Raises:
        HomeUnusable: somebody does, who cannot be told from others, or is another user's.
        OSError: the lock cannot be read.
    """
    try:
        lock = os.open(home / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield None
        return
    try:
        if _take(lock):
            yield None
            return
        pid = holder_in(LOCKS.read_text() if LOCKS.exists() else "", os.fstat(lock).st_ino)
        pidfd = _open(pid) if pid is not None else None
        if pid is None or pidfd is None or not _still_holds(pid, lock):
            raise HomeUnusable(
                f"{home} is in use, and this system does not tell by which process (it may run in another container): "
                "stop that control plane where it runs, then start without --replace"
            )
        try:
            if (uid := _effective_user(pid)) != os.geteuid():
                raise HomeUnusable(f"{home} is held by process {pid} of user {uid}: take over as that user")
            yield Predecessor(pid, pidfd)
        finally:
            os.close(pidfd)
    finally:
        os.close(lock)


def holder_in(locks: str, inode: int) -> int | None:
    """Whom `/proc/locks` names for the file; None where it names nobody, or more than one (two files, one number)."""
    found = {int(pid) for pid, number in _FLOCK.findall(locks) if int(number) == inode and int(pid) > 0}
    return found.pop() if len(found) == 1 else None


def _take(lock: int) -> bool:
    """Whether the lock was free; it is given back at once."""
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(lock, fcntl.LOCK_UN)
    return True


def _still_holds(pid: int, lock: int) -> bool:
    """Asked once more, now that the process is pinned: the number cannot have changed hands in between."""
    return holder_in(LOCKS.read_text(), os.fstat(lock).st_ino) == pid


def _open(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.EINVAL):
            return None
        raise


def _effective_user(pid: int) -> int:
    """From its `status`: the folder in /proc belongs to root where a process may not be looked into."""
    found = re.search(r"^Uid:\s+\d+\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) if found else -1
