"""The control plane ends: whatever becomes of a call then, its caller is told that, and not that the server failed."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
import trio

from controlplane import app
from controlplane.core.jsonrpc import encode
from controlplane.core.lifecycle import State
from controlplane.errors import ShuttingDown
from controlplane.supervise import child, orders, supervisor
from controlplane.web import door
from tests.supervise.test_runner import wait_until

if TYPE_CHECKING:
    from controlplane.supervise.runner import Runner
    from tests.supervise.conftest import Yard

OBSTINATE = b"""
import json, signal, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
for line in sys.stdin:
    message = json.loads(line)
    if message.get("method") == "initialize":
        result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
    elif message.get("method") == "tools/call":
        break
    elif "id" in message:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "no"}}), flush=True)
while True:
    time.sleep(60)
"""
"""Answers no call, and stays when its stdin is closed and when it is asked to go."""
BARE = b"""
import sys, time
for line in sys.stdin:
    if '"sleep"' in line:
        time.sleep(300)
    print('{"error": {"code": -32601, "message": "Method not found"}}', flush=True)
"""
ENDLESS = encode({"name": "sleep", "arguments": {"seconds": 300}})


async def is_told_so(runner: Runner, method: str = "tools/call", params: bytes | None = ENDLESS) -> None:
    with pytest.raises(ShuttingDown) as told:
        await runner.call(method, params, timeout_s=60)
    assert told.value.retry_after_s is not None


async def test_a_call_that_outlasts_the_drain(yard: Yard, echo: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "DRAIN_S", 0.0)
    runner = await yard.running(echo)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(is_told_so, runner)
        await wait_until(lambda: len(runner.child.session.pending) == 1)
        runner.leave()


async def test_a_call_whose_server_dies_during_the_drain(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(is_told_so, runner)
        await wait_until(lambda: len(runner.child.session.pending) == 1)
        runner.leave()
        os.kill(runner.pid, signal.SIGKILL)


async def test_a_call_whose_server_died_just_before(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(is_told_so, runner)
        await wait_until(lambda: len(runner.child.session.pending) == 1)
        child = runner.child
        os.kill(runner.pid, signal.SIGKILL)
        await child.over.wait()
        runner.leave()  # before anybody took notice


@pytest.mark.parametrize("ends", ["by itself", "at the end of the drain"])
async def test_calls_that_wait_for_their_turn_at_a_bare_server(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    monkeypatch.setattr(child, "DRAIN_S", 60.0 if ends == "by itself" else 0.0)
    runner = await yard.running(BARE)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(is_told_so, runner, "sleep", None)
        await wait_until(lambda: [call.method for call in runner.child.session.pending] == ["sleep"])
        nursery.start_soon(is_told_so, runner, "tools/list", None)
        nursery.start_soon(is_told_so, runner, "tools/list", None)
        await wait_until(lambda: runner.calls_in_flight == 3)
        runner.leave()
        if ends == "by itself":
            os.kill(runner.pid, signal.SIGKILL)


@pytest.mark.parametrize("drain_s", [0.0, 60.0])
async def test_the_stages_of_a_stop_share_one_bound_however_long_each_may_take(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, drain_s: float
) -> None:
    monkeypatch.setattr(orders, "LEAVE_S", 0.3)
    monkeypatch.setattr(child, "DRAIN_S", min(drain_s, 0.2))
    monkeypatch.setattr(child, "STDIN_GRACE_S", 60.0)
    monkeypatch.setattr(child, "TERM_GRACE_S", 60.0)
    runner = await yard.running(OBSTINATE)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(is_told_so, runner)
            await wait_until(lambda: len(runner.child.session.pending) == 1)
            runner.leave()
            await runner.gone.wait()


def test_the_whole_stop_fits_before_the_hard_end() -> None:
    assert child.DRAIN_S < door.DRAIN_S, "the door stays until the instances have failed the calls that they waited for"
    assert child.DRAIN_S + 2 <= orders.LEAVE_S, "a second for each grace, however late the calls end"
    assert max(supervisor.STOP_ALL_S, door.DRAIN_S + door.CLOSE_S) + app.FLUSH_S < app.HARD_END_S


async def test_a_call_that_comes_meanwhile_and_one_that_comes_after(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo)

    runner.leave()
    await wait_until(lambda: not runner.serving)
    await is_told_so(runner)
    await runner.wait_gone(20)
    await is_told_so(runner)


async def test_a_call_that_waits_for_a_start(yard: Yard) -> None:
    runner = yard.deploy(b"import time\nwhile True: time.sleep(60)")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(is_told_so, runner)
        await wait_until(lambda: runner.calls_in_flight == 1 and runner.state is State.STARTING)
        runner.leave()
