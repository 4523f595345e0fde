"""The archive: a gzipped tar that says first what it is, and last what it must have held.

    about.json              who wrote it, of what
    secret-key, secret-key.previous, credentials
    database.dump           as `pg_dump --format=custom` writes it
    uploads/…               archives that revisions come from
    instances/…             what servers keep, where that was asked for
    seal.json               how many members there were, and the SHA-256 of all of them

Written and read as a stream. Without its seal, or with another one, nothing of it counts.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, BinaryIO

from attrs import define, field

ABOUT, SEAL = "about.json", "seal.json"
PIECE_BYTES = 2**20
LEVEL = 3
"""Of gzip: most of it is compressed already."""
JSON_MAX_BYTES = 65536
"""The two documents are some hundred bytes; a longer one is not ours."""


class Damaged(Exception):
    """It is no archive of ours, or not a whole one; the message says how that shows."""


@define(eq=False)
class Writer:
    """Adds members. Only what is added through it is sealed."""

    _tar: tarfile.TarFile
    _digest: Any = field(factory=hashlib.sha256, init=False)
    members: int = field(default=0, init=False)

    def text(self, name: str, content: bytes) -> None:
        """A private file."""
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(content), 0o600
        self._add(info, io.BytesIO(content))

    def file(self, name: str, source: IO[bytes], status: os.stat_result) -> None:
        """An open file, as long as `status` says: what was added since is left out, what was cut off becomes zeros."""
        info = self._info(name, status)
        info.size = status.st_size
        self._add(info, _Exactly(source, info.size))

    def folder(self, name: str, status: os.stat_result) -> None:
        info = self._info(name, status)
        info.type = tarfile.DIRTYPE
        self._add(info, None)

    def link(self, name: str, target: str, status: os.stat_result) -> None:
        """A symbolic link."""
        info = self._info(name, status)
        info.type, info.linkname = tarfile.SYMTYPE, target
        self._add(info, None)

    def seal(self) -> None:
        """The last member."""
        document = {"members": self.members, "sha256": self._digest.hexdigest()}
        self.text(SEAL, json.dumps(document).encode())

    def _info(self, name: str, status: os.stat_result) -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.mode = stat.S_IMODE(status.st_mode) & 0o777
        info.uid, info.gid, info.mtime = status.st_uid, status.st_gid, int(status.st_mtime)
        return info

    def _add(self, info: tarfile.TarInfo, source: Any) -> None:
        self._digest.update(head_of(info))
        self._tar.addfile(info, None if source is None else _Digesting(source, self._digest))
        self.members += 1


@contextmanager
def writing(target: BinaryIO) -> Iterator[Writer]:
    """Write an archive to a stream; the caller seals it."""
    with gzip.GzipFile(fileobj=target, mode="wb", filename="", compresslevel=LEVEL) as packed:
        with tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            yield Writer(tar)


def head_of(info: tarfile.TarInfo) -> bytes:
    """What is sealed of a member beside its content."""
    name, link = (os.fsencode(text) for text in (info.name, info.linkname))
    return b"\0".join((info.type, name, link, b"%o %d %d" % (info.mode, info.size, info.uid), b""))


@define
class _Exactly:
    """Reads `size` bytes of a file that may shrink or grow while it is read."""

    source: IO[bytes]
    left: int

    def read(self, size: int) -> bytes:
        data = self.source.read(min(size, self.left))
        data += bytes(min(size, self.left) - len(data))
        self.left -= len(data)
        return data


@define
class _Digesting:
    """Hands on what is read, and adds it to a digest."""

    source: Any
    digest: Any

    def read(self, size: int = -1) -> bytes:
        data: bytes = self.source.read(size)
        self.digest.update(data)
        return data


@define(eq=False)
class Reader:
    """Goes through the members once, in order; `about` is known from the start."""

    _tar: tarfile.TarFile
    about: dict[str, Any]
    _digest: Any
    _members: int = field(default=1, init=False)
    """Counted from the first, which is `about`."""

    def members(self) -> Iterator[tuple[tarfile.TarInfo, Any]]:
        """Each member but the first and the last, with what its content can be read from (whole, before the next).

        Raises:
            Damaged: it ends without its seal, or was changed.
        """
        while (info := self._tar.next()) is not None:
            self._tar.members = []  # type: ignore[attr-defined]  # it would remember each
            if info.name == SEAL:
                self._check(_document(self._tar, info))
                return
            self._digest.update(head_of(info))
            content = self._tar.extractfile(info) if info.isreg() else None
            yield info, None if content is None else _Digesting(content, self._digest)
            self._members += 1
        raise Damaged("it is not whole: its end is missing")

    def _check(self, seal: dict[str, Any]) -> None:
        if seal != {"members": self._members, "sha256": self._digest.hexdigest()}:
            raise Damaged("it was changed since it was written: its checksum is another one")


@contextmanager
def reading(source: BinaryIO) -> Iterator[Reader]:
    """Read an archive from a stream.

    Raises:
        Damaged: it is none, or a damaged one.
    """
    try:
        with gzip.GzipFile(fileobj=source) as packed, tarfile.open(fileobj=packed, mode="r|") as tar:
            first = tar.next()
            if first is None or first.name != ABOUT:
                raise Damaged("it is no backup of Corral")
            digest = hashlib.sha256(head_of(first))
            yield Reader(tar, _document(tar, first, digest), digest)
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's, not the archive's: gzip's own errors have no number
        raise Damaged(f"it is no backup of Corral, or not a whole one: {error}") from error


def _document(tar: tarfile.TarFile, info: tarfile.TarInfo, digest: Any = None) -> dict[str, Any]:
    content = tar.extractfile(info)
    text = content.read(JSON_MAX_BYTES) if content is not None else b""
    if digest is not None:
        digest.update(text)
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise Damaged(f"its {info.name} cannot be read")
    return document
