"""Give an instance a tree of its own from an install, and mend it at every start.

Its folders are the instance's user's, so a server may make files beside its code.
What is listed as installed is hard links to the store's files, which belong to
Corral and which nobody may write or re-mode; all else is copies of the instance's
own. Links are made as they are, and never followed.

    <above>/.<name>.json    which install the tree is of; out of the instance's reach, as the folder above is Corral's
    <above>/.<name>.new     a tree that is being made
    <above>/.<name>.old     one that a new one took the place of, until it is removed
    <above>/.<name>.part    a copy that is being written

While this works, nothing runs as the instance's user; whatever it did before, it
may have done to any part of the tree.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

from attrs import asdict, define, evolve, field, frozen

from controlplane.deploy import trees
from controlplane.deploy.installs.files import (
    READ,
    WRITE_NEW,
    copy,
    opened,
    sync,
    sync_all,
    write_new,
)
from controlplane.deploy.installs.manifest import FOLDER_MODE, PROGRAM_MODE, Manifest, is_below
from controlplane.spawn.diskuse import FOLDER

TOP_MODE = 0o700
OWN_FILE_MODE = 0o644
OWN_PROGRAM_MODE = 0o755
CANNOT_LINK = frozenset({errno.EMLINK, errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP})
"""Too many names, another file system, or one (or a container) that gives no second name: then it is copied."""


@frozen(kw_only=True)
class Linked:
    """What it took. All numbers are 0 when a tree was as it should be."""

    is_new: bool
    folders: int
    linked: int
    copied: int
    """Own files, and installed ones that could not be linked."""
    links: int


@frozen(kw_only=True)
class _Marker:
    """`build` tells two builds of one key apart; `inode` is the tree's own folder's."""

    key: str
    build: str
    installed: tuple[str, ...]
    inode: int

    @classmethod
    def read(cls, path: Path) -> _Marker | None:
        try:
            with opened(path, READ) as fd, open(fd, "rb", closefd=False) as file:
                members: dict[str, Any] = json.loads(file.read())
            return cls(**members | {"installed": tuple(members["installed"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, path: Path) -> None:
        staged = _staged(path)
        write_new(staged, json.dumps(asdict(self)).encode())
        sync(staged)
        staged.replace(path)

    def is_of(self, folder: Path) -> bool:
        try:
            status = folder.lstat()
        except FileNotFoundError:
            return False
        return stat.S_ISDIR(status.st_mode) and status.st_ino == self.inode


def link_tree(
    source: Path,
    manifest: Manifest,
    folder: Path,
    *,
    key: str,
    build: str,
    uid: int | None,
    installed: tuple[str, ...],
) -> Linked:
    """Make or mend an instance's tree. Blocking.

    Args:
        source: The install's tree; nobody changes or removes it meanwhile.
        manifest: What is in it.
        folder: Where the instance's goes. The one above is Corral's own, and on the same file system.
        key: Of the install.
        build: Tells this build of the key from any other.
        uid: Whose the tree is; None: Corral's own user's.
        installed: Paths in the tree whose files are shared.

    Raises:
        OSError: the tree is not whole.
    """
    above = folder.parent
    marker, new, old = (above / f".{folder.name}.{ending}" for ending in ("json", "new", "old"))
    wanted = _Marker(key=key, build=build, installed=installed, inode=0)
    found = _Marker.read(marker)
    if found is not None and found.is_of(
        old
    ):  # a crash came before the marker was written: nobody has used the new one
        trees.remove(folder)
        old.rename(folder)
    for left in (new, old, _staged(marker)):
        trees.remove(left)
    fits = found is not None and found.is_of(folder) and _fits(found, wanted)
    target = folder if fits else new
    if not fits:
        new.mkdir(mode=TOP_MODE)
    if fits and uid is not None and (before := folder.lstat().st_uid) != uid:
        trees.give(folder, before, uid)
    with opened(source) as at, opened(target) as top:
        linking = _Linking(
            source=at,
            manifest=manifest,
            scratch=above / f".{folder.name}.part",
            uid=uid,
            installed=installed,
            takes_copies=found is not None and found.build == build,
        )
        linking.run(top)
        done = evolve(wanted, inode=os.fstat(top).st_ino)
    if linking.copied:
        sync_all(target)
    if not fits:
        if os.path.lexists(folder):
            folder.rename(old)
        new.rename(folder)
    if done != found:
        done.write(marker)
    trees.remove(old)
    return Linked(
        is_new=not fits, folders=linking.folders, linked=linking.linked, copied=linking.copied, links=linking.links
    )


def drop_tree(folder: Path) -> None:
    """Remove an instance's tree and all that belongs to it. Blocking.

    Raises:
        OSError: something is left.
    """
    trees.remove(folder)
    for ending in ("new", "old", "part", "json.new", "json"):
        trees.remove(folder.with_name(f".{folder.name}.{ending}"))


def _staged(marker: Path) -> Path:
    return marker.with_name(f"{marker.name}.new")


def _fits(found: _Marker, wanted: _Marker) -> bool:
    return (found.key, found.installed) == (wanted.key, wanted.installed)


@define(kw_only=True)
class _Linking:
    source: int
    manifest: Manifest
    scratch: Path
    uid: int | None
    installed: tuple[str, ...]
    takes_copies: bool
    """Whether an installed file may be a copy: not one of another build of the key, which may have been damaged."""
    folders: int = field(default=0, init=False)
    linked: int = field(default=0, init=False)
    copied: int = field(default=0, init=False)
    links: int = field(default=0, init=False)

    def run(self, top: int) -> None:
        trees.remove(self.scratch)
        open_folders: list[tuple[str, int]] = [("", top)]
        try:
            for path, entries in self.manifest.by_folder().items():
                if path:
                    parent, _, name = path.rpartition("/")
                    while open_folders[-1][0] != parent:
                        os.close(open_folders.pop()[1])
                    open_folders.append((path, self._folder(open_folders[-1][1], name)))
                shared = is_below(path, self.installed)
                for name, inside in entries:
                    self._entry(open_folders[-1][1], name, inside, shared=shared or is_below(inside, self.installed))
        finally:
            for _, fd in open_folders[1:]:
                os.close(fd)
        # Last: until then nobody else can enter a new tree, not even a process of the same user that runs meanwhile.
        self._own(top, TOP_MODE, os.fstat(top))

    def _folder(self, at: int, name: str) -> int:
        """Enter a folder; whatever else the instance has put in its place is removed, not followed."""
        status = _lstat(at, name)
        if status is None or not stat.S_ISDIR(status.st_mode):
            trees.remove_at(at, name)
            os.mkdir(name, FOLDER_MODE, dir_fd=at)
            self.folders += 1
        elif status.st_mode & TOP_MODE != TOP_MODE:  # closed by its own user, who may be us
            trees.make_enterable(name, at)
        fd = os.open(name, FOLDER, dir_fd=at)
        self._own(fd, FOLDER_MODE, os.fstat(fd))
        return fd

    def _own(self, fd: int, mode: int, status: os.stat_result) -> None:
        if self.uid is not None and status.st_uid != self.uid:
            os.fchmod(fd, mode)
            os.fchown(fd, self.uid, self.uid)

    def _entry(self, at: int, name: str, path: str, *, shared: bool) -> None:
        found = _lstat(at, name)
        if found is not None and not shared:
            return  # its own, whatever it has made of it
        if (target := self.manifest.links.get(path)) is not None:
            self._link(at, name, target, found)
        elif not shared:
            self._copy(at, name, path, shared=False)
        elif found is None or not self._is_intact(path, found):
            self._share(at, name, path)

    def _link(self, at: int, name: str, target: str, found: os.stat_result | None) -> None:
        if found is not None and stat.S_ISLNK(found.st_mode) and os.readlink(name, dir_fd=at) == target:
            return
        trees.remove_at(at, name)
        os.symlink(target, name, dir_fd=at)
        if self.uid is not None:
            os.chown(name, self.uid, self.uid, dir_fd=at, follow_symlinks=False)
        self.links += 1

    def _is_intact(self, path: str, found: os.stat_result) -> bool:
        status = os.lstat(path, dir_fd=self.source)
        if os.path.samestat(found, status):
            return True
        return self.takes_copies and found.st_nlink == 1 and _traits(found) == _traits(status)

    def _share(self, at: int, name: str, path: str) -> None:
        trees.remove_at(at, name)
        try:
            os.link(path, name, src_dir_fd=self.source, dst_dir_fd=at, follow_symlinks=False)
        except OSError as error:
            if error.errno not in CANNOT_LINK:
                raise
            self._copy(at, name, path, shared=True)
        else:
            self.linked += 1

    def _copy(self, at: int, name: str, path: str, *, shared: bool) -> None:
        """A whole file or none: it is written where the instance never looks."""
        sealed = self.manifest.files[path].mode
        own = OWN_PROGRAM_MODE if sealed == PROGRAM_MODE else OWN_FILE_MODE
        with opened(path, READ, at=self.source) as source, opened(self.scratch, WRITE_NEW) as target:
            copy(source, target)
            os.fchmod(target, sealed if shared else own)
            if self.uid is not None and not shared:
                os.fchown(target, self.uid, self.uid)
        os.rename(self.scratch, name, dst_dir_fd=at)
        self.copied += 1


def _lstat(at: int, name: str) -> os.stat_result | None:
    try:
        return os.lstat(name, dir_fd=at)
    except FileNotFoundError:
        return None


def _traits(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_mode, status.st_uid, status.st_size, status.st_mtime_ns)
