"""The smallest image and sound there are, made here: one red pixel, and one silent sample."""

from __future__ import annotations

import base64
import struct
import zlib


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png() -> bytes:
    """One red pixel (PNG, third edition)."""
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)  # 8 bits of red, green, blue
    pixel = zlib.compress(b"\0\xff\0\0")  # no filter, then the colours
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixel) + _chunk(b"IEND", b"")


def wav() -> bytes:
    """One sample of silence: mono, 8 kHz, 8 bits."""
    body = (
        b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8) + b"data" + struct.pack("<I", 2) + b"\x80\0"
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


IMAGE = base64.b64encode(png()).decode()
SOUND = base64.b64encode(wav()).decode()
