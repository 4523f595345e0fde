"""MCP servers that die, stop or are stopped while clients of both eras have everything open.

Whoever waits is told at once, the next call works, and nothing is left: no process, descriptor, session or lane.
"""

from __future__ import annotations

import os
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from attrs import define, field

from tests import servers
from tests.e2e.http1 import Broken, connected
from tests.e2e.load import until
from tests.e2e.mcp_clients import CAME_S, LegacyClient, ModernClient, said, tool_call
from tests.e2e.plane import below, is_alive, wait_until
from tests.e2e.test_fleet import MAX_GROWTH, size

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.e2e.http1 import Http
    from tests.e2e.mcp_clients import Message
    from tests.e2e.plane import Plane

ROUNDS = {"legacy": 6, "dual": 8, "modern": 6}
LIMIT_S = 240
END_S = 10.0
"""What is promised for the end of the control plane, and more than the stop of one instance takes."""
ASKS: Message = {"elicitation": {}}
RESTART = {"mode": "always", "burst": 100, "max_delay_s": 0.5}
in_thread = trio.to_thread.run_sync


def deploy(plane: Plane, name: str, era: str, **body: Any) -> None:
    source = servers.source("eras.py")
    plane.deploy(name, source, environment_vars={"ERA": era}, restart=RESTART, **body)


def remove(plane: Plane, name: str) -> None:
    assert plane.request("DELETE", f"/instances/{name}").status_code == 200


@define(eq=False)
class Business:
    """Everything that clients can have open on one instance, on its primary process and on one beside it.

    `ended` has the time of each end, and what it was: a response, {} for a stream that ended without one.
    """

    http: Http
    name: str
    plain: LegacyClient = field(init=False)
    asks: LegacyClient = field(init=False)
    modern: ModernClient = field(init=False)
    elicits: ModernClient = field(init=False)
    state: str = field(default="", init=False)
    opened: int = field(default=0, init=False)
    ended: dict[str, tuple[float, Message]] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        path = f"/mcp/{self.name}"
        self.plain = LegacyClient(self.http, path, {}, lambda _question: None)
        self.asks = LegacyClient(self.http, path, ASKS, lambda _question: None)
        self.modern = ModernClient(self.http, path)
        self.elicits = ModernClient(self.http, path, ASKS)

    async def open(self, nursery: trio.Nursery) -> None:
        """Open it all, and wait until it is."""
        for name, client in (("plain", self.plain), ("asks", self.asks)):
            assert "result" in await client.initialize(), client.initialized
            await nursery.start(self._stream, name, client)
            self._start(nursery, f"{name}: working", client.request, "tools/call", working(name), token="w")
            await client.until_told("progress", name)
        self._start(nursery, "asks: asked", self.asks.request, "tools/call", tool_call("ask", nonce="asked"))
        await until(lambda: self.asks.asked, CAME_S, "the question")
        await nursery.start(self._listen)
        self._start(nursery, "modern: working", self.modern.request, "tools/call", working("modern"), token="w")
        await self.modern.until_told("progress", "modern")
        response = await self.elicits.once("tools/call", self.asking)
        self.state = response["result"].get("requestState", "")

    @property
    def asking(self) -> Message:
        return tool_call("ask", nonce="parked")

    async def retry(self) -> Message:
        """The answers that the parked call waits for."""
        answers = {"elicitation-1": {"action": "cancel"}}
        return await self.elicits.once(
            "tools/call", {**self.asking, "inputResponses": answers, "requestState": self.state}
        )

    async def pids(self) -> dict[str, int]:
        """Of the processes that serve the sessions."""
        return {"plain": await self.pid_of(self.plain), "asks": await self.pid_of(self.asks)}

    async def pid_of(self, client: LegacyClient) -> int:
        return int(said(await client.request("tools/call", tool_call("pid"))))

    async def until_all_ended(self, names: set[str] | None = None) -> None:
        await until(lambda: self.ended.keys() >= (names or self.all_names), CAME_S, f"the end of {names or 'all'}")

    @property
    def all_names(self) -> set[str]:
        working = {f"{name}: working" for name in ("plain", "asks", "modern")}
        return working | {"plain: stream", "asks: stream", "asks: asked", "modern: listening"}

    def last_after(self, began: float) -> float:
        """Seconds until the last of them had ended."""
        return max(at for at, _ in self.ended.values()) - began

    def _start(self, nursery: trio.Nursery, name: str, call: Callable[..., Any], *args: Any, **options: Any) -> None:
        async def run() -> None:
            try:
                response = await call(*args, **options)
            except Broken:
                response = {}
            self.ended[name] = trio.current_time(), response

        nursery.start_soon(run)

    async def _stream(
        self, name: str, client: LegacyClient, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        await client.run_stream(task_status)
        self.ended[f"{name}: stream"] = trio.current_time(), {}

    async def _listen(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        response = await self.modern.listen({"toolsListChanged": True}, task_status)
        self.ended["modern: listening"] = trio.current_time(), response


def working(nonce: str) -> Message:
    """A call that reports progress for as long as anybody lets it."""
    return tool_call("work", nonce=nonce, steps=100_000, pause=0.01)


@asynccontextmanager
async def business(plane: Plane, name: str) -> AsyncIterator[Business]:
    """All that clients can have open on an instance."""
    with trio.fail_after(LIMIT_S):
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(connected(plane))
            nursery = await stack.enter_async_context(trio.open_nursery())
            opened = Business(http, name)
            await opened.open(nursery)
            yield opened
            nursery.cancel_scope.cancel()


def assert_told(ended: dict[str, tuple[float, Message]]) -> None:
    """Every call has an error for an answer: its stream did not just end."""
    for name, (_, response) in ended.items():
        if ":" in name and not name.endswith(("stream", "listening")):
            assert "error" in response, f"{name}: {response}"


async def serves_again(http: Http, name: str) -> None:
    """Wait until calls of both eras are answered."""
    with trio.fail_after(CAME_S):
        while True:
            modern, legacy = ModernClient(http, f"/mcp/{name}"), LegacyClient(http, f"/mcp/{name}", ASKS)
            if (
                "result" in await modern.request("tools/call", tool_call("pid"))
                and "result" in await legacy.initialize()
            ):
                break
            await trio.sleep(0.05)
        assert "result" in await legacy.request("tools/call", tool_call("pid"))
        assert await legacy.delete() == 200


def gauges(plane: Plane) -> dict[str, float]:
    """What the endpoint holds."""
    names = ("sessions", "streams", "buffered_bytes", "parked_calls")
    return {name: plane.metric(f"corral_mcp_{name}") for name in names}


def wait_idle(plane: Plane, *, parked: bool = True) -> None:
    """Wait until the endpoint holds nothing any more; `parked` calls that nobody comes back for are held for a while."""

    def is_idle() -> bool:
        held = gauges(plane)
        return not any(held[name] for name in held if parked or name != "parked_calls")

    try:
        wait_until(is_idle, CAME_S, "nothing held")
    except AssertionError:
        raise AssertionError(f"held for nobody: {gauges(plane)}") from None


@pytest.mark.parametrize("era", ["legacy", "dual", "modern"])
async def test_when_all_its_processes_are_killed_everybody_is_told_at_once_and_nothing_is_left(
    plane: Plane, era: str, figure: Callable[..., None]
) -> None:
    name = f"victim-{era}"
    await in_thread(deploy, plane, name, era)
    sizes: list[dict[str, int]] = []
    slowest = 0.0
    async with connected(plane) as http:
        for number in range(ROUNDS[era]):
            async with business(plane, name) as opened:
                began = trio.current_time()
                for pid in await in_thread(server_pids, plane, name):
                    os.kill(pid, signal.SIGKILL)
                await opened.until_all_ended()
                assert_told(opened.ended)
                slowest = max(slowest, opened.last_after(began))
                retried = await opened.retry()
                assert "error" in retried
                assert era == "modern" or retried["error"]["code"] != -32602, (
                    "the state is known, and its call has failed"
                )
                for client in (opened.plain, opened.asks):
                    await client.request("ping")
                    assert client.status == 404
                await serves_again(http, name)
            await in_thread(wait_idle, plane)
            if number in (1, 2):
                sizes = [await in_thread(size, plane)]
        sizes.append(await in_thread(size, plane))
    figure("the last one told after", slowest, "s")
    growth = {what: sizes[1][what] - sizes[0][what] for what in MAX_GROWTH}
    assert all(growth[what] <= most for what, most in MAX_GROWTH.items()), growth
    await in_thread(remove, plane, name)
    await in_thread(plane.assert_no_orphans)


def server_pids(plane: Plane, name: str) -> list[int]:
    """Of all processes of an instance: they run as its user, and it is the only one here."""
    primary = plane.instance(name)["pid"]
    mine = [process for process in below(plane.pid) if process.pid == primary]
    assert mine
    return [process.pid for process in below(mine[0].ppid) if process.command == mine[0].command]


async def test_a_process_beside_the_primary_that_is_killed_costs_its_own_clients_only(
    plane: Plane, figure: Callable[..., None]
) -> None:
    await in_thread(deploy, plane, "beside", "legacy")
    async with business(plane, "beside") as opened:
        pids = await opened.pids()
        began = trio.current_time()
        os.kill(pids["asks"], signal.SIGKILL)
        theirs = {"asks: working", "asks: asked", "asks: stream"}
        await opened.until_all_ended(theirs)
        figure("the last one told after", opened.last_after(began), "s")

        assert opened.ended.keys() == theirs
        assert_told(opened.ended)
        retried = await opened.retry()  # its call may have run on a third process, as a question was open on this one
        assert "result" in retried or retried["error"]["data"]["code"] == "instance_crashed"
        assert "result" in await opened.plain.request("ping")
        await opened.asks.request("ping")
        assert opened.asks.status == 404
        await serves_again(opened.http, "beside")
        assert (await opened.pid_of(opened.plain)) == pids["plain"]
    assert plane.instance("beside")["restarts"] == 0
    await in_thread(remove, plane, "beside")


async def test_a_process_beside_the_primary_that_is_stopped_holds_nobody_else_up(
    plane: Plane, figure: Callable[..., None]
) -> None:
    await in_thread(partial(deploy, limits={"call_timeout_s": 2.0}), plane, "frozen", "legacy")
    async with connected(plane) as http:
        plain, asks = LegacyClient(http, "/mcp/frozen"), LegacyClient(http, "/mcp/frozen", ASKS)
        with trio.fail_after(LIMIT_S):
            for client in (plain, asks):
                await client.initialize()
            pid = int(said(await asks.request("tools/call", tool_call("pid"))))
            os.kill(pid, signal.SIGSTOP)

            assert (await asks.request("tools/call", tool_call("pid")))["error"]["data"]["code"] == "call_timeout"
            assert "result" in await plain.request("tools/call", tool_call("pid"))
            began = trio.current_time()
            await in_thread(remove, plane, "frozen")
            await until(lambda: not is_alive(pid), CAME_S, "the end of the stopped process")
        figure("removed after", trio.current_time() - began, "s")
    await in_thread(plane.assert_no_orphans)


@pytest.mark.parametrize("fault", ["exits", "refuses", "dies"])
async def test_a_process_beside_the_primary_that_cannot_be_had_is_an_error_and_can_be_had_later(
    plane: Plane, fault: str
) -> None:
    name = f"lane-{fault}"
    await in_thread(deploy, plane, name, "legacy")
    async with connected(plane) as http:
        modern, asks = ModernClient(http, f"/mcp/{name}"), LegacyClient(http, f"/mcp/{name}", ASKS)
        with trio.fail_after(LIMIT_S):
            await modern.request("tools/call", tool_call("fault", fault=f"lanes {fault}"))
            for _ in range(3):
                if "result" in await asks.initialize():  # it introduced itself, and went
                    await until_gone(asks)
                else:
                    assert asks.initialized["error"]["data"]["code"] in ("instance_unavailable", "instance_crashed")
            assert "result" in await modern.request("tools/call", tool_call("pid"))
            await modern.request("tools/call", tool_call("fault", fault=""))
            await serves_again(http, name)
    assert plane.instance(name)["restarts"] == 0
    await in_thread(remove, plane, name)
    await in_thread(plane.assert_no_orphans)


async def until_gone(client: LegacyClient) -> None:
    """Until a session is over."""
    while client.status != 404:
        await client.request("tools/call", tool_call("pid"))
        await trio.sleep(0.02)


async def test_an_instance_with_everything_open_stops_restarts_and_goes_in_time(
    plane: Plane, figure: Callable[..., None]
) -> None:
    took: dict[str, float] = {}

    async def end(name: str, era: str, method: str, path: str) -> None:
        await in_thread(deploy, plane, name, era)
        async with business(plane, name) as opened:
            began = trio.current_time()
            answer = await in_thread(plane.request, method, path)
            assert answer.status_code == 200, answer.text
            took[name] = trio.current_time() - began
            await opened.until_all_ended()
            assert_told(opened.ended)
            if name == "restarts":
                await serves_again(opened.http, name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end, "restarts", "legacy", "POST", "/instances/restarts/restart?wait=60")
        nursery.start_soon(end, "goes", "legacy", "DELETE", "/instances/goes")
        nursery.start_soon(end, "stops", "modern", "POST", "/instances/stops/stop?wait=60")
    await in_thread(partial(wait_idle, parked=False), plane)
    for name, seconds in took.items():
        assert seconds < CAME_S
        figure(f"{name} after", seconds, "s")
    for name in ("restarts", "stops"):
        await in_thread(remove, plane, name)
    await in_thread(plane.assert_no_orphans)


async def test_sigterm_with_everything_open_ends_it_in_time_and_tells_everybody(
    planes: Callable[..., Plane], figure: Callable[..., None]
) -> None:
    plane = await in_thread(planes)
    for era in ("legacy", "modern"):
        await in_thread(deploy, plane, era, era)
    async with business(plane, "legacy") as legacy, business(plane, "modern") as modern:
        descendants = await in_thread(below, plane.pid)
        began = trio.current_time()
        plane.send(signal.SIGTERM)
        status = await in_thread(plane.wait)
        took = trio.current_time() - began
        for opened in (legacy, modern):
            await opened.until_all_ended()
            assert_told(opened.ended)
    assert status == 0
    assert took < END_S
    await in_thread(plane.wait_gone, descendants)
    figure("ended after", took, "s")
