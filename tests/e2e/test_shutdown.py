"""The end of a control plane, asked for: in order, within its time, and without leaving a process behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.e2e.load import stream, until
from tests.e2e.plane import below, open_plane, wait_until
from tests.supervise.test_leaving import OBSTINATE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import httpx

    from tests.e2e.plane import Plane

END_S = 10.0
"""What is promised for the worst case, Ctrl-C included."""
in_thread = trio.to_thread.run_sync

STUBBORN = b"""
import json, signal, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
for line in sys.stdin:
    message = json.loads(line)
    if message.get("method") == "initialize":
        result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
    elif "id" in message:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "no"}}), flush=True)
while True:
    time.sleep(60)
"""
"""Stays when its stdin is closed, and when it is asked to go."""


def sleeping(seconds: float) -> dict[str, Any]:
    return {"method": "tools/call", "params": {"name": "sleep", "arguments": {"seconds": seconds}}}


def stalled_reader(plane: Plane, path: str) -> socket.socket:
    """A client that opens an event stream and never reads from it."""
    host, _, port = plane.url.removeprefix("http://").partition(":")
    client = socket.create_connection((host, int(port)), timeout=10)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {plane.token}\r\n\r\n".encode())
    return client


async def test_sigterm_answers_what_is_under_way_ends_streams_and_leaves_nothing(
    planes: Callable[..., Plane], figure: Callable[..., None]
) -> None:
    plane = planes()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(in_thread, plane.deploy, "sleeper")
        nursery.start_soon(in_thread, plane.deploy, "endless")
        nursery.start_soon(in_thread, plane.deploy, "stubborn", STUBBORN)
    answers: dict[str, httpx.Response] = {}

    async def call(name: str, seconds: float) -> None:
        async with plane.aclient() as http:
            answers[name] = await http.post(f"/mcp/{name}/execute", json=sleeping(seconds))

    with stalled_reader(plane, "/events"), trio.fail_after(120):
        async with stream(plane, "/events") as events:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call, "sleeper", 1.0)
                nursery.start_soon(call, "endless", 300)
                await in_thread(partial(wait_for_calls, plane, 2))
                descendants = below(plane.pid)
                began = trio.current_time()
                plane.send(signal.SIGTERM)
            await until(lambda: events.ended, 60, "the end of the stream")
            status = await in_thread(plane.wait)
            ended_s = trio.current_time() - began
        await in_thread(plane.wait_gone, descendants)
        gone_s = trio.current_time() - began

    assert status == 0
    assert answers["sleeper"].status_code == 200
    assert (answers["endless"].status_code, answers["endless"].json()["code"]) == (503, "shutting_down")
    assert events.events[-1]["type"] == "shutdown"
    assert ended_s < END_S
    figure("ended after", ended_s, "s")
    figure("nothing left after", gone_s, "s")
    again = await in_thread(plane.start)
    for name in ("sleeper", "endless", "stubborn"):
        await in_thread(again.wait_status, name, "running")
    figure("the next start is ready after", again.ready_after_s, "s")
    again.assert_no_orphans()


async def test_servers_that_neither_answer_nor_go_are_gone_in_time_and_their_callers_told(
    planes: Callable[..., Plane], figure: Callable[..., None]
) -> None:
    plane = planes()
    names = [f"obstinate{number}" for number in range(4)]
    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(in_thread, plane.deploy, name, OBSTINATE)
    answers: dict[str, httpx.Response] = {}

    async def call(name: str) -> None:
        async with plane.aclient() as http:
            answers[name] = await http.post(f"/mcp/{name}/execute", json=sleeping(300))

    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(call, name)
            await in_thread(partial(wait_for_calls, plane, len(names)))
            descendants = below(plane.pid)
            began = trio.current_time()
            plane.send(signal.SIGTERM)
        status = await in_thread(plane.wait)
        ended_s = trio.current_time() - began
        await in_thread(plane.wait_gone, descendants)

    assert status == 0, "in order, before the hard end"
    assert {(answers[name].status_code, answers[name].json()["code"]) for name in names} == {(503, "shutting_down")}
    assert ended_s < END_S
    figure("ended after", ended_s, "s")


async def test_a_call_through_the_slower_door_gets_its_answer_at_the_end_of_the_drain_too(
    planes: Callable[..., Plane],
) -> None:
    plane = planes()
    await in_thread(plane.deploy, "endless")
    answers: list[httpx.Response] = []

    async def body() -> AsyncIterator[bytes]:
        yield json.dumps(sleeping(300)).encode()  # of unknown length: not for the hot lane

    async def call(**headers: str) -> None:
        async with plane.aclient() as http:
            fields = {"Content-Type": "application/json", **headers}
            answers.append(await http.post("/mcp/endless/execute", content=body(), headers=fields))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await in_thread(partial(wait_for_calls, plane, 1))
            plane.send(signal.SIGTERM)
        assert await in_thread(plane.wait) == 0

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(503, "shutting_down")]


def wait_for_calls(plane: Plane, number: int) -> None:
    wait_until(lambda: plane.get("/stats")["calls"]["in_flight"] >= number, 30, "the calls in flight")


def test_ctrl_c_ends_it_and_all_it_runs(planes: Callable[..., Plane], figure: Callable[..., None]) -> None:
    plane = planes()
    plane.deploy("echo")
    descendants = below(plane.pid)

    began = time.monotonic()
    os.killpg(plane.pid, signal.SIGINT)  # as a terminal does: to all that share its process group
    status = plane.wait()
    ended_s = time.monotonic() - began
    plane.wait_gone(descendants)

    assert status == 0
    assert ended_s < END_S
    figure("Ctrl-C with an idle instance ended after", ended_s, "s")


def test_a_second_signal_ends_it_at_once(planes: Callable[..., Plane], figure: Callable[..., None]) -> None:
    plane = planes()
    plane.deploy("stubborn", STUBBORN)
    descendants = below(plane.pid)

    plane.send(signal.SIGTERM)
    wait_until(lambda: "stopping" in plane.log, 30, "the first signal's effect")
    began = time.monotonic()
    plane.send(signal.SIGINT)
    status = plane.wait()
    plane.wait_gone(descendants)

    assert status == 1
    figure("nothing left after the second signal", time.monotonic() - began, "s")


def test_a_hang_up_is_nothing_to_die_of(plane: Plane) -> None:
    plane.deploy("unmoved")
    pid = plane.instance("unmoved")["pid"]

    for _ in range(3):
        plane.send(signal.SIGHUP)
        assert plane.tool("unmoved", "echo", text="still here") == "still here"

    assert plane.instance("unmoved")["pid"] == pid


@pytest.mark.parametrize("milestone", ["the process", "its home", "its spawner", "Postgres", "the banner"])
def test_it_can_be_ended_at_any_point_of_its_start(milestone: str) -> None:
    with open_plane(first_start=True) as plane:
        process = plane.begin()

        def is_there() -> bool:
            assert process.poll() is None, plane.log
            names = {child.command for child in below(process.pid)}
            return {
                "the process": True,
                "its home": (plane.home / "owner-id").exists(),
                "its spawner": bool(names),
                "Postgres": bool(names & {"initdb", "postgres"}),
                "the banner": "serves at" in plane.log,
            }[milestone]

        wait_until(is_there, 60, milestone)
        descendants = below(process.pid)
        plane.send(signal.SIGTERM)
        status = plane.wait()
        for left in descendants:
            wait_until(lambda left=left: not left.is_live, 20, f"the end of {left}")

        assert status in (0, -signal.SIGTERM), plane.log
        assert not re.search("Traceback|CRITICAL", plane.log), plane.log
