"""Decompression in small pieces: neither the output nor the memory of one step is for the compressed data to say."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from attrs import define, field
from backports import zstd

from controlplane.deploy.source.refusal import Refused

PIECE_BYTES = 256 * 1024
"""Most that one step gives out."""
MAX_STREAMS = 20_000
"""Compressed streams one after another in one file: parallel packers write one for each 64 KiB or more."""
XZ_MEMORY_BYTES = 128 * 2**20
"""`xz -9` needs 65 MiB to unpack."""
ZSTD_WINDOW_LOG = 27
"""128 MiB, what `zstd -d` takes unless it is told to take more."""
_FAULTS = (zlib.error, lzma.LZMAError, zstd.ZstdError, OSError, EOFError, ValueError)


class Decoder(Protocol):
    """One stream, as the standard library's decompressors have it."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


@define
class Inflate:
    """zlib's, with the others' interface."""

    _zlib: zlib._Decompress
    needs_input: bool = field(default=True, init=False)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        tail = self._zlib.unconsumed_tail
        piece = self._zlib.decompress(tail + data if tail else data, max_length)
        self.needs_input = not self._zlib.unconsumed_tail and len(piece) < max_length
        return piece


def deflate() -> Decoder:
    """Raw, as in ZIP archives."""
    return Inflate(zlib.decompressobj(-zlib.MAX_WBITS))


def gzip() -> Decoder:
    """One member of a gzip file, its checksum checked."""
    return Inflate(zlib.decompressobj(16 + zlib.MAX_WBITS))


def bzip2() -> Decoder:
    """One stream of bzip2."""
    return bz2.BZ2Decompressor()


def xz() -> Decoder:
    """One stream of xz, within `XZ_MEMORY_BYTES`."""
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES)


def zstandard() -> Decoder:
    """One frame of zstd, its window within `ZSTD_WINDOW_LOG`."""
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG})


def expand_one(chunks: Iterator[bytes], decoder: Decoder, entry: str) -> Iterator[bytes]:
    """What the one stream of an entry holds; all of `chunks` must belong to it.

    Raises:
        Refused: it is damaged, cut short or has something behind it.
    """
    yield from _stream(b"", chunks, decoder, entry)
    if decoder.unused_data or any(chunks):
        raise Refused("has more data than its contents take", entry=entry)


def expand_all(chunks: Iterator[bytes], new: Callable[[], Decoder]) -> Iterator[bytes]:
    """What all streams of an archive hold, one after another; zeros behind the last are padding.

    Raises:
        Refused: one is damaged, or needs too much memory; the last is cut short; there are too many.
    """
    data = b""
    for _ in range(MAX_STREAMS):
        decoder = new()
        yield from _stream(data, chunks, decoder)
        data = decoder.unused_data.lstrip(b"\0")
        while not data:
            chunk = next(chunks, None)
            if chunk is None:
                return
            data = chunk.lstrip(b"\0")
    raise Refused(f"the archive is in more than {MAX_STREAMS:,} compressed pieces")


def _stream(data: bytes, chunks: Iterator[bytes], decoder: Decoder, entry: str | None = None) -> Iterator[bytes]:
    while not decoder.eof:
        if not data and decoder.needs_input:
            chunk = next(chunks, None)
            if chunk is None:
                raise _broken("is cut short", entry)
            data = chunk
        try:
            piece = decoder.decompress(data, PIECE_BYTES)
        except _FAULTS as fault:
            why = "it needs too much memory" if "memory" in str(fault).lower() else "it is damaged"
            raise _broken(f"cannot be decompressed: {why}", entry) from None
        data = b""
        if piece:
            yield piece


def _broken(reason: str, entry: str | None) -> Refused:
    return Refused(f"the archive {reason}" if entry is None else reason, entry=entry)
