"""What waits for a client that listens, and reads slowly."""

from __future__ import annotations

from controlplane.protocol.listening import ListenFilter
from controlplane.protocol.pending import Told
from controlplane.web.mcp.listening import QUEUE_MAX, QUEUE_MAX_BYTES, Listener

CHANGED = "notifications/tools/list_changed"


async def test_a_listener_that_falls_behind_by_too_many_notifications_loses_its_stream() -> None:
    listener = Listener(ListenFilter(tools=True))
    for _ in range(QUEUE_MAX + 1):
        listener.on_told(CHANGED, None)

    assert (await listener.next(0), listener.is_over) == (None, True)


async def test_a_listener_that_falls_behind_by_too_many_bytes_loses_its_stream() -> None:
    listener = Listener(ListenFilter(tools=True))
    listener.on_told(CHANGED, b"x" * QUEUE_MAX_BYTES)
    assert not listener.is_over, "a large one passes alone"
    assert await listener.next(0) == Told(CHANGED, b"x" * QUEUE_MAX_BYTES)

    listener.on_told(CHANGED, b"x" * QUEUE_MAX_BYTES)
    listener.on_told(CHANGED, b"{}")

    assert (await listener.next(0), listener.is_over) == (None, True)
