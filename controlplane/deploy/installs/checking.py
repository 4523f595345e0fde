"""Whether an install still is what it was when it was sealed. Blocking, and nothing is followed.

Fully: every byte, against the manifest. Quickly: against a stamp of what `stat`
said when it was last checked fully, by this process.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from attrs import define, field

from controlplane.deploy.installs.files import READ, opened, sha256_of
from controlplane.deploy.installs.manifest import FOLDER_MODE, Manifest, ManifestUnreadable

FACTS = "facts.json"
LOCK = "lock"
MANIFEST = "manifest.json"
TREE = "tree"
USED = "used"
"""An empty file whose time is that of the last use; no part of what is checked."""


class Damaged(Exception):
    """An install is not what was sealed.

    Args:
        path: Which part, relative to the install's folder.
        reason: What is wrong with it.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path!a}: {reason}")
        self.path, self.reason = path, reason


def stamp_of(folder: Path) -> bytes:
    """What `stat` says of a whole install, in a few bytes; nothing of it is read.

    Raises:
        OSError: it cannot be looked at.
    """
    with opened(folder) as fd:
        stamping = _Stamping()
        for _ in _walk(fd, "", stamping):
            pass
        return stamping.done()


def check(folder: Path) -> bytes:
    """Read all of an install; returns its stamp.

    Raises:
        Damaged: something is not as it was sealed.
        OSError: it cannot be read.
    """
    with opened(folder) as fd:
        manifest = _manifest(fd)
        stamping = _Stamping()
        checking = _Checking(manifest)
        for at, path, status in _walk(fd, "", stamping):
            checking.see(at, path, status)
        checking.done()
        return stamping.done()


def read_manifest(folder: Path) -> Manifest:
    """Raises: Damaged, OSError."""
    with opened(folder) as fd:
        return _manifest(fd)


def _manifest(at: int) -> Manifest:
    try:
        with opened(MANIFEST, READ, at=at) as fd, open(fd, "rb", closefd=False) as file:
            return Manifest.from_json(file.read())
    except ManifestUnreadable as error:
        raise Damaged(MANIFEST, str(error)) from None
    except FileNotFoundError:
        raise Damaged(MANIFEST, "it is missing") from None


_Look = tuple[os.DirEntry[str], str, os.stat_result]


@define
class _Stamping:
    _digest: hashlib.blake2b = field(factory=lambda: hashlib.blake2b(digest_size=16))

    def see(self, looks: list[_Look]) -> None:
        """All entries of one folder; their `repr` is made in one go, as there are thousands."""
        self._digest.update(repr([_traits(path, status) for _, path, status in looks]).encode())

    def done(self) -> bytes:
        return self._digest.digest()


def _traits(path: str, status: os.stat_result) -> tuple[str | int, ...]:
    if stat.S_ISDIR(status.st_mode):  # its size and times tell of what was in it before; its entries are looked at
        return path, status.st_mode, status.st_uid
    return path, status.st_mode, status.st_uid, status.st_ino, status.st_size, status.st_mtime_ns


def _walk(fd: int, prefix: str, stamping: _Stamping) -> Iterator[tuple[int, str, os.stat_result]]:
    """Every entry but the mark of use, in an order that depends on nothing but the names."""
    with os.scandir(fd) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    looks = [
        (entry, prefix + entry.name, entry.stat(follow_symlinks=False))
        for entry in found
        if prefix or entry.name != USED
    ]
    stamping.see(looks)
    for entry, path, status in looks:
        yield fd, path, status
        if stat.S_ISDIR(status.st_mode):
            with opened(entry.name, at=fd) as inner:
                yield from _walk(inner, f"{path}/", stamping)


@define
class _Checking:
    _manifest: Manifest
    _seen: set[str] = field(factory=set)

    def see(self, at: int, path: str, status: os.stat_result) -> None:
        if status.st_uid != os.geteuid():
            raise Damaged(path, f"it belongs to user {status.st_uid}")
        top, _, inside = path.partition("/")
        if inside and top == TREE:
            self._seen.add(path)
            self._see_part(at, path, inside, status)
        elif path in self._manifest.papers:
            self._seen.add(path)
            _compare(path, "content", _content(at, path, status), self._manifest.papers[path])
        elif path == TREE:
            _compare(path, "mode", oct(status.st_mode), oct(stat.S_IFDIR | FOLDER_MODE))
        elif path != MANIFEST:
            raise Damaged(path, "it was not there")

    def _see_part(self, at: int, path: str, inside: str, status: os.stat_result) -> None:
        mode = stat.S_IMODE(status.st_mode)
        name = inside.rpartition("/")[2]
        if stat.S_ISDIR(status.st_mode) and inside in self._manifest.folders:
            _compare(path, "mode", oct(mode), oct(FOLDER_MODE))
        elif stat.S_ISREG(status.st_mode) and (file := self._manifest.files.get(inside)) is not None:
            _compare(path, "mode", oct(mode), oct(file.mode))
            _compare(path, "size", status.st_size, file.size_bytes)
            _compare(path, "content", _content(at, name, status), file.sha256)
        elif stat.S_ISLNK(status.st_mode) and (target := self._manifest.links.get(inside)) is not None:
            _compare(path, "target", os.readlink(name, dir_fd=at), target)
        else:
            raise Damaged(path, "it was not there, or was of another kind")

    def done(self) -> None:
        manifest = self._manifest
        parts = {f"{TREE}/{path}" for paths in (manifest.folders, manifest.files, manifest.links) for path in paths}
        if missing := parts.union(manifest.papers) - self._seen:
            raise Damaged(min(missing), "it is missing")


def _content(at: int, name: str, status: os.stat_result) -> str:
    with opened(name, READ, at=at) as fd:
        if not os.path.samestat(os.fstat(fd), status):
            raise Damaged(name, "it was replaced while it was being read")
        return sha256_of(fd)


def _compare(path: str, what: str, found: object, sealed: object) -> None:
    if found != sealed:
        raise Damaged(path, f"its {what} changed" if what == "content" else f"its {what} is {found}, and was {sealed}")
