"""The hot lane's connections: deadlines, callers that leave, and what else a client may do to them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from controlplane.web import door, hot, hot_wire, hypercorn_server
from tests.web.fakes import make_services, memory, request, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.web.fakes import Server

ECHO = b'{"method":"echo"}'
WAIT = b'{"method":"wait"}'


@pytest.fixture
async def lane() -> AsyncIterator[Server]:
    """A server with the hot lane on."""
    async with running(make_services(), hot=True) as server:
        yield server


@pytest.fixture
def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every deadline of a connection is over soon."""
    for module in (hot, hypercorn_server):
        monkeypatch.setattr(module, "HEAD_S", 0.3)
        monkeypatch.setattr(module, "IDLE_S", 0.6)
    for module in (hot_wire, hypercorn_server):
        monkeypatch.setattr(module, "WRITE_STALL_S", 0.5)
    monkeypatch.setattr(hot_wire, "BODY_S", 0.3)
    monkeypatch.setattr(hypercorn_server, "BODY_STALL_S", 0.3)
    monkeypatch.setattr(door, "TICK_S", 0.05)


async def test_plain_calls_are_answered_in_the_hot_lane_and_nothing_else_is(lane: Server) -> None:
    with trio.fail_after(10):
        client = await lane.connect()
        for _ in range(3):
            assert (await client.ask(request(body=ECHO))).status == 200
        assert lane.services.meters.hot == 3
        await client.ask(request("GET", "/health"))
        await client.ask(request(body=ECHO))

    assert lane.services.meters.hot == 3, "a hand-over lasts for the rest of the connection"
    assert lane.services.meters.requests == {("execute", 200): 4, ("api", 200): 1}


async def test_with_the_lane_off_it_answers_nothing() -> None:
    async with running(make_services(), hot=False) as server:
        with trio.fail_after(10):
            assert (await (await server.connect()).ask(request(body=ECHO))).status == 200
        assert server.services.meters.hot == 0


@pytest.mark.usefixtures("short_deadlines")
@pytest.mark.parametrize(
    "sent",
    [b"", b"POST /mcp/memory/execute HTTP/1.1\r\nHost: loc", request(body=ECHO)[:-5], b"GET /hea"],
    ids=["silence", "half a head", "half a body", "half of another head"],
)
async def test_a_client_that_does_not_finish_its_request_is_cut(server: Server, sent: bytes) -> None:
    with trio.fail_after(10):
        client = await server.connect()
        if sent:
            await client.send(sent)
        assert await client.is_closed()
        while server.door.connections:
            await trio.testing.wait_all_tasks_blocked(0.01)
    assert server.services.meters.cut == 1


@pytest.mark.usefixtures("short_deadlines")
async def test_dripping_bytes_does_not_extend_the_deadline_of_a_head(server: Server) -> None:
    drops = iter(request(body=ECHO, X_Padding="a" * 3000))
    with trio.fail_after(10):
        client = await server.connect()
        closed = False
        while not closed:
            with suppress(trio.BrokenResourceError):
                await client.send(bytes([next(drops)]))
            with trio.move_on_after(0.02):
                closed = await client.is_closed()


@pytest.mark.usefixtures("short_deadlines")
async def test_an_idle_connection_is_closed_after_the_idle_time(server: Server) -> None:
    with trio.fail_after(10):
        client = await server.connect()
        assert (await client.ask(request(body=ECHO))).status == 200
        began = trio.current_time()
        assert await client.is_closed()
        assert trio.current_time() - began > 0.4, "not at the head's deadline"


@pytest.mark.usefixtures("short_deadlines")
async def test_a_long_call_is_not_idle(server: Server) -> None:
    with trio.fail_after(10):
        client = await server.connect()
        await client.send(request(body=WAIT))
        with trio.move_on_after(1.5):
            await memory(server.services).ended.wait()
        memory(server.services).release.set()
        assert (await client.reply()).status == 200


async def test_a_caller_that_leaves_is_noticed_within_a_second(server: Server) -> None:
    runner = memory(server.services)
    with trio.fail_after(10):
        client = await server.connect()
        await client.send(request(body=WAIT))
        await runner.waiting.wait()
        client.stream.socket.close()
        with trio.fail_after(5):  # a second is the aim; this is a guard against hanging
            await runner.ended.wait()
        assert runner.how == "gone"
        while server.door.connections:
            await trio.testing.wait_all_tasks_blocked(0.01)


async def test_a_caller_that_leaves_with_an_event_stream_is_noticed_too(server: Server) -> None:
    runner = memory(server.services)
    with trio.fail_after(10):
        client = await server.connect()
        await client.send(request(body=WAIT, Accept="text/event-stream"))
        await runner.waiting.wait()
        client.stream.socket.close()
        await runner.ended.wait()
    assert runner.how == "gone"


async def test_a_call_that_never_looks_whether_its_caller_is_there_is_cancelled(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((door, "GONE_GRACE_S"), ("controlplane.web.asgi_exchange", "GONE_GRACE_S")):
        target = f"{module}.{name}" if isinstance(module, str) else f"{module.__name__}.{name}"
        monkeypatch.setattr(target, 0.1)
    runner = memory(server.services)
    wait = runner._wait
    monkeypatch.setattr(type(runner), "_wait", lambda self, is_gone: wait(None))
    with trio.fail_after(10):
        client = await server.connect()
        await client.send(request(body=WAIT))
        await runner.waiting.wait()
        client.stream.socket.close()
        await runner.ended.wait()
    assert runner.how == "cancelled"


async def test_a_pipelining_caller_that_leaves_is_noticed_as_well(lane: Server) -> None:
    runner = memory(lane.services)
    with trio.fail_after(10):
        client = await lane.connect()
        await client.send(request(body=WAIT) + request(body=ECHO))
        await runner.waiting.wait()
        client.stream.socket.close()
        await runner.ended.wait()
    assert runner.how == "gone"


@pytest.mark.usefixtures("short_deadlines")
async def test_a_caller_that_does_not_read_its_answer_is_cut(server: Server) -> None:
    with trio.fail_after(20):
        client = await server.connect()
        await client.send(request(body=b'{"method":"big","params":{"size":16000000}}'))
        while not server.services.meters.requests and server.door.connections:
            await trio.testing.wait_all_tasks_blocked(0.01)
        while server.door.connections:
            await trio.testing.wait_all_tasks_blocked(0.01)


async def test_a_slow_but_steady_reader_gets_its_whole_answer(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (hot_wire, hypercorn_server):
        monkeypatch.setattr(module, "WRITE_STALL_S", 1.0)
    monkeypatch.setattr(door, "TICK_S", 0.05)
    size = 8_000_000
    with trio.fail_after(30):
        client = await server.connect()
        await client.send(request(body=b'{"method":"big","params":{"size":%d}}' % size))
        received = 0
        while received < size:
            received += len(await client.stream.receive_some(200_000))
            with trio.move_on_after(0.03):
                await trio.sleep_forever()


async def test_a_client_that_resets_the_connection_is_no_news(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    import socket
    import struct

    with trio.fail_after(10):
        for data in (b"", b"POST /mcp", request(body=ECHO)[:-3], request(body=ECHO) * 20):
            client = await server.connect()
            if data:
                await client.send(data)
            client.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.stream.socket.close()
        while server.door.connections:
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert (await (await server.connect()).ask(request(body=ECHO))).status == 200
    assert not caplog.records


async def test_a_client_may_close_its_writing_side_and_read_on(lane: Server) -> None:
    with trio.fail_after(10):
        client = await lane.connect()
        await client.send(request(body=ECHO) * 3)
        await client.stream.send_eof()
        assert [(await client.reply()).status for _ in range(3)] == [200] * 3
        assert await client.is_closed()
