"""Reads ZIP archives that somebody hostile may have made.

The standard library's reader loads whatever table of contents it is told of, and
each of its versions minds other lies. This one takes nothing on trust: the table
is bounded before it is read and must stand where the archive says; every entry
has bytes of its own, in which its local header says the same as the table; and
contents have the size and the checksum that the table gives.

Stored, deflated, bzip2 and zstd entries, and the 64-bit fields, are understood.
Names are UTF-8, by the flag or by being valid (macOS sets no flag); other bytes
could be in any of a dozen encodings, and are refused. In archives made on
Windows a backslash parts folders, as PowerShell 5 writes them.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

from attrs import frozen

from controlplane.deploy.source.decoders import Decoder, bzip2, deflate, expand_one, zstandard
from controlplane.deploy.source.entries import Entry, read_range
from controlplane.deploy.source.names import PATH_MAX_BYTES, Kind, decoded
from controlplane.deploy.source.refusal import Refused
from controlplane.deploy.source.spending import MIB, Spending

TABLE_MAX_BYTES = 16 * MIB
"""The table of contents, kept in memory: 46 bytes, the name and extra fields for each of at most 100,000 entries."""

_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")
_ROW = struct.Struct("<4s2B5H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_END_MAGIC, _END_64_MAGIC, _LOCATOR_64_MAGIC = b"PK\5\6", b"PK\6\6", b"PK\6\7"
_ROW_MAGIC, _LOCAL_MAGIC = b"PK\1\2", b"PK\3\4"
_COMMENT_MAX_BYTES = 0xFFFF
_IN_64_BITS = 0xFFFFFFFF
_EXTRA_64 = 1
_ENCRYPTED = 1 << 0 | 1 << 6 | 1 << 13
_SIZES_FOLLOW = 1 << 3
_PATCHED = 1 << 5
_FROM_WINDOWS = frozenset({0, 10, 14})  # FAT, NTFS, VFAT
_STORED = 0
_METHODS: Mapping[int, Callable[[], Decoder]] = {8: deflate, 12: bzip2, 93: zstandard}
_REPACK = "Pack it again, with `zip -r` or `git archive`."


@frozen(kw_only=True)
class _Row:
    """One row of the table of contents."""

    raw_name: bytes
    name: str
    mode: int
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    start: int
    """Of its local header."""


def read_zip(file: BinaryIO, size: int, spending: Spending) -> Iterator[Entry]:
    """The entries of an archive of `size` bytes, in the table's order.

    Raises:
        Refused: something about it is wrong; nothing is read beyond what the limits allow.
    """
    table_start, rows = _table(file, size, spending)
    ends = _ends(rows, table_start)
    claimed = sum(row.size for row in rows)
    if claimed > spending.limits.total_bytes:
        raise Refused(f"the archive says that it unpacks to {claimed:,} bytes; {spending.allowance()}")
    for row in rows:
        spending.check()
        yield _entry(file, row, ends[row.start], spending)


def _entry(file: BinaryIO, row: _Row, end: int, spending: Spending) -> Entry:
    kind = _kind(row)
    start = _contents_start(file, row)
    if start + row.packed > end:
        raise Refused("shares its data with another entry, or has less than it says", entry=row.name, hint=_REPACK)
    contents = _contents(file, row, start, spending)
    if kind is Kind.FOLDER:
        if row.size:
            raise Refused("is a folder with contents", entry=row.name)
        return Entry(name=row.name, kind=kind)
    if kind is Kind.LINK:
        if row.size > PATH_MAX_BYTES:
            raise Refused("is a link whose target is too long", entry=row.name)
        return Entry(name=row.name, kind=kind, target=decoded(b"".join(contents)))
    return Entry(name=row.name, kind=kind, size=row.size, is_executable=bool(row.mode & 0o111), contents=contents)


def _kind(row: _Row) -> Kind:
    form = stat.S_IFMT(row.mode)
    if form not in {0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}:
        raise Refused("is neither a file, a folder nor a link", entry=row.name)
    if form == stat.S_IFLNK:
        return Kind.LINK
    return Kind.FOLDER if form == stat.S_IFDIR or row.name.endswith("/") else Kind.FILE


def _contents(file: BinaryIO, row: _Row, start: int, spending: Spending) -> Iterator[bytes]:
    pieces = read_range(file, start, row.packed, spending)
    if row.method != _STORED:
        pieces = expand_one(pieces, _METHODS[row.method](), row.name)
    crc = got = 0
    for piece in pieces:
        got += len(piece)
        if got > row.size:
            raise Refused(f"has more than the {row.size:,} bytes that the archive says", entry=row.name)
        crc = zlib.crc32(piece, crc)
        yield piece
    if got < row.size:
        raise Refused(f"has {got:,} bytes, and the archive says {row.size:,}", entry=row.name)
    if crc != row.crc:
        raise Refused("is damaged: its checksum is another", entry=row.name)


def _contents_start(file: BinaryIO, row: _Row) -> int:
    """Where an entry's contents begin, behind a local header that says what the table does."""
    file.seek(row.start)
    raw = file.read(_LOCAL.size)
    if len(raw) < _LOCAL.size or raw[:4] != _LOCAL_MAGIC:
        raise Refused("is not where the archive says", entry=row.name, hint=_REPACK)
    _, _, flags, method, _, _, _, packed, size, name_length, extra_length = _LOCAL.unpack(raw)
    agrees = file.read(name_length) == row.raw_name and method == row.method and not flags & _ENCRYPTED
    if not flags & _SIZES_FOLLOW:
        agrees = agrees and packed in {row.packed, _IN_64_BITS} and size in {row.size, _IN_64_BITS}
    if not agrees:
        raise Refused("is called something else where its contents are", entry=row.name, hint=_REPACK)
    return row.start + _LOCAL.size + len(row.raw_name) + int(extra_length)


def _ends(rows: list[_Row], table_start: int) -> dict[int, int]:
    """For each entry's start, where the next begins: up to there its bytes are its own."""
    ends = {}
    ordered = sorted(rows, key=lambda row: row.start)
    starts = [*(row.start for row in ordered), table_start]
    for row, following in zip(ordered, starts[1:], strict=True):
        if following <= row.start:
            raise Refused("shares its data with another entry, or has none", entry=row.name, hint=_REPACK)
        ends[row.start] = following
    return ends


# -- the table of contents


@frozen
class _End:
    entries: int
    table_bytes: int
    table_start: int


def _table(file: BinaryIO, size: int, spending: Spending) -> tuple[int, list[_Row]]:
    end = _find_end(file, size)
    if end.entries > spending.limits.entries:
        raise Refused(f"the archive has {end.entries:,} entries; at most {spending.limits.entries:,} may be")
    if end.table_bytes > TABLE_MAX_BYTES:
        raise Refused(f"the archive's table of contents has more than {TABLE_MAX_BYTES:,} bytes")
    file.seek(end.table_start)
    table = file.read(end.table_bytes)
    rows = []
    position = 0
    for _ in range(end.entries):
        spending.check()
        row, position = _row(table, position)
        rows.append(row)
    if position != len(table):
        raise Refused("the archive has more entries than it says", hint=_REPACK)
    return end.table_start, rows


def _row(table: bytes, position: int) -> tuple[_Row, int]:
    names_at = position + _ROW.size
    if names_at > len(table) or table[position : position + 4] != _ROW_MAGIC:
        raise Refused("the archive has fewer entries than it says, or its table of contents is damaged", hint=_REPACK)
    (
        _, _, system, _, flags, method, _, _, crc, packed, size,
        name_length, extra_length, comment_length, disk, _, attributes, start,
    ) = _ROW.unpack_from(table, position)  # fmt: skip
    extra_at = names_at + name_length
    behind = extra_at + extra_length + comment_length
    if behind > len(table):
        raise Refused("the archive's table of contents is cut short", hint=_REPACK)
    raw_name = table[names_at:extra_at]
    name = decoded(raw_name)
    if system in _FROM_WINDOWS:
        name = name.replace("\\", "/")
    if _IN_64_BITS in {size, packed, start}:
        size, packed, start = _in_64_bits(table[extra_at : extra_at + extra_length], size, packed, start, name)
    if flags & _ENCRYPTED:
        raise Refused("is encrypted", entry=name, hint="Pack it without a password.")
    if flags & _PATCHED or disk or (method == _STORED and packed != size):
        raise Refused("is not whole in this archive", entry=name, hint=_REPACK)
    if method != _STORED and method not in _METHODS:
        raise Refused(f"is compressed by method {method}, which is not understood", entry=name, hint=_REPACK)
    row = _Row(
        raw_name=raw_name, name=name, mode=attributes >> 16, flags=flags, method=method, crc=crc, packed=packed,
        size=size, start=start,
    )  # fmt: skip
    return row, behind


def _in_64_bits(extra: bytes, size: int, packed: int, start: int, name: str) -> tuple[int, int, int]:
    """The values that did not fit into 32 bits, from the extra field that has those, and only those, in this order."""
    position = 0
    while position + 4 <= len(extra):
        sort, length = struct.unpack_from("<2H", extra, position)
        body = extra[position + 4 : position + 4 + length]
        if sort == _EXTRA_64:
            fields = iter(struct.unpack_from(f"<{len(body) // 8}Q", body))
            try:
                found = [next(fields) if value == _IN_64_BITS else value for value in (size, packed, start)]
            except StopIteration:
                break
            return found[0], found[1], found[2]
        position += 4 + length
    raise Refused("has no 64-bit sizes where it should", entry=name, hint=_REPACK)


def _find_end(file: BinaryIO, size: int) -> _End:
    """The record at the very end, which says where the table of contents is.

    Raises:
        Refused: there is none, something follows it, or it says what cannot be.
    """
    tail_at = max(0, size - _END.size - _COMMENT_MAX_BYTES)
    file.seek(tail_at)
    tail = file.read(size - tail_at)
    at = tail.rfind(_END_MAGIC)
    if at < 0 or at + _END.size > len(tail):
        raise Refused("the archive is no ZIP archive, or is cut short")
    while at >= 0 and at + _END.size + int.from_bytes(tail[at + 20 : at + 22], "little") != len(tail):
        at = tail.rfind(_END_MAGIC, 0, at)
    if at < 0:
        raise Refused("the archive has more data behind its end, or is cut short")
    _, disk, table_disk, here, entries, table_bytes, table_start, _ = _END.unpack_from(tail, at)
    end, end_at = _End(entries, table_bytes, table_start), tail_at + at
    locator = tail[max(0, at - _LOCATOR_64.size) : at]
    if len(locator) == _LOCATOR_64.size and locator.startswith(_LOCATOR_64_MAGIC):
        end, end_at = _end_in_64_bits(file, locator, end_at)
    elif disk or table_disk or here != entries:
        raise Refused("the archive is one part of several", hint=_REPACK)
    if end.table_start + end.table_bytes != end_at:
        raise Refused("the archive's table of contents is not where it says", hint=_REPACK)
    return end


def _end_in_64_bits(file: BinaryIO, locator: bytes, locator_end: int) -> tuple[_End, int]:
    _, disk, at, disks = _LOCATOR_64.unpack(locator)
    if disk or disks > 1:
        raise Refused("the archive is one part of several", hint=_REPACK)
    if at > locator_end - _LOCATOR_64.size - _END_64.size:
        raise Refused("the archive's table of contents is not where it says", hint=_REPACK)
    file.seek(at)
    raw = file.read(_END_64.size)
    if not raw.startswith(_END_64_MAGIC):
        raise Refused("the archive's table of contents is not where it says", hint=_REPACK)
    _, record_bytes, _, _, disk, table_disk, here, entries, table_bytes, table_start = _END_64.unpack(raw)
    if disk or table_disk or here != entries:
        raise Refused("the archive is one part of several", hint=_REPACK)
    if at + 12 + record_bytes + _LOCATOR_64.size != locator_end:
        raise Refused("the archive's table of contents is not where it says", hint=_REPACK)
    return _End(entries, table_bytes, table_start), at
