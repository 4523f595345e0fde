"""Standard input and output as lines of messages.

Owns reading and writing, each in a thread: a pipe, a file and a terminal behave alike there, and none has to be made
non-blocking, which whoever else holds it would notice. A line is bounded; one that is longer is dropped as a whole.
"""

from __future__ import annotations

import os
import select
from collections.abc import AsyncIterator
from contextlib import suppress

import trio
from attrs import define, field

CHUNK_BYTES = 64 * 1024
MAX_LINE_BYTES = 16 * 1024 * 1024
"""Bytes of one message from the client; the endpoint itself takes less, and says so."""
QUEUE_MESSAGES = 16
"""Messages that wait for a slow reader; beyond these it is the endpoint that waits."""


@define
class Lines:
    """Bytes in, lines out; what ends without a line feed is a line as well."""

    max_bytes: int = MAX_LINE_BYTES
    _pieces: list[bytes] = field(factory=list, init=False)
    _held: int = field(default=0, init=False)
    _dropping: bool = field(default=False, init=False)

    def feed(self, chunk: bytes) -> list[bytes | None]:
        """Take the next bytes and return the lines that they end; None stands for one that was too long."""
        lines: list[bytes | None] = []
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            self._keep(piece)
            lines.append(None if self._dropping else b"".join(self._pieces))
            self._forget()
        self._keep(rest)
        return lines

    def end(self) -> list[bytes | None]:
        """Return what is left at the end of the input."""
        return self.feed(b"\n") if self._held else []

    def _keep(self, piece: bytes) -> None:
        self._held += len(piece)
        self._dropping = self._dropping or self._held > self.max_bytes
        if self._dropping:
            self._pieces.clear()
        elif piece:
            self._pieces.append(piece)

    def _forget(self) -> None:
        self._pieces.clear()
        self._held, self._dropping = 0, False


async def lines_of(descriptor: int) -> AsyncIterator[bytes | None]:
    """Yield the lines of a descriptor until its end; None for one that was too long."""
    lines = Lines()
    while chunk := await trio.to_thread.run_sync(_read, descriptor, abandon_on_cancel=True):
        for line in lines.feed(chunk):
            yield line
    for line in lines.end():
        yield line


@define(eq=False)
class Output:
    """A descriptor that messages are written to, one at a time and each on its line."""

    descriptor: int
    flushed: trio.Event = field(factory=trio.Event, init=False)
    """Set once there is nothing more to write: all is written after `close`, or nobody reads any more."""
    _give: trio.MemorySendChannel[bytes] = field(init=False)
    _take: trio.MemoryReceiveChannel[bytes] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._give, self._take = trio.open_memory_channel(QUEUE_MESSAGES)

    async def write(self, message: bytes) -> None:
        """Hand over one message; waits while the reader is behind, and forgets it once nobody reads."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._give.send(message)

    def close(self) -> None:
        """End the output after what was handed over so far."""
        self._give.close()

    async def run(self) -> None:
        """Write what is handed over, until `close` or the reader's end.

        A task of its own does this, so that no cancelled request leaves half of its answer behind.
        """
        try:
            async with self._take:
                async for message in self._take:
                    await trio.to_thread.run_sync(_write_all, self.descriptor, message + b"\n", abandon_on_cancel=True)
        except OSError:
            return
        finally:
            self.flushed.set()


def _read(descriptor: int) -> bytes:
    """Read what there is; nothing at the end, which a closed descriptor is as well."""
    while True:
        try:
            return os.read(descriptor, CHUNK_BYTES)
        except BlockingIOError:  # whoever started us left it non-blocking
            select.select([descriptor], [], [])
        except OSError:
            return b""


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            select.select([], [descriptor], [])
