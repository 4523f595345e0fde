"""Unpacks an uploaded archive into a new folder, all of it or nothing.

What it holds is hostile until shown otherwise, and so it is read twice. At first
nothing is written: names are checked one by one and against each other, sizes
and counts are added up, a tar is decompressed to its end. The second time files
are made new, by a path in which nothing is followed, and everything is checked
again, contents included: sizes, memory and time are bounded by what really comes
out, not by what the archive says. Of modes only the executable bit is kept; no
device, pipe, hard link, owner, time or attribute is made.

Symbolic links are made last, when every file stands, and only such that stay
inside and lead through no other link: so nothing is ever written through one,
and each leads where its text says. One that leads to nothing is left out.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from attrs import define, field, frozen

from controlplane.deploy import trees
from controlplane.deploy.source.diskfull import full_is_overloaded
from controlplane.deploy.source.names import EntryNames, Kind, Parts
from controlplane.deploy.source.newtree import FOLDER_MODE, NewTree, filling
from controlplane.deploy.source.refusal import Refused, spelled
from controlplane.deploy.source.spending import Spending, UnpackLimits
from controlplane.deploy.source.tarfiles import read_tar
from controlplane.deploy.source.zipfiles import read_zip
from controlplane.errors import ArchiveRejected, FieldError

if TYPE_CHECKING:
    from controlplane.deploy.source.entries import Entry

log = logging.getLogger("corral.deploy")

ArchiveKind = Literal["zip", "tar"]
FIELD = "/source_data"
MAX_LINK_NOTES = 5
"""Links that are left out and named; the rest are counted."""
_READERS = {"zip": read_zip, "tar": read_tar}
_OTHERS = {
    b"PK\3\4": "a ZIP archive",
    b"\x1f\x8b": "packed with gzip, as `.tar.gz` is",
    b"BZh": "packed with bzip2, as `.tar.bz2` is",
    b"\xfd7zXZ\0": "packed with xz, as `.tar.xz` is",
    b"\x28\xb5\x2f\xfd": "packed with zstd, as `.tar.zst` is",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive, which is not supported",
    b"Rar!": "a RAR archive, which is not supported",
}


@frozen(kw_only=True)
class Unpacked:
    """What an archive came to."""

    files: int
    bytes: int
    """Of all files together."""
    root: str | None
    """The one folder that everything was in; None if there is no such."""
    notes: tuple[str, ...] = ()
    """What was left out, for the owner."""


def unpack(
    archive: Path,
    kind: ArchiveKind,
    into: Path,
    limits: UnpackLimits | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    *,
    strip: bool = True,
    pointer: str = FIELD,
) -> Unpacked:
    """Unpack into a new folder; blocks, for a worker thread.

    Args:
        archive: A regular file.
        kind: What the owner says it is. How a tar is packed is told by its contents.
        into: Must not be there; nobody but Corral's own user may write beside it. It is gone if this fails in any way.
        limits: What it may cost.
        cancelled: Asked often, from this thread. True gives up; whatever it raises is let through.
        strip: Put what is in the one folder that everything is in (as in the archives of code hosts) where that would be.
        pointer: The request's field that the archive came from.

    Raises:
        ArchiveRejected: names the entry, and says why.
        Overloaded: the disk is full.
        Abandoned: `cancelled` said so.
        OSError: the archive cannot be read, or the folder not be written.
    """
    limits = limits or UnpackLimits()
    deadline = time.monotonic() + limits.seconds
    fd = os.open(archive, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file, full_is_overloaded(), ExitStack() as undo:
        into.mkdir(mode=FOLDER_MODE)
        undo.callback(_remove, into)
        try:
            first = _Reading.of(file, limits, cancelled, deadline)
            first.run(kind, None)
            root = first.names.only_folder()
            links = first.good_links((root,) if strip and root is not None else ())
            with filling(into) as tree:
                _Reading.of(file, limits, cancelled, deadline).run(kind, tree)
                for parts, target in links:
                    tree.link(parts, target)
            if strip and root is not None:
                _lift(into, root)
        except Refused as refused:
            raise _rejected(refused, file, kind, pointer) from None
        undo.pop_all()
    return Unpacked(
        files=first.files, bytes=first.spending.content_bytes, root=root, notes=(*first.left_out(), *first.dangling)
    )


@define
class _Reading:
    """Once through an archive."""

    file: BinaryIO
    size: int
    spending: Spending
    names: EntryNames
    files: int = field(default=0, init=False)
    links: list[tuple[Parts, str]] = field(factory=list, init=False)
    dangling: list[str] = field(factory=list, init=False)
    """What is said of links that lead to nothing."""

    @classmethod
    def of(cls, file: BinaryIO, limits: UnpackLimits, cancelled: Callable[[], bool], deadline: float) -> _Reading:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise Refused("the archive is no file")
        spending = Spending(limits, status.st_size, cancelled, deadline)
        return cls(file, status.st_size, spending, EntryNames(limits.entries))

    def run(self, kind: ArchiveKind, tree: NewTree | None) -> None:
        """Check everything; write everything but the links, if there is something to write to."""
        for entry in _READERS[kind](self.file, self.size, self.spending):
            before = self.names.nodes
            parts = self.names.add(entry.name, entry.kind)
            if parts:
                self._check(entry, parts, self.names.nodes - before)
                if tree is not None and entry.kind is not Kind.LINK:
                    _write(tree, entry, parts)
        if not self.files:
            raise Refused("the archive holds no files")

    def _check(self, entry: Entry, parts: Parts, made: int) -> None:
        if entry.kind is Kind.FOLDER:
            self.spending.made(entry.name, made, 0)
            return
        self.spending.made(entry.name, made - 1, 1)
        if entry.kind is Kind.FILE:
            self.spending.content(entry.name, entry.size)
            self.files += 1
            return
        self.links.append((parts, entry.target))
        if len(self.links) > self.spending.limits.links:
            raise Refused(f"is one link too many; {self.spending.limits.links:,} may be", entry=entry.name)

    def good_links(self, root: Parts) -> list[tuple[Parts, str]]:
        """The links that lead to something; none may lead out of `root`."""
        good = []
        for parts, target in self.links:
            self.spending.check()
            if self.names.has_target(parts, target, root):
                good.append((parts, target))
            else:
                self.dangling.append(
                    f"left out {spelled('/'.join(parts))}: it is a link to {spelled(target)}, which is not there"
                )
        if len(self.dangling) > MAX_LINK_NOTES:
            more = len(self.dangling) - MAX_LINK_NOTES
            self.dangling[MAX_LINK_NOTES:] = [f"left out {more:,} more links to what is not there"]
        return good

    def left_out(self) -> list[str]:
        """What is said of entries that no project needs."""
        return [f"left out {sort}: {count:,} entries" for sort, count in sorted(self.names.left_out.items())]


def _write(tree: NewTree, entry: Entry, parts: Parts) -> None:
    if entry.kind is Kind.FOLDER:
        tree.folder(parts)
    else:
        tree.file(parts, entry.contents, is_executable=entry.is_executable)


def _lift(into: Path, root: str) -> None:
    """Put `into/root` where `into` is."""
    aside = into.with_name(f".{into.name[:200]}.{secrets.token_hex(4)}")
    (into / root).rename(aside)
    try:
        into.rmdir()
        aside.rename(into)
    except BaseException:
        _remove(aside)
        raise


def _remove(folder: Path) -> None:
    try:
        trees.remove(folder)
    except OSError as error:
        log.warning("%s, a source that was refused, cannot be removed: %s", folder, error.strerror or error)


def _rejected(refused: Refused, file: BinaryIO, kind: ArchiveKind, pointer: str) -> ArchiveRejected:
    text = str(refused)
    return ArchiveRejected(
        text[0].upper() + text[1:] + ".",
        hint=_mistaken(os.pread(file.fileno(), 8, 0), kind) or refused.hint,
        errors=(FieldError(pointer, text),),
    )


def _mistaken(start: bytes, kind: ArchiveKind) -> str | None:
    """What to do about an archive that is of another kind than its owner says."""
    looks = next((looks for magic, looks in _OTHERS.items() if start.startswith(magic)), None)
    is_zip = looks == "a ZIP archive"
    if looks is None or ("not supported" not in looks and is_zip == (kind == "zip")):
        return None
    if "not supported" in looks:
        return f"The file is {looks}: pack it as ZIP or tar."
    return f'The file is {looks}: say `source_type` "{"zip" if is_zip else "tar"}".'
