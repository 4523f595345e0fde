"""`sessions: per-session`: every legacy client has a process of its own, which ends with its session."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from controlplane.supervise.lanes import LANES_MAX
from controlplane.wire.sse import SseParser
from tests import servers
from tests.e2e.http1 import connected
from tests.e2e.load import until
from tests.e2e.mcp_clients import CAME_S, LEGACY, LegacyClient, ModernClient, said, tool_call
from tests.e2e.plane import below, is_alive, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.e2e.http1 import Answer, Http
    from tests.e2e.plane import Plane

LIMIT_S = 120
in_thread = trio.to_thread.run_sync


@asynccontextmanager
async def deployed(plane: Plane, name: str, era: str = "legacy") -> AsyncIterator[Http]:
    """An instance that gives every session a process, gone with the block, and a client of the control plane."""
    source = servers.source("eras.py")
    deploy = partial(plane.deploy, name, source, environment_vars={"ERA": era}, sessions="per-session")
    await in_thread(deploy)
    async with connected(plane) as http:
        with trio.fail_after(LIMIT_S):
            yield http
    assert plane.request("DELETE", f"/instances/{name}").status_code == 200


async def begun(http: Http, name: str) -> tuple[LegacyClient, int, float]:
    """A client, its process, and how long `initialize` took."""
    client = LegacyClient(http, f"/mcp/{name}")
    began = trio.current_time()
    response = await client.initialize()
    took = trio.current_time() - began
    assert "result" in response, response
    return client, await pid_of(client), took


async def pid_of(client: LegacyClient | ModernClient) -> int:
    return int(said(await client.request("tools/call", tool_call("pid"))))


def processes(plane: Plane, name: str) -> int:
    """How many an instance has: its own, those of sessions, and a spare one."""
    primary = plane.instance(name)["pid"]
    mine = next(process for process in below(plane.pid) if process.pid == primary)
    return sum(process.command == mine.command for process in below(mine.ppid))


async def test_each_session_has_a_process_of_its_own_which_ends_with_it(
    plane: Plane, figure: Callable[..., None]
) -> None:
    async with deployed(plane, "apart") as http:
        sessions = [await begun(http, "apart") for _ in range(3)]
        pids = {pid for _, pid, _ in sessions}
        assert len(pids) == 3
        assert plane.instance("apart")["pid"] not in pids
        assert await pid_of(ModernClient(http, "/mcp/apart")) not in pids
        await in_thread(wait_until, lambda: processes(plane, "apart") == 5, CAME_S, "primary, three, a spare")

        lanes = (await in_thread(plane.instance, "apart"))["lanes"]
        assert [lane["kind"] for lane in lanes] == ["primary", "private", "private", "private"]
        assert {lane["pid"] for lane in lanes[1:]} == pids
        assert [(lane["era"], lane["clients"]) for lane in lanes[1:]] == [("legacy", 1)] * 3

        client, pid, _ = sessions[0]
        assert await client.delete() == 200
        await until(lambda: not is_alive(pid), CAME_S, "the end of its process")
        assert all(is_alive(pid) for _, pid, _ in sessions[1:])
        for client, pid, _ in sessions[1:]:
            assert await pid_of(client) == pid
        figure("first initialize", sessions[0][2] * 1000, "ms")
        figure("third initialize, with a spare process", sessions[2][2] * 1000, "ms")
    await until(lambda: not any(is_alive(pid) for pid in pids), CAME_S, "the end of all")
    await in_thread(plane.assert_no_orphans)


async def test_what_one_session_subscribes_to_is_told_to_it_alone(plane: Plane) -> None:
    async with deployed(plane, "own") as http, trio.open_nursery() as nursery:
        clients = [(await begun(http, "own"))[0] for _ in range(2)]
        for client in clients:
            await nursery.start(client.run_stream)
            await client.request("resources/subscribe", {"uri": "nonce://x"})
        await clients[0].request("tools/call", tool_call("update", uri="nonce://x"))
        await clients[0].until_told("resources/updated")
        await clients[1].request("ping")
        assert clients[1].told == []
        nursery.cancel_scope.cancel()


async def test_more_sessions_than_processes_are_refused_until_one_ends(plane: Plane) -> None:
    async with deployed(plane, "full") as http, AsyncExitStack() as stack:
        sessions = [await begun(http, "full") for _ in range(LANES_MAX)]
        one_more = LegacyClient(await stack.enter_async_context(connected(plane)), "/mcp/full")

        error = (await one_more.initialize())["error"]
        assert (error["code"], error["data"]["code"]) == (503, "busy")
        assert str(LANES_MAX) in error["message"]
        assert "end sessions" in error["data"]["hint"]

        client, pid, _ = sessions[0]
        await client.delete()
        await until(lambda: not is_alive(pid), CAME_S, "the end of its process")
        with trio.fail_after(CAME_S):
            while "error" in await one_more.initialize():
                await trio.sleep(0.05)
        assert await pid_of(one_more) not in {pid for _, pid, _ in sessions}


async def test_a_session_of_http_and_sse_ends_with_its_connection_and_so_does_its_process(plane: Plane) -> None:
    async with deployed(plane, "old") as http:
        async with http.sent("GET", "/mcp/old/sse", {"Accept": "text/event-stream"}) as answer:
            events = events_of(answer)
            path = await events()
            pid = await old_call(http, path, events)
            assert is_alive(pid)
            assert pid != plane.instance("old")["pid"]
        await until(lambda: not is_alive(pid), CAME_S, "the end of its process")


def events_of(answer: Answer) -> Callable[[], Awaitable[str]]:
    """Reads one event's data after the other."""
    parser = SseParser()
    waiting: list[str] = []

    async def read() -> str:
        while not waiting:
            waiting.extend(event.data for event in parser.feed(await answer.chunk()))
        return waiting.pop(0)

    return read


async def old_call(http: Http, path: str, events: Callable[[], Awaitable[str]]) -> int:
    """Introduce a client of 2024-11-05, and ask for the pid."""
    introduction = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "old", "version": "1"}}
    for method, params in (("initialize", introduction), ("tools/call", tool_call("pid"))):
        message = {"jsonrpc": "2.0", "id": method, "method": method, "params": params}
        async with http.sent("POST", path, {}, message) as posted:
            await posted.body()
            assert posted.status == 202
        response = json.loads(await events())
        assert response["id"] == method
    return int(said(response))
