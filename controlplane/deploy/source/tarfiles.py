"""Reads tar archives that somebody hostile may have made: plain, or packed with gzip, bzip2, xz or zstd.

The standard library's reader takes extension headers of any length into memory,
and reads some entries differently from version to version. This one goes once
through the archive, in pieces. It knows the ustar, GNU and pax forms of names
and sizes; hard links, sparse files, devices and everything else it refuses, and
so a name or a size that is given in two ways at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO

from attrs import define, field, frozen

from controlplane.deploy.source.decoders import Decoder, bzip2, expand_all, gzip, xz, zstandard
from controlplane.deploy.source.entries import Entry, read_range
from controlplane.deploy.source.names import PATH_MAX_BYTES, Kind, decoded
from controlplane.deploy.source.refusal import Refused

if TYPE_CHECKING:
    from controlplane.deploy.source.spending import Spending

BLOCK_BYTES = 512
LONG_NAME_MAX_BYTES = 4 * PATH_MAX_BYTES
"""A GNU header's name: longer than any that is taken, so that the refusal can name it."""
PAX_MAX_BYTES = 256 * 1024
"""One pax header: a name, a time, and extended attributes of 64 KiB at most."""
MAX_GLOBAL_HEADERS = 64
"""`git archive` writes one; archives that were joined have some more."""
PADDING_MAX_BYTES = 2**20
"""Zeros behind the end: tapes' records have 10 KiB, or what `tar -b` says."""

_PACKERS: Mapping[bytes, Callable[[], Decoder]] = {
    b"\x1f\x8b": gzip,
    b"BZh": bzip2,
    b"\xfd7zXZ\0": xz,
    b"\x28\xb5\x2f\xfd": zstandard,
    **{bytes([0x50 + n]) + b"\x2a\x4d\x18": zstandard for n in range(16)},  # a frame to be skipped comes first
}
_ZEROS = bytes(BLOCK_BYTES)
_FILES = frozenset({b"0", b"\0", b"7"})
_REFUSED = {
    b"1": ("is a hard link", "Pack it with `tar --hard-dereference`."),
    b"3": ("is a device", None),
    b"4": ("is a device", None),
    b"6": ("is a named pipe", None),
    b"S": ("is a sparse file", "Pack it without `--sparse`."),
    b"M": ("is the rest of a file from another archive", "Pack it in one archive."),
}


def read_tar(file: BinaryIO, size: int, spending: Spending) -> Iterator[Entry]:
    """The entries of an archive of `size` bytes, in its own order.

    Raises:
        Refused: something about it is wrong; nothing is read beyond what the limits allow.
    """
    start = next(read_range(file, 0, BLOCK_BYTES, spending), b"")
    chunks = read_range(file, 0, size, spending)
    if packer := _packer(start):
        chunks = expand_all(chunks, packer)
    blocks = _Blocks(spending.metered(chunks))
    while (header := _next_header(blocks, spending)) is not None:
        contents = blocks.pieces(header.size, header.name)
        yield _entry(header, contents)
        for _ in contents:  # what was not wanted
            pass
        blocks.skip_padding(header.size)
    blocks.expect_nothing_more()


def _packer(start: bytes) -> Callable[[], Decoder] | None:
    if start[257:262] == b"ustar":  # a first file may well be called `BZh`
        return None
    return next((packer for magic, packer in _PACKERS.items() if start.startswith(magic)), None)


def _entry(header: _Header, contents: Iterator[bytes]) -> Entry:
    name, sort = header.name, header.sort
    if sort in _REFUSED:
        reason, hint = _REFUSED[sort]
        raise Refused(reason, entry=name, hint=hint)
    if sort == b"0" or (sort in _FILES and not name.endswith("/")):
        executable = bool(header.mode & 0o111)
        return Entry(name=name, kind=Kind.FILE, size=header.size, is_executable=executable, contents=contents)
    if header.size:
        raise Refused("has contents, and is no file", entry=name)
    if sort == b"2":
        return Entry(name=name, kind=Kind.LINK, target=header.target)
    if sort == b"5" or sort in _FILES:  # before 1988, a folder was a file with a slash at the end
        return Entry(name=name, kind=Kind.FOLDER)
    raise Refused(f"is of a kind that is not known ({sort!r})", entry=name)


# -- headers


@frozen(kw_only=True)
class _Header:
    """One entry's header, with what its extension headers said put in."""

    name: str
    target: str
    sort: bytes
    size: int
    mode: int


@define
class _Extensions:
    """What the headers in front of an entry's own say of it."""

    values: dict[str, bytes] = field(factory=dict)

    def take(self, key: str, value: bytes) -> None:
        if key in self.values:
            raise Refused("has two long names, or two sizes", entry=self.values[key])
        self.values[key] = value


def _next_header(blocks: _Blocks, spending: Spending) -> _Header | None:
    """The next entry's header; None at the archive's end."""
    extensions = _Extensions()
    globals_seen = 0
    while True:
        block = blocks.read(BLOCK_BYTES)
        if block == _ZEROS:
            if extensions.values:
                raise Refused("the archive ends where an entry should come")
            return None
        raw_name, sort, size = _checked(block)
        spending.check()
        if sort in {b"L", b"K"}:
            text = blocks.small(size, LONG_NAME_MAX_BYTES, raw_name).rstrip(b"\0")
            extensions.take("path" if sort == b"L" else "linkpath", text)
        elif sort == b"x":
            for key, value in _pax_records(blocks.small(size, PAX_MAX_BYTES, raw_name)):
                extensions.take(key, value)
        elif sort == b"g":
            globals_seen = _skip_global(blocks, size, raw_name, globals_seen)
        elif sort == b"V":
            blocks.small(size, 0, raw_name)  # the archive's own label
        else:
            spending.entry(extensions.values.get("path", raw_name))
            return _header(block, raw_name, sort, size, extensions.values)


def _skip_global(blocks: _Blocks, size: int, raw_name: bytes, seen: int) -> int:
    if any(_pax_records(blocks.small(size, PAX_MAX_BYTES, raw_name))):
        raise Refused("gives every entry one name or one size", entry=raw_name)
    if seen >= MAX_GLOBAL_HEADERS:
        raise Refused("is one of too many headers for nothing", entry=raw_name)
    return seen + 1


def _header(block: bytes, raw_name: bytes, sort: bytes, size: int, said: Mapping[str, bytes]) -> _Header:
    name = decoded(said.get("path", raw_name))
    if "size" in said:
        size = _decimal(said["size"], name)
    return _Header(
        name=name,
        target=decoded(said.get("linkpath", _text(block[157:257]))) if sort == b"2" else "",
        sort=sort,
        size=size,
        mode=_number(block[100:108], raw_name),
    )


def _checked(block: bytes) -> tuple[bytes, bytes, int]:
    """A header's name, kind and size.

    Raises:
        Refused: it is no header.
    """
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
        name = prefix + b"/" + name
    claimed = _octal(block[148:156])
    unsigned = sum(block) - sum(block[148:156]) + 8 * 0x20
    if claimed != unsigned and claimed != _signed(block):
        inner = "; it holds another compressed file" if _packer(block) else ""
        raise Refused(f"the archive is no tar archive, or is damaged{inner}")
    return name, block[156:157], _number(block[124:136], name)


def _signed(block: bytes) -> int:
    """The checksum as old systems took it, whose characters had signs."""
    taken = block[:148] + b" " * 8 + block[156:]
    return sum(byte - 256 if byte > 127 else byte for byte in taken)


def _text(raw: bytes) -> bytes:
    return raw.partition(b"\0")[0]


def _octal(raw: bytes) -> int | None:
    digits = raw.strip(b" \0")
    if not digits:
        return 0
    return int(digits, 8) if digits.isdigit() and not set(digits) & set(b"89") else None


def _number(raw: bytes, name: bytes) -> int:
    """A header's number: octal digits, or bytes behind a set bit (GNU), of which none is negative."""
    number = int.from_bytes(raw[1:], "big") if raw[0] == 0x80 else _octal(raw)
    if number is None:
        raise Refused("has a size or a mode that is no number", entry=name)
    return number


def _decimal(raw: bytes, name: str) -> int:
    if not raw.isdigit() or len(raw) > 20:
        raise Refused("has a size that is no number", entry=name)
    return int(raw)


def _pax_records(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The records that matter here, of `<length> <key>=<value>\\n` each."""
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 8)
        length = data[position:space]
        end = position + int(length) if space > 0 and length.isdigit() else 0
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not space < end <= len(data) or data[end - 1 : end] != b"\n" or not equals:
            raise Refused("the archive has a damaged pax header")
        if key.startswith((b"GNU.sparse.", b"SUN.holesdata")):
            raise Refused("the archive has a sparse file", hint="Pack it without `--sparse`.")
        if key in {b"path", b"linkpath", b"size"}:
            yield key.decode(), value
        position = end


# -- blocks


@define
class _Blocks:
    """What the archive expands to, read in order."""

    _chunks: Iterator[bytes]
    _kept: bytes = field(default=b"", init=False)
    _at: int = field(default=0, init=False)

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes; for small sizes.

        Raises:
            Refused: the archive ends before.
        """
        data = b"".join(self._pieces(size))
        if len(data) < size:
            raise Refused("the archive is cut short")
        return data

    def small(self, size: int, limit: int, name: bytes) -> bytes:
        """The contents of an extension header, and its padding away."""
        if size > limit:
            raise Refused(f"is a header of {size:,} bytes; {limit:,} may be", entry=name)
        data = self.read(size)
        self.skip_padding(size)
        return data

    def pieces(self, size: int, name: str) -> Iterator[bytes]:
        """An entry's contents."""
        for piece in self._pieces(size):
            size -= len(piece)
            yield piece
        if size:
            raise Refused("is cut short", entry=name)

    def skip_padding(self, size: int) -> None:
        self.read(-size % BLOCK_BYTES)

    def expect_nothing_more(self) -> None:
        """Behind the first block of zeros, only zeros follow.

        Raises:
            Refused: something does.
        """
        padding = 0
        for chunk in chain([self._kept[self._at :]], self._chunks):
            padding += len(chunk)
            if chunk.strip(b"\0") or padding > PADDING_MAX_BYTES:
                raise Refused("the archive has more data behind its end")

    def _pieces(self, size: int) -> Iterator[bytes]:
        while size > 0:
            if self._at == len(self._kept):
                chunk = next(self._chunks, None)
                if chunk is None:
                    return
                self._kept, self._at = chunk, 0
            piece = self._kept[self._at : self._at + size]
            self._at += len(piece)
            size -= len(piece)
            yield piece
