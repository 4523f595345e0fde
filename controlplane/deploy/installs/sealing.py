"""Turn what tools have built into something that nobody changes any more.

The tools may have been hostile, and are gone. Nothing here follows a link. After
it, every entry is Corral's own: folders 0755, files 0444 or 0555, no other bit of
a mode, no extended attribute, no ACL, and no file that has a name elsewhere.

    a file with several names     gets an inode of its own: the others may lie where a later build can write
    one that is somebody else's   is refused: a link to it may give away what its owner keeps to itself
    socket, pipe, device          is removed: nobody is at the other end any more
"""

from __future__ import annotations

import logging
import os
import stat
from contextlib import suppress
from pathlib import Path

from attrs import define, field, frozen

from controlplane.deploy.installs.files import (
    READ,
    WRITE_NEW,
    copy,
    opened,
    sha256_of,
)
from controlplane.deploy.installs.manifest import FILE_MODE, FOLDER_MODE, PROGRAM_MODE, File, Manifest
from controlplane.errors import BuildFailed
from controlplane.spawn.diskuse import BLOCK_BYTES

log = logging.getLogger("corral.deploy")

MAX_DEPTH = 128
"""Folders in each other: several times what the deepest of npm's trees has; each is an open descriptor while its content is read."""
MAX_PATH_BYTES = 3072
"""The kernel takes 4,096 for a whole path, and the tree stands at the end of one: a longer one could not be opened."""
MAX_ENTRIES = 500_000
"""Several times the largest installs known; each costs time at every check."""
MAX_PATHS_BYTES = 2**26
"""All paths together: what a manifest holds, in memory too."""
_PRECIOUS = ("security.capability", "system.posix_acl_access", "system.posix_acl_default")
"""Attributes that give rights: a tree that keeps one is not sealed."""


@frozen
class Sealed:
    """What is in a tree, without its papers, and what it takes on the disk."""

    manifest: Manifest
    disk_bytes: int


def seal(tree: Path, limit_bytes: int) -> Sealed:
    """Make a tree Corral's own and unchangeable, and say what is in it. Blocking.

    Args:
        tree: The folder as its tools left it: nothing runs that could change it, and it still belongs to their user.
        limit_bytes: All files together may not be longer.

    Raises:
        BuildFailed: it holds what cannot be kept; the message names it.
        OSError: the disk is full or fails.
    """
    status = tree.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise BuildFailed("the build left no folder to keep")
    if os.geteuid() != 0:
        tree.chmod(stat.S_IRWXU)
    sealing = _Sealing(builder=status.st_uid, scratch=tree.with_name(f".{tree.name}.part"), limit_bytes=limit_bytes)
    with opened(tree) as fd:
        sealing.folder(fd, "", 0)
    manifest = Manifest(folders=frozenset(sealing.folders), files=sealing.files, links=sealing.links, papers={})
    return Sealed(manifest, sealing.blocks * BLOCK_BYTES)


@define
class _Sealing:
    builder: int
    """The user whose files the tools' are."""
    scratch: Path
    limit_bytes: int
    folders: set[str] = field(factory=set)
    files: dict[str, File] = field(factory=dict)
    links: dict[str, str] = field(factory=dict)
    blocks: int = 0
    """Of 512 bytes; no file is counted twice, as none has two names any more."""
    _uid: int = field(factory=os.geteuid)
    _gid: int = field(factory=os.getegid)
    _bytes: int = 0
    _path_bytes: int = 0

    def folder(self, fd: int, path: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise BuildFailed(f"the build made more than {MAX_DEPTH} folders in each other, at {_shown(path)}")
        for name in sorted(os.listdir(fd)):
            self._entry(fd, name, f"{path}/{name}" if path else name, depth)
        _strip(fd, path)
        os.fchown(fd, self._uid, self._gid)
        os.fchmod(fd, FOLDER_MODE)
        self.blocks += os.fstat(fd).st_blocks

    def _entry(self, at: int, name: str, path: str, depth: int) -> None:
        status = os.lstat(name, dir_fd=at)
        self._admit(path, status)
        if stat.S_ISDIR(status.st_mode):
            self.folders.add(path)
            self._unlock(at, name, status)
            with opened(name, at=at) as fd:
                self.folder(fd, path, depth + 1)
        elif stat.S_ISREG(status.st_mode):
            self._file(at, name, path, status)
        elif stat.S_ISLNK(status.st_mode):
            self.links[path] = os.readlink(name, dir_fd=at)
            os.chown(name, self._uid, self._gid, dir_fd=at, follow_symlinks=False)
        else:
            os.unlink(name, dir_fd=at)
            log.info("the build left a socket, pipe or device, which is not kept: %s", _shown(path))

    def _admit(self, path: str, status: os.stat_result) -> None:
        length = len(os.fsencode(path))
        self._path_bytes += length
        if length > MAX_PATH_BYTES:
            raise BuildFailed(f"the build made a path of more than {MAX_PATH_BYTES} bytes: {_shown(path)}")
        entries = len(self.folders) + len(self.files) + len(self.links)
        if entries >= MAX_ENTRIES or self._path_bytes > MAX_PATHS_BYTES:
            raise BuildFailed(f"the build made too many files: {MAX_ENTRIES} are the most that are kept")
        if status.st_uid not in (self.builder, self._uid):
            raise BuildFailed(f"the build made a link to a file of another user: {_shown(path)}")

    def _file(self, at: int, name: str, path: str, status: os.stat_result) -> None:
        self._bytes += status.st_size
        if self._bytes > self.limit_bytes:
            raise BuildFailed(
                f"the build made more than {self.limit_bytes // 2**20} MiB, which is all that may be kept"
            )
        self._unlock(at, name, status)
        if status.st_nlink > 1:
            self._break_up(at, name, path, status)
        mode = PROGRAM_MODE if status.st_mode & stat.S_IXUSR else FILE_MODE
        with opened(name, READ, at=at) as fd:
            _strip(fd, path)
            os.fchown(fd, self._uid, self._gid)
            os.fchmod(fd, mode)
            sealed = os.fstat(fd)
            self.blocks += sealed.st_blocks
            self.files[path] = File(mode, sealed.st_size, sha256_of(fd))

    def _break_up(self, at: int, name: str, path: str, status: os.stat_result) -> None:
        """Put a copy in the place of a file that has other names."""
        if self._uid == 0 and status.st_uid == 0:  # no tool runs as root, so this can be any file of the host
            raise BuildFailed(f"the build made a link to a file of another user: {_shown(path)}")
        with opened(name, READ, at=at) as source, opened(self.scratch, WRITE_NEW) as target:
            copy(source, target)
        os.rename(self.scratch, name, dst_dir_fd=at)

    def _unlock(self, at: int, name: str, status: os.stat_result) -> None:
        """Root may read anything; a plain user's tools may have closed their own to it."""
        if self._uid != 0 and status.st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.chmod(name, stat.S_IMODE(status.st_mode) | stat.S_IRWXU, dir_fd=at)


def _strip(fd: int, path: str) -> None:
    try:
        names = os.listxattr(fd)
    except OSError:  # this file system has none
        return
    for name in names:
        with suppress(OSError):  # some are the system's own, as SELinux's label
            os.removexattr(fd, name)
    if names and (left := set(os.listxattr(fd)).intersection(_PRECIOUS)):
        raise BuildFailed(f"the build left rights that cannot be taken away, {', '.join(left)}, on {_shown(path)}")


def _shown(path: str) -> str:
    """A path that somebody else has chosen, for a message: short, and in one line."""
    return ascii(path if len(path) <= 200 else f"{path[:80]}…{path[-80:]}")
