"""Reads a source's folder: what is in it, for runtimes to plan by, and its identity.

No link is followed, on the way or at the end, so that a source shows nothing but
itself even while somebody hostile writes to it. `.git` is no part of a source:
its contents differ between two clones of one commit.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from attrs import frozen

from controlplane.deploy.source.names import EntryNames, Kind, decoded
from controlplane.deploy.source.refusal import Refused
from controlplane.errors import SourceRejected
from runtimes.tree import MANIFEST_MAX_BYTES, SourceTree

READ_BYTES = 256 * 1024
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@frozen(kw_only=True)
class ListingLimits:
    """How much is looked at: what comes from a repository was counted by nobody yet."""

    entries: int = 200_000
    """Files, folders and links: two Linux kernels."""
    depth: int = 100
    """Folders in folders: each is kept open on the way down."""


@frozen
class _Found:
    """One entry, with the open folder that it is in."""

    path: str
    name: str
    status: os.stat_result
    at: int


def read_tree(folder: Path, limits: ListingLimits | None = None) -> SourceTree:
    """List a source; blocks, and so does the tree's `read`, which opens its file anew each time.

    Names that are not UTF-8 are left out: no runtime asks for one.

    Raises:
        SourceRejected: it is too large, or changes while it is read (also from `read`).
        OSError: it cannot be read.
    """
    files = frozenset(
        found.path
        for found in _walk(folder, limits or ListingLimits())
        if stat.S_ISREG(found.status.st_mode) and _is_text(found.path)
    )
    return SourceTree(files=files, read=partial(_read, folder))


def digest_tree(folder: Path, limits: ListingLimits | None = None) -> str:
    """The identity of a source: SHA-256, in hex, of its names, executable bits, links and contents; blocks.

    Raises:
        SourceRejected: it is too large, holds what is neither a file, a folder nor a link, or changes meanwhile.
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    for found in _walk(folder, limits or ListingLimits()):
        path = os.fsencode(found.path)
        mode = found.status.st_mode
        if stat.S_ISDIR(mode):
            digest.update(_prefix(b"D", path))
        elif stat.S_ISLNK(mode):
            target = _target(found)
            digest.update(_prefix(b"L", path, len(target)) + target)
        elif stat.S_ISREG(mode):
            _add_file(digest, path, found)
        else:
            raise SourceRejected(f"{found.path!r} is neither a file, a folder nor a link.")
    return digest.hexdigest()


def check_names(folder: Path, limits: ListingLimits | None = None) -> None:
    """Hold what came from elsewhere to the rules for an archive's names; blocks.

    Raises:
        SourceRejected: an entry cannot stand in a source, or not beside another; it is named.
        OSError: it cannot be read.
    """
    limits = limits or ListingLimits()
    names = EntryNames(limits.entries)
    try:
        for found in _walk(folder, limits):
            names.add(decoded(os.fsencode(found.path)), _kind(found.status.st_mode))
    except Refused as refused:
        raise SourceRejected(f"the source cannot be used: {refused}", hint=refused.hint) from None


def _kind(mode: int) -> Kind:
    if stat.S_ISDIR(mode):
        return Kind.FOLDER
    return Kind.LINK if stat.S_ISLNK(mode) else Kind.FILE


def _prefix(sort: bytes, path: bytes, size: int = 0) -> bytes:
    """Lengths come before what they are of, so that no two trees give the same bytes."""
    return sort + struct.pack(">IQ", len(path), size) + path


def _add_file(digest: hashlib._Hash, path: bytes, found: _Found) -> None:
    with _opened(found.name, found.at) as fd:
        status = os.fstat(fd)
        digest.update(_prefix(b"X" if status.st_mode & 0o111 else b"F", path, status.st_size))
        left = status.st_size
        while left >= 0 and (piece := os.read(fd, READ_BYTES)):
            left -= len(piece)
            digest.update(piece)
        if left:
            raise _changed()


def _target(link: _Found) -> bytes:
    try:
        return os.fsencode(os.readlink(link.name, dir_fd=link.at))
    except OSError:
        raise _changed() from None


def _read(folder: Path, path: str) -> bytes:
    *way, name = path.split("/")
    with ExitStack() as opened:
        at = _enter(folder, None)
        opened.callback(os.close, at)
        for part in way:
            at = _enter(part, at)
            opened.callback(os.close, at)
        fd = opened.enter_context(_opened(name, at))
        pieces, left = [], MANIFEST_MAX_BYTES
        while left and (piece := os.read(fd, left)):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)


@contextmanager
def _opened(name: str, at: int) -> Iterator[int]:
    """A regular file, open.

    Raises:
        SourceRejected: it is there no more, or is something else now.
    """
    try:
        fd = os.open(name, _FILE, dir_fd=at)
    except OSError as error:
        if isinstance(error, PermissionError):
            raise
        raise _changed() from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise _changed()
        yield fd
    finally:
        os.close(fd)


def _changed() -> SourceRejected:
    return SourceRejected("The source changed while it was read.")


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _walk(folder: Path, limits: ListingLimits) -> Iterator[_Found]:
    """Everything below a folder, each folder before what is in it, in the order of names."""
    fds = [os.open(folder, _FOLDER)]
    try:
        names = _names(fds[-1], limits.entries, limits)
        left = limits.entries - len(names)
        levels = [("", iter(names))]
        while levels:
            above, waiting = levels[-1]
            name = next(waiting, None)
            if name is None:
                levels.pop()
                os.close(fds.pop())
                continue
            found = _Found(above + name, name, _status(name, fds[-1]), fds[-1])
            yield found
            if stat.S_ISDIR(found.status.st_mode):
                if len(fds) > limits.depth:
                    raise SourceRejected(f"The source has folders more than {limits.depth} deep.")
                fds.append(_enter(name, found.at))
                names = _names(fds[-1], left, limits)
                left -= len(names)
                levels.append((found.path + "/", iter(names)))
    finally:
        for fd in fds:
            os.close(fd)


def _enter(folder: Path | str, at: int | None) -> int:
    try:
        return os.open(folder, _FOLDER, dir_fd=at)
    except (FileNotFoundError, NotADirectoryError):
        raise _changed() from None


def _status(name: str, at: int) -> os.stat_result:
    try:
        return os.lstat(name, dir_fd=at)
    except FileNotFoundError:
        raise _changed() from None


def _names(fd: int, left: int, limits: ListingLimits) -> list[str]:
    """What is in a folder, of which as much as is `left` may be."""
    names: list[str] = []
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.name != ".git":
                names.append(entry.name)
            if len(names) > left:
                raise SourceRejected(
                    f"The source has more than {limits.entries:,} files and folders.",
                    hint="Point `source_subdir` at the part that is to run, or leave out what is not source.",
                )
    return sorted(names, key=os.fsencode)
