"""What trees of files take on the disk that somebody hostile may have built, and may be changing.

No link is followed. Everything is named relative to an open folder, so no path is
too long to be counted. The topmost folders on the way down stay open, whoever moves
them; the way back up from below them is `..`, which must lead to where it came
from, or what is there is counted again. Every entry counts, an empty one too:
inodes run out as bytes do. What cannot be counted to its end says why in `beyond`.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Generator
from pathlib import Path

from attrs import define, field

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""How a folder is opened: never through a link."""
BLOCK_BYTES = 512
"""Unit of `st_blocks` (POSIX stat)."""
ENTRY_BYTES = 4096
"""What an entry counts at the least, for its inode and its name."""
ENTRIES_MAX = 500_000
"""Of one's own; who has more is over any limit."""
LOOKS_PER_ENTRY = 4
"""How many entries may be looked at, others' and those counted again included, for each that may be one's own."""
ENTRIES_PER_STEP = 128
FOLDERS_OPEN = 12
"""At one time in one walk, beside the one that is being read."""
MOVES_MAX = 8
"""How often in one walk the way back up may be lost."""
UNSTEADY = "moves its folders about faster than their contents can be counted"


@define
class Tally:
    """What was counted so far, of what counts."""

    uid: int | None = None
    """Whose; None: everybody's."""
    linked: str | None = None
    """Begins the names of the folders at the top in which a file with several names is nobody's, where all have one user."""
    most: int = ENTRIES_MAX
    size_bytes: int = 0
    entries: int = 0
    beyond: str | None = None
    """Why there is more than was counted, said of whoever has it; None: there is not."""
    _looks: int = 0
    _seen: dict[tuple[int, int], None] = field(factory=dict)
    """Files with several names, in the order in which they were met."""

    def add(self, status: os.stat_result, *, is_linked: bool) -> None:
        self._looks += 1
        if self._counts(status, is_linked=is_linked):
            self.entries += 1
            self.size_bytes += max(ENTRY_BYTES, status.st_blocks * BLOCK_BYTES)
        if self.entries >= self.most or self._looks >= self.most * LOOKS_PER_ENTRY:
            self.beyond = f"has more than {self.most} files and folders, beyond which its disk is not counted"

    def mark(self) -> tuple[int, int, int]:
        """Where `back_to` leads."""
        return self.size_bytes, self.entries, len(self._seen)

    def back_to(self, mark: tuple[int, int, int]) -> None:
        """Forget what was counted since; not that it was looked at."""
        self.size_bytes, self.entries, seen = mark
        while len(self._seen) > seen:
            self._seen.popitem()

    @property
    def is_step(self) -> bool:
        return self._looks % ENTRIES_PER_STEP == 0

    def _counts(self, status: os.stat_result, *, is_linked: bool) -> bool:
        if self.uid is not None and status.st_uid != self.uid:
            return False
        if status.st_nlink == 1 or stat.S_ISDIR(status.st_mode):
            return True
        if is_linked and self.uid is None:
            return False
        inode = status.st_dev, status.st_ino
        if inode in self._seen:
            return False
        self._seen[inode] = None
        return True


@define
class _Level:
    """A folder on the way down: who it is, where it is open, and which folders in it are still to be walked."""

    status: os.stat_result
    fd: int | None
    """None: it was closed on the way down."""
    names: list[str]
    mark: tuple[int, int, int]
    is_linked: bool


def walk(top: str, tally: Tally) -> Generator[None]:
    """Count all below `top`, in steps of some entries; nothing where there is none. Close it to end it early."""
    try:
        fd = os.open(top, FOLDER)
    except OSError:
        return
    way = _Way(tally, [])
    try:
        yield from way.enter(fd, is_linked=False)
        while way.levels and tally.beyond is None:
            yield from way.go_on()
    finally:
        way.close()


def count(tally: Tally, *tops: Path) -> Tally:
    """Count all below some folders at once, of which one may be in another. Blocking."""
    for top in tops:
        if not any(top != other and top.is_relative_to(other) for other in tops):
            for _ in walk(os.fspath(top), tally):
                pass
    return tally


def everything(*tops: Path) -> Tally:
    """Count what is not to be judged, however much it is. Blocking."""
    return count(Tally(most=sys.maxsize), *tops)


@define
class _Way:
    """From the top to the folder that is being read."""

    tally: Tally
    levels: list[_Level]
    moves: int = 0

    def enter(self, fd: int, *, is_linked: bool) -> Generator[None]:
        """Go down into an open folder, which is this way's from now on, and count its entries."""
        level = _Level(os.fstat(fd), fd, [], self.tally.mark(), is_linked)
        self.levels.append(level)
        yield from self._read(level)

    def go_on(self) -> Generator[None]:
        """Into the next folder below, or up."""
        level = self.levels[-1]
        assert level.fd is not None
        if not level.names:
            yield from self._up()
            return
        name = level.names.pop()
        try:
            fd = os.open(name, FOLDER, dir_fd=level.fd)
        except OSError:  # it was just removed, or nobody may enter it
            return
        if len(self.levels) > FOLDERS_OPEN:
            os.close(level.fd)
            level.fd = None
        yield from self.enter(fd, is_linked=level.is_linked or self._begins_linked(name))

    def close(self) -> None:
        while self.levels:
            _close(self.levels.pop())

    def _read(self, level: _Level) -> Generator[None]:
        """Count what is in a folder itself, to the end: then only the names of folders have to be kept."""
        assert level.fd is not None
        tally, at_top = self.tally, len(self.levels) == 1
        try:
            entries = os.scandir(level.fd)
        except OSError:
            return
        with entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:  # it was just removed
                    continue
                linked = level.is_linked or (at_top and self._begins_linked(entry.name))
                tally.add(status, is_linked=linked)
                if tally.beyond is not None:
                    return
                if stat.S_ISDIR(status.st_mode):
                    level.names.append(entry.name)
                if tally.is_step:
                    yield

    def _begins_linked(self, name: str) -> bool:
        return len(self.levels) == 1 and self.tally.linked is not None and name.startswith(self.tally.linked)

    def _up(self) -> Generator[None]:
        left = self.levels.pop()
        if not self.levels or self.levels[-1].fd is not None:
            _close(left)
            return
        above = self.levels[-1]
        try:
            assert left.fd is not None
            above.fd = os.open("..", FOLDER, dir_fd=left.fd)
            is_back = os.path.samestat(above.status, os.fstat(above.fd))
        except OSError:
            is_back = False
        finally:
            _close(left)
        if not is_back:
            yield from self._begin_again()

    def _begin_again(self) -> Generator[None]:
        """A folder was moved on the way: go back to the deepest that stayed open, and count what is in it once more."""
        self.moves += 1
        if self.moves > MOVES_MAX:
            self.tally.beyond = UNSTEADY
            return
        while len(self.levels) > FOLDERS_OPEN:
            _close(self.levels.pop())
        level = self.levels[-1]
        level.names.clear()
        self.tally.back_to(level.mark)
        yield from self._read(level)


def _close(level: _Level) -> None:
    if level.fd is not None:
        os.close(level.fd)
        level.fd = None
