"""The control plane ends: whatever becomes of a call then, its caller is told that, and not that the server failed."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
import trio

from controlplane.core.jsonrpc import encode
from controlplane.core.lifecycle import State
from controlplane.errors import ShuttingDown
from controlplane.supervise import incarnation
from tests.supervise.test_runner import wait_until

if TYPE_CHECKING:
    from controlplane.supervise.runner import Runner
    from tests.supervise.conftest import Yard

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
    monkeypatch.setattr(incarnation, "DRAIN_S", 0.0)
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
    monkeypatch.setattr(incarnation, "DRAIN_S", 60.0 if ends == "by itself" else 0.0)
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
