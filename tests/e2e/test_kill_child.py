"""A server that dies: its callers are told at once, it serves again soon, and nobody else notices."""

from __future__ import annotations

import os
import re
import signal
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.e2e.load import canary, seconds_between, stream, until
from tests.e2e.plane import below, is_alive, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.load import Stream
    from tests.e2e.plane import Plane

CALLERS = 6
in_thread = trio.to_thread.run_sync


def sleeping(seconds: float = 300) -> dict[str, Any]:
    """The body of a call that waits."""
    return {"method": "tools/call", "params": {"name": "sleep", "arguments": {"seconds": seconds}}}


async def deploy(plane: Plane, *names: str, **body: Any) -> None:
    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(in_thread, partial(plane.deploy, name, **body))


def backoff_s(restarting: dict[str, Any]) -> float:
    """The delay that a status event announces."""
    found = re.search(r"restarting in ([0-9.]+) s", restarting["phase"])
    assert found is not None, restarting
    return float(found[1])


def last_restart(events: Stream) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The last `restarting` and the `running` that followed it."""
    status = events.of("status")
    if not status or status[-1]["status"] != "running":
        return None
    restarting = [event for event in status if event["status"] == "restarting"]
    return (restarting[-1], status[-1]) if restarting else None


async def test_callers_are_told_at_once_and_a_killed_server_serves_again(
    plane: Plane, figure: Callable[..., None]
) -> None:
    await deploy(plane, "victim", "neighbour")
    pid = plane.instance("victim")["pid"]
    told: list[tuple[float, int, dict[str, Any]]] = []

    async def wait_for_an_answer() -> None:
        async with plane.aclient() as http:
            answer = await http.post("/mcp/victim/execute", json=sleeping())
        told.append((trio.current_time(), answer.status_code, answer.json()))

    with trio.fail_after(120):
        async with canary(plane, "neighbour") as bird, stream(plane, "/mcp/victim/stream") as events:
            async with trio.open_nursery() as nursery:
                for _ in range(CALLERS):
                    nursery.start_soon(wait_for_an_answer)
                await in_thread(wait_for_calls_in_flight, plane, CALLERS)
                killed_at = trio.current_time()
                os.kill(pid, signal.SIGKILL)
            restarting, running = await until(lambda: last_restart(events), 60, "running again")
            again_s = trio.current_time() - killed_at
            assert plane.tool("victim", "echo", text="back") == "back"

    assert [(status, body["code"], body["signal"]) for _, status, body in told] == [
        (502, "instance_crashed", "SIGKILL")
    ] * CALLERS
    told_s = max(at for at, _, _ in told) - killed_at
    after_backoff_s = seconds_between(restarting, running) - backoff_s(restarting)
    assert told_s < 5
    assert after_backoff_s < 5
    assert not events.ended
    assert [event["code"] for event in events.of("post_mortem")] == ["signalled"]
    bird.assert_undisturbed()
    now = plane.instance("victim")
    assert (now["restarts"], now["status"], now["last_error"]["signal"]) == (1, "running", "SIGKILL")
    assert now["pid"] != pid
    assert is_alive(now["pid"])
    figure("all callers told after", told_s, "s")
    figure("serving again after the kill", again_s, "s")
    figure("serving again after its backoff", after_backoff_s, "s")
    figure("neighbour's p99 meanwhile", bird.percentile(99) * 1000, "ms")
    plane.assert_no_orphans()


def wait_for_calls_in_flight(plane: Plane, number: int) -> None:
    """Wait until instances have at least so many unanswered calls."""
    wait_until(lambda: plane.get("/stats")["calls"]["in_flight"] >= number, 30, "the calls in flight")


@pytest.mark.parametrize(
    ("name", "tool", "arguments", "evidence"),
    [
        ("exits", "exit", {"status": 3, "last_words": "out of hay"}, {"exit_code": 3}),
        ("segfaults", "kill", {"signal": signal.SIGSEGV}, {"signal": "SIGSEGV"}),
        ("stutters", "half", {}, {"exit_code": 1}),
    ],
)
def test_however_a_server_dies_its_caller_is_told_how_and_it_serves_again(
    plane: Plane, name: str, tool: str, arguments: dict[str, Any], evidence: dict[str, Any]
) -> None:
    plane.deploy(name)
    pid = plane.instance(name)["pid"]

    answer = plane.execute(name, "tools/call", {"name": tool, "arguments": arguments})

    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (502, "instance_crashed")
    assert {key: problem[key] for key in evidence} == evidence
    assert problem["stderr_tail"] == [line for line in [arguments.get("last_words")] if line]
    wait_until_it_answers(plane, name)
    assert plane.instance(name)["pid"] != pid
    assert not is_alive(pid)


def test_a_server_that_keeps_dying_is_given_up_until_it_is_started_again(plane: Plane) -> None:
    restart = {"mode": "on-failure", "burst": 2, "max_delay_s": 0.5}
    plane.deploy("loops", SERVES_FOR_A_MOMENT, restart=restart)

    failed = plane.wait_status("loops", "failed")

    assert failed["last_error"]["code"] == "crash_loop"
    assert failed["last_error"]["stderr_tail"] == ["the barn is empty"]
    assert (failed["restarts"], failed["incarnation"], failed["pid"]) == (2, 3, None)
    answer = plane.execute("loops", "ping")
    assert (answer.status_code, answer.json()["code"]) == (503, "instance_unavailable")
    assert "Retry-After" in answer.headers
    assert "the barn is empty" in plane.corral("logs", "loops").stdout
    again = plane.request("POST", "/instances/loops/start?wait=60")
    assert again.status_code == 200, again.text
    removed = plane.request("DELETE", "/instances/loops")
    assert removed.status_code == 200
    assert plane.request("GET", "/instances/loops").status_code == 404


async def test_when_the_spawner_is_killed_all_instances_are_back_and_nothing_of_the_old_ones_lives(
    planes: Callable[..., Plane], figure: Callable[..., None]
) -> None:
    plane = planes()
    await deploy(plane, "first", "second")
    plane.tool("first", "daemon")
    pids = {name: plane.instance(name)["pid"] for name in ("first", "second")}
    spawner = next(p for p in below(plane.pid) if p.ppid == plane.pid and is_above(p.pid, set(pids.values())))
    before = below(spawner.pid)
    told: list[tuple[int, str]] = []

    async def wait_for_an_answer() -> None:
        async with plane.aclient() as http:
            answer = await http.post("/mcp/second/execute", json=sleeping())
        told.append((answer.status_code, answer.json()["code"]))

    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_an_answer)
            await in_thread(wait_for_calls_in_flight, plane, 1)
            killed_at = trio.current_time()
            os.kill(spawner.pid, signal.SIGKILL)
        await until(lambda: not [p for p in before if p.is_live], 60, "the end of all it had")
        gone_s = trio.current_time() - killed_at
        for name in pids:
            await in_thread(wait_until_it_answers, plane, name)
        again_s = trio.current_time() - killed_at

    assert told == [(502, "instance_crashed")]
    assert all(plane.instance(name)["pid"] != pid for name, pid in pids.items())
    wait_until(lambda: plane.get("/health")["status"] == "healthy", 60, "healthy")
    figure("nothing of the old processes lives after", gone_s, "s")
    figure("both instances serve again after", again_s, "s")
    plane.assert_no_orphans()


def wait_until_it_answers(plane: Plane, name: str) -> None:
    wait_until(lambda: plane.execute(name, "ping").status_code == 200, 60, f"{name} serving again")


def is_above(pid: int, pids: set[int]) -> bool:
    """Whether any of these processes descends from it."""
    return bool(pids & {process.pid for process in below(pid)})


SERVES_FOR_A_MOMENT = b"""
import json, os, sys, threading
for line in sys.stdin:
    message = json.loads(line)
    if message.get("method") == "initialize":
        result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
    elif "id" in message:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "no"}}), flush=True)
    elif message["method"] == "notifications/initialized":
        print("the barn is empty", file=sys.stderr, flush=True)
        threading.Timer(0.15, os._exit, [9]).start()
"""
