"""Archives made by hand, byte for byte, so that they can lie."""

from __future__ import annotations

import stat
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve, frozen

from controlplane.deploy.source.archive import ArchiveKind, Unpacked, unpack
from controlplane.errors import ArchiveRejected

# -- tar

END = bytes(1024)


def number(value: int, width: int) -> bytes:
    """Octal where it fits; GNU's binary form where not."""
    if value < 8 ** (width - 1):
        return f"{value:0{width - 1}o}\0".encode()
    return b"\x80" + value.to_bytes(width - 1, "big")


def header(
    name: bytes,
    *,
    size: int = 0,
    sort: bytes = b"0",
    mode: int = 0o644,
    target: bytes = b"",
    prefix: bytes = b"",
    magic: bytes = b"ustar\x0000",
    raw_size: bytes | None = None,
) -> bytes:
    """One header block, its checksum right."""
    fields = [
        name.ljust(100, b"\0"),
        number(mode, 8) + number(0, 8) + number(0, 8),
        number(size, 12) if raw_size is None else raw_size,
        number(0, 12) + b" " * 8 + sort + target.ljust(100, b"\0"),
        magic.ljust(8, b"\0") + bytes(80) + prefix.ljust(155, b"\0") + bytes(12),
    ]
    block = b"".join(fields)
    assert len(block) == 512
    return block[:148] + f"{sum(block):06o}\0 ".encode() + block[156:]


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def member(name: bytes, data: bytes = b"", **options: Any) -> bytes:
    """A header and contents; a file unless `sort` says otherwise."""
    return header(name, size=len(data), **options) + padded(data)


def pax(sort: bytes = b"x", **records: bytes) -> bytes:
    """A pax header; `__` in a key stands for a dot."""
    return member(b"pax", b"".join(record(key.replace("__", "."), value) for key, value in records.items()), sort=sort)


def record(key: str, value: bytes) -> bytes:
    body = f" {key}=".encode() + value + b"\n"
    length = len(body)
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def long_name(name: bytes, sort: bytes = b"L") -> bytes:
    return member(b"././@LongLink", name + b"\0", sort=sort)


def tar(*members: bytes, end: bytes = END) -> bytes:
    return b"".join(members) + end


# -- zip


@frozen(kw_only=True)
class Zipped:
    """One entry; what its local header and its row in the table of contents say can differ from what is so."""

    name: bytes
    data: bytes = b""
    """As it stands in the archive."""
    size: int | None = None
    packed: int | None = None
    crc: int | None = None
    method: int = 0
    flags: int = 0
    mode: int = stat.S_IFREG | 0o644
    system: int = 3
    extra: bytes = b""
    local: bytes | None = None
    """The whole local header with the contents; None for one that agrees."""
    start: int | None = None
    disk: int = 0

    def body(self) -> bytes:
        if self.local is not None:
            return self.local
        size, packed, crc = self.said()
        fixed = struct.pack(
            "<4s5H3L2H", b"PK\3\4", 20, self.flags, self.method, 0, 0, crc, packed, size, len(self.name), 0
        )
        return fixed + self.name + self.data

    def row(self, start: int) -> bytes:
        size, packed, crc = self.said()
        fixed = struct.pack(
            "<4s2B5H3L5H2L", b"PK\1\2", 20, self.system, 20, self.flags, self.method, 0, 0, crc, packed, size,
            len(self.name), len(self.extra), 0, self.disk, 0, self.mode << 16,
            start if self.start is None else self.start,
        )  # fmt: skip
        return fixed + self.name + self.extra

    def said(self) -> tuple[int, int, int]:
        return (
            len(self.data) if self.size is None else self.size,
            len(self.data) if self.packed is None else self.packed,
            zlib.crc32(self.data) if self.crc is None else self.crc,
        )


def deflated(name: bytes, data: bytes, **options: Any) -> Zipped:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(data) + packer.flush()
    return evolve(Zipped(name=name, data=packed, size=len(data), crc=zlib.crc32(data), method=8), **options)


def zip_of(*entries: Zipped, count: int | None = None, table_start: int | None = None, comment: bytes = b"") -> bytes:
    body, rows = b"", b""
    for entry in entries:
        rows += entry.row(len(body))
        body += entry.body()
    said = len(entries) if count is None else count
    at = len(body) if table_start is None else table_start
    return body + rows + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, said, said, len(rows), at, len(comment)) + comment


# -- what becomes of them


def unpacked(data: bytes, kind: ArchiveKind, folder: Path, **options: Any) -> Unpacked:
    """Unpack into `folder/into`."""
    archive = folder / "archive"
    archive.write_bytes(data)
    return unpack(archive, kind, folder / "into", **options)


def refused(data: bytes, kind: ArchiveKind, folder: Path, **options: Any) -> str:
    """The refusal's text, when nothing else is left of it."""
    with pytest.raises(ArchiveRejected) as caught:
        unpacked(data, kind, folder, **options)
    assert sorted(path.name for path in folder.iterdir()) == ["archive"]
    assert [wrong.pointer for wrong in caught.value.errors] == ["/source_data"]
    return caught.value.detail


def contents(folder: Path) -> dict[str, bytes | str | None]:
    """Everything below a folder: files' bytes, links' targets, None for folders."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = str(path.readlink())
        else:
            found[name] = None if path.is_dir() else path.read_bytes()
    return found


def repository(folder: Path) -> Path:
    """A git repository with a commit: programs, odd letters and a link."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/run").write_bytes(b"#!/bin/sh\n")
    (folder / "bin/run").chmod(0o755)
    (folder / "ünder").write_bytes(b"moo " * 1000)
    (folder / "here").symlink_to("bin/run")
    author = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    for words in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "moo"]):
        subprocess.run(["git", *words], cwd=folder, check=True, timeout=30)
    return folder
