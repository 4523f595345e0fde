"""A TCP forwarder in front of a control plane that cuts connections in the middle of what is answered on them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio
from attrs import define, frozen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

OVERLAP_BYTES = 64
"""Of what came before: a marker may come in two pieces."""


@frozen
class Cut:
    """The first connection on which this comes by is cut: after it, or just before, so that it is lost."""

    marker: bytes
    loses: bool = False


@define(eq=False)
class Cutter:
    """Makes its cuts one after the other; connections without them are left alone."""

    port: int
    cuts: list[Cut]
    """Those that are still to come."""
    url: str = ""

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
            cut = self.cuts[0] if self.cuts and self.cuts[0].marker in before + data else None
            if cut is None or not cut.loses:
                await client.send_all(data)
            if cut is not None:
                self.cuts.remove(cut)
                return
            before = (before + data)[-OVERLAP_BYTES:]


@asynccontextmanager
async def cutting(port: int, cuts: Iterable[Cut]) -> AsyncIterator[Cutter]:
    """Yield a cutter that listens on a free port of 127.0.0.1, in front of another port there."""
    async with trio.open_nursery() as nursery:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        cutter = Cutter(port, list(cuts), f"http://127.0.0.1:{listener.socket.getsockname()[1]}")
        nursery.start_soon(partial(trio.serve_listeners, cutter.carry, [listener]))
        yield cutter
        nursery.cancel_scope.cancel()
