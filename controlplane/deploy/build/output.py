"""What a build tool prints: told line by line, its end kept for the post-mortem, its stdout for whoever asked for it."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable
from typing import Any

import trio
from attrs import define, field

from controlplane.core.framing import LineSplitter, Oversized

READ_BYTES = 65536
LINE_MAX_BYTES = 16 * 1024
TAIL_LINES = 20
TAIL_LINE_CHARS = 500
KEPT_CHARS = 64 * 1024
"""Of stdout, for a step whose answer is read (`git rev-parse`)."""
LINES_PER_TURN = 32
_ESCAPES = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
"""Colours and cursor movements (ECMA-48): a log is plain text."""


@define(eq=False)
class Output:
    """Both streams of one step. `tell` gets each line, plain, without its line break."""

    tell: Callable[[bytes], None]
    tail: deque[str] = field(factory=lambda: deque(maxlen=TAIL_LINES), init=False)
    silent: trio.Event = field(factory=trio.Event, init=False)
    """Both streams have ended."""
    _kept: list[str] = field(factory=list, init=False)
    _room: int = field(default=KEPT_CHARS, init=False)
    _open: int = field(default=2, init=False)

    @property
    def text(self) -> str:
        """The beginning of stdout."""
        return "\n".join(self._kept)

    def evidence(self) -> dict[str, Any]:
        """The part of a post-mortem that is the tool's own words."""
        return {"stderr_tail": list(self.tail)}

    async def collect(self, fd: int, keep: bool) -> None:
        """Read one stream to its end."""
        splitter = LineSplitter(LINE_MAX_BYTES)
        while data := await _read(fd):
            await self._take(splitter.feed(data), keep)
        await self._take(splitter.close(), keep)
        self._open -= 1
        if not self._open:
            self.silent.set()

    async def _take(self, lines: list[bytes | Oversized], keep: bool) -> None:
        for number, line in enumerate(lines, 1):
            self._line(b"[a line of %d bytes]" % line.size_bytes if isinstance(line, Oversized) else line, keep)
            if not number % LINES_PER_TURN:
                await trio.lowlevel.checkpoint()

    def _line(self, raw: bytes, keep: bool) -> None:
        line = _ESCAPES.sub(b"", raw.rpartition(b"\r")[2])  # a progress bar overwrites itself
        if not line.strip():
            return
        self.tell(line)
        text = line.decode("utf-8", "backslashreplace")
        self.tail.append(text[:TAIL_LINE_CHARS])
        if keep and self._room > 0:
            self._kept.append(text[: self._room])
            self._room -= len(text)


async def _read(fd: int) -> bytes:
    while True:
        await trio.lowlevel.checkpoint()
        try:
            return os.read(fd, READ_BYTES)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(fd)
        except OSError:
            return b""
