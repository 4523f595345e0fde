"""The network between the dashboard and a control plane, and what can become of it: cut, frozen, answered by another."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from typing import Any

BLOCK_BYTES = 65536
START_S = 20.0
"""For the proxy's thread: a hang guard."""


@define(eq=False)
class Wire:
    """A TCP proxy. Its methods are for the test's thread; each returns when it has taken effect."""

    target: str
    url: str = ""
    connections: int = 0
    """Taken so far."""
    _loop: asyncio.AbstractEventLoop = field(factory=asyncio.SelectorEventLoop)
    _server: asyncio.Server | None = None
    _port: int = 0
    _instead: bytes | None = None
    _frozen: asyncio.Event = field(factory=asyncio.Event)  # set: bytes pass
    _writers: set[asyncio.StreamWriter] = field(factory=set)
    _tasks: set[asyncio.Task[Any]] = field(factory=set)

    def cut(self) -> None:
        """Reset every connection, and take no new one."""
        self._run(self._cut(listening=False))

    def freeze(self) -> None:
        """Pass nothing on, in connections that stay open; new ones are taken, and nothing comes of them."""
        self._run(self._freeze())

    def answer(self, instead: bytes) -> None:
        """Cut what is open, and answer whatever comes with these bytes."""
        self._run(self._answer(instead))

    def mend(self) -> None:
        """Be a wire again; what was open in the meantime is cut."""
        self._run(self._mend())

    # -- in its own thread

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(START_S)

    async def open(self) -> None:
        self._frozen.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def close(self) -> None:
        await self._cut(listening=False)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _cut(self, *, listening: bool) -> None:
        if self._server is not None and not listening:
            self._server.close()
            await self._server.wait_closed()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()

    async def _freeze(self) -> None:
        self._frozen.clear()

    async def _answer(self, instead: bytes) -> None:
        self._instead = instead
        await self._cut(listening=True)
        await self._listen()

    async def _mend(self) -> None:
        self._instead = None
        self._frozen.set()
        await self._cut(listening=True)
        await self._listen()

    async def _listen(self) -> None:
        if self._server is None:
            await self.open()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.connections += 1
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            if self._instead is not None:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(self._instead)
                await writer.drain()
            else:
                await self._join(reader, writer)
        writer.close()
        self._writers.discard(writer)
        self._tasks.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._frozen.wait()
        there = urlsplit(self.target)
        answer, request = await asyncio.open_connection(there.hostname, there.port)
        self._writers.add(request)
        both = [asyncio.create_task(self._pass(reader, request)), asyncio.create_task(self._pass(answer, writer))]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            request.close()
            self._writers.discard(request)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while block := await reader.read(BLOCK_BYTES):
                await self._frozen.wait()
                writer.write(block)
                await writer.drain()


@contextmanager
def wired(target: str) -> Iterator[Wire]:
    """Run a proxy in front of a control plane, in a thread of its own."""
    wire = Wire(target)
    thread = threading.Thread(target=wire._loop.run_forever, name="wire")
    thread.start()
    try:
        wire._run(wire.open())
        yield wire
    finally:
        wire._run(wire.close())
        wire._loop.call_soon_threadsafe(wire._loop.stop)
        thread.join(START_S)
        wire._loop.close()
