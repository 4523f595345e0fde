"""A server that says much at once, in front of a reader that keeps up."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio

from controlplane.core.jsonrpc import encode

if TYPE_CHECKING:
    from controlplane.hub import Subscription
    from tests.supervise.conftest import Yard

EVENTS = 1_000
"""Four times what a subscriber's queue holds; a pipe takes it in a few writes, so a read brings hundreds of lines."""
BURSTING = b"""
import json, os, sys
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    if message["method"] == "initialize":
        result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "burst", "version": "1"}}
    elif message["method"] == "tools/call":
        lines = message["params"]["arguments"]["lines"]
        os.write(message["params"]["arguments"]["fd"], "".join(line + "\\n" for line in lines).encode())
        result = {"content": []}
    else:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "no"}}), flush=True)
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


async def read_until(subscription: Subscription, type_: str, count: int) -> list[dict[str, Any]]:
    """Read a stream as it comes, until `count` events of a type have come or it has ended."""
    found: list[dict[str, Any]] = []
    while sum(event["type"] == type_ for event in found) < count:
        try:
            data = await subscription.take()
        except trio.EndOfChannel:
            break
        found += [json.loads(line[6:]) for line in data.split(b"\n") if line.startswith(b"data: ")]
    return found


@pytest.mark.parametrize(
    ("descriptor", "line", "type_"),
    [
        (1, '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"%d"}}', "notification"),
        (1, "noise %d", "log"),
        (2, "words %d", "log"),
    ],
    ids=["notifications", "noise on stdout", "stderr"],
)
async def test_a_burst_does_not_cut_a_reader_that_keeps_up(yard: Yard, descriptor: int, line: str, type_: str) -> None:
    runner = await yard.running(BURSTING)
    lines = [line % number for number in range(EVENTS)]
    params = encode({"name": "burst", "arguments": {"fd": descriptor, "lines": lines}})
    events: list[dict[str, Any]] = []

    async def read(subscription: Subscription) -> None:
        events.extend(await read_until(subscription, type_, EVENTS))

    with yard.hub.subscribe(instance_id=runner.instance.id) as subscription:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, subscription)
                await runner.call("tools/call", params, timeout_s=15)

    assert "lagged" not in {event["type"] for event in events}
    words = [json.dumps(event) for event in events if event["type"] == type_]
    assert len(words) == EVENTS
    assert all(f'{number}"' in word for number, word in enumerate(words))
