"""One ASGI request with the means to answer it, and what every handler of a call does with one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from attrs import define, field, frozen

from controlplane.errors import MalformedJson
from controlplane.web.asgi import Receive, Send, wait_disconnected
from controlplane.web.mcp.outlet import ClientLeft

if TYPE_CHECKING:
    from controlplane.web.request import Head

BODY_TIMEOUT_S = 60.0
"""For the whole body of a call."""
GONE_GRACE_S = 1.0
"""How long a call may take to notice `is_gone` before it is cancelled."""


@frozen(slots=True)
class Exchange:
    """One request with the means to answer it."""

    head: Head
    request_id: str
    receive: Receive
    send: Send


async def read_body(receive: Receive) -> bytes:
    """Read a whole body; its size is bounded by the `BodyGuard` around.

    Raises:
        ClientLeft: the client left in the middle.
        MalformedJson: it took too long.
    """
    chunks: list[bytes] = []
    with trio.move_on_after(BODY_TIMEOUT_S):
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            chunks.append(message.get("body", b""))
            if not message.get("more_body", False):
                return b"".join(chunks)
    raise MalformedJson(f"The body did not arrive within {BODY_TIMEOUT_S:g} s.")


@define(eq=False)
class Caller:
    """Whether the client of one call is still there. `outlives`: the call goes on without it."""

    _receive: Receive
    gone: bool = field(default=False, init=False)
    outlives: bool = field(default=False, init=False)

    def is_gone(self) -> bool:
        return self.gone

    async def watch(self, scope: trio.CancelScope) -> None:
        """Note that the client left; cancel the call if it does not end by itself."""
        await wait_disconnected(self._receive)
        self.gone = True
        await trio.sleep(GONE_GRACE_S)
        if not self.outlives:
            scope.cancel()
