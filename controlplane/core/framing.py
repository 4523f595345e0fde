"""Cut a child's byte stream into lines, with a bound.

MCP over stdio is newline-delimited JSON (spec, transports/stdio). A line that
outgrows the bound is skipped, not buffered: memory stays flat however long it
is, and whether a line passes depends on its length alone, never on how the
bytes were chunked.
"""

from __future__ import annotations

from attrs import define, field, frozen


@frozen
class Oversized:
    """A line that was skipped; `size_bytes` without its newline."""

    size_bytes: int


@define
class LineSplitter:
    """Feed it chunks, get whole lines. `max_line_bytes` excludes the newline.

    A trailing carriage return is removed; empty lines are dropped.
    """

    max_line_bytes: int
    # One growing array: an object per chunk would let a child that writes in crumbs hold thirty times its bytes.
    _held: bytearray = field(factory=bytearray, init=False)
    _size: int = field(default=0, init=False)
    _ends_with_cr: bool = field(default=False, init=False)

    @property
    def pending_bytes(self) -> int:
        """Bytes held of a line that has not ended yet."""
        return len(self._held)

    def feed(self, data: bytes) -> list[bytes | Oversized]:
        """Return the lines that `data` completes, in order."""
        first, *rest = data.split(b"\n")
        if not rest:
            self._extend(first)
            return []
        lines = self._end_line(first)
        for segment in rest[:-1]:
            lines += self._one(segment)
        self._extend(rest[-1])
        return lines

    def close(self) -> list[bytes | Oversized]:
        """Return the last, unterminated line, if there is one."""
        return self._end_line(b"")

    def _extend(self, segment: bytes) -> None:
        if not segment:
            return
        self._size += len(segment)
        self._ends_with_cr = segment.endswith(b"\r")
        if self._size <= self.max_line_bytes + 1:  # one more for a carriage return
            self._held += segment
        else:
            self._held.clear()

    def _end_line(self, segment: bytes) -> list[bytes | Oversized]:
        if not self._size:
            return self._one(segment)
        self._extend(segment)
        size, held = self._size, bytes(self._held)
        self._size = 0
        self._held.clear()
        return self._one(held) if size == len(held) else [Oversized(size - self._ends_with_cr)]

    def _one(self, line: bytes) -> list[bytes | Oversized]:
        line = line.removesuffix(b"\r")
        if len(line) > self.max_line_bytes:
            return [Oversized(len(line))]
        return [line] if line else []
