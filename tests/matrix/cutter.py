"""A TCP forwarder in front of a control plane that cuts one connection, in the middle of what is answered on it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio
from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

READ_BYTES = 64 * 1024


@define(eq=False)
class Cutter:
    """Cuts the connection on which `marker` comes by, once it has been passed on; the ones after it are left alone."""

    port: int
    marker: bytes
    url: str = ""
    cuts: int = field(default=0, init=False)

    async def carry(self, client: trio.SocketStream) -> None:
        """Carry one connection; when one side goes, so does the other."""
        try:
            async with await trio.open_tcp_stream("127.0.0.1", self.port) as server, trio.open_nursery() as nursery:

                async def requests() -> None:
                    async for data in client:
                        await server.send_all(data)
                    nursery.cancel_scope.cancel()

                nursery.start_soon(requests)
                await self._answers(server, client)
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass

    async def _answers(self, server: trio.SocketStream, client: trio.SocketStream) -> None:
        before = b""
        async for data in server:
            await client.send_all(data)
            if not self.cuts and self.marker in before + data:
                self.cuts += 1
                return
            before = data[-len(self.marker) :]


@asynccontextmanager
async def cutting(port: int, marker: bytes) -> AsyncIterator[Cutter]:
    """Yield a cutter that listens on a free port of 127.0.0.1, in front of another port there."""
    async with trio.open_nursery() as nursery:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        cutter = Cutter(port, marker, f"http://127.0.0.1:{listener.socket.getsockname()[1]}")
        nursery.start_soon(partial(trio.serve_listeners, cutter.carry, [listener]))
        yield cutter
        nursery.cancel_scope.cancel()
