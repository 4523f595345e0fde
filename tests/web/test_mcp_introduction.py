"""`initialize` from hostile clients: what is kept of it is small, and a session begins once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from controlplane.core.jsonrpc import INVALID_PARAMS
from controlplane.protocol.handshake import Era
from controlplane.protocol.inbound import Refusal
from controlplane.web.mcp.http_sse import VERSION, HttpSse
from controlplane.web.mcp.introduction import INTRODUCTION_MAX_BYTES, introduce
from controlplane.web.request import Head
from tests.web.mcp_bench import ADA, INSTANCE, open_bench

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.web.mcp_bench import Bench


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with open_bench(Era.MODERN) as opened:
        yield opened


def introduction(name: str = "ada") -> dict[str, Any]:
    return {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": name, "version": "1"}}


async def test_an_introduction_that_would_be_kept_for_long_must_be_short(bench: Bench) -> None:
    wordy = json.dumps(introduction("a" * INTRODUCTION_MAX_BYTES)).encode()

    with pytest.raises(Refusal) as refused:
        await introduce(bench.runner, wordy, b"7")

    assert (refused.value.code, refused.value.id, refused.value.status) == (INVALID_PARAMS, b"7", 200)


async def test_a_session_of_http_sse_begins_once_whatever_is_posted_at_once(bench: Bench) -> None:
    http_sse, table = HttpSse(bench.legacy), bench.legacy.table
    session = table.create(ADA, INSTANCE, version=VERSION, messages_path="/mcp/bench/messages")
    head = Head("POST", "/mcp/bench/messages", f"session={session.id}".encode(), {}, "127.0.0.1")
    may_start = trio.Event()

    async def start(_: object) -> Any:
        await may_start.wait()
        return bench.lane

    bench.runner.lanes.legacy = start
    for raw_id in range(3):
        body = {"jsonrpc": "2.0", "id": raw_id, "method": "initialize", "params": introduction()}
        http_sse.post(ADA, bench.runner, head, json.dumps(body).encode())
    await trio.testing.wait_all_tasks_blocked()
    may_start.set()
    await trio.testing.wait_all_tasks_blocked()

    said = [json.loads(frame.partition(b"data: ")[2]) for _, frame in session.standalone.frames]
    assert ["result" in message for message in said] == [False, False, True]
    assert len(bench.lane.session.audience) == 1
    table.end(session)
    await bench.settled()
    assert len(bench.lane.session.audience) == 0
