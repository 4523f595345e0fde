"""A folder that is being filled, and that nobody else may enter yet.

Everything is made anew, relative to an open folder, and nothing is followed:
what stands where something is to be made is an error. The caller has checked
the names, and makes links last.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, field

if TYPE_CHECKING:
    from controlplane.deploy.source.names import Parts

FOLDER_MODE = 0o700
FILE_MODE, PROGRAM_MODE = 0o600, 0o700
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@define
class NewTree:
    """Open while it is filled. The way to the folder last written to stays open: archives go folder by folder."""

    _way: list[int]
    _parts: list[str] = field(factory=list, init=False)

    def folder(self, parts: Parts) -> None:
        """Make a folder, and those above it, where they are not there yet."""
        self._enter(parts)

    def file(self, parts: Parts, contents: Iterator[bytes], *, is_executable: bool) -> None:
        """Write a new file."""
        at = self._enter(parts[:-1])
        fd = os.open(parts[-1], _NEW_FILE, PROGRAM_MODE if is_executable else FILE_MODE, dir_fd=at)
        try:
            for piece in contents:
                write_all(fd, piece)
        finally:
            os.close(fd)

    def link(self, parts: Parts, target: str) -> None:
        """Make a new symbolic link."""
        os.symlink(target, parts[-1], dir_fd=self._enter(parts[:-1]))

    def close(self) -> None:
        while self._way:
            os.close(self._way.pop())

    def _enter(self, parts: Parts) -> int:
        common = 0
        while common < min(len(parts), len(self._parts)) and parts[common] == self._parts[common]:
            common += 1
        while len(self._parts) > common:
            self._parts.pop()
            os.close(self._way.pop())
        for part in parts[common:]:
            with suppress(FileExistsError):
                os.mkdir(part, FOLDER_MODE, dir_fd=self._way[-1])
            self._way.append(os.open(part, _FOLDER, dir_fd=self._way[-1]))
            self._parts.append(part)
        return self._way[-1]


@contextmanager
def filling(folder: Path) -> Iterator[NewTree]:
    """Fill a folder that was made just now."""
    tree = NewTree([os.open(folder, _FOLDER)])
    try:
        yield tree
    finally:
        tree.close()


def write_all(fd: int, data: bytes) -> None:
    """Write all of it; one `write` may take less."""
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
