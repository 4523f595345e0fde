"""Small things with files that sealing, checking and linking share. Blocking."""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

from controlplane.spawn.diskuse import FOLDER

CHUNK_BYTES = 2**20
"""Read at once: most files of an install are smaller."""
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
WRITE_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def opened(
    name: str | os.PathLike[str], flags: int = FOLDER, *, at: int | None = None, mode: int = 0o600
) -> Iterator[int]:
    """A descriptor, closed at the end."""
    fd = os.open(name, flags, mode, dir_fd=at)
    try:
        yield fd
    finally:
        os.close(fd)


def chunks(fd: int) -> Iterator[bytes]:
    """An open file from where it stands to its end."""
    while chunk := os.read(fd, CHUNK_BYTES):
        yield chunk


def sha256_of(fd: int) -> str:
    """Of an open file, from where it stands to its end, in hexadecimal."""
    digest = hashlib.sha256()
    for chunk in chunks(fd):
        digest.update(chunk)
    return digest.hexdigest()


def copy(source: int, target: int) -> None:
    """All bytes, from where both stand, and the time of the last change."""
    for chunk in chunks(source):
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(target, rest) :]
    changed = os.fstat(source).st_mtime_ns
    os.utime(target, ns=(changed, changed))


def write_new(name: str | os.PathLike[str], content: bytes, *, at: int | None = None, mode: int = 0o600) -> None:
    """Write a file where none is."""
    with opened(name, WRITE_NEW, at=at, mode=mode) as fd, open(fd, "wb", closefd=False) as file:
        file.write(content)


def sync(path: str | os.PathLike[str]) -> None:
    """Bring one file or folder to the disk."""
    with opened(path, READ) as fd:
        os.fsync(fd)


def sync_all(folder: str | os.PathLike[str]) -> None:
    """Bring everything written to the folder's file system to the disk: far quicker than thousands of single files."""
    with opened(folder) as fd:
        syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if syncfs is None:
            os.sync()
        elif syncfs(fd) != 0:
            errno = ctypes.get_errno()
            raise OSError(errno, os.strerror(errno), str(folder))
