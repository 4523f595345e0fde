"""Processes beside an instance's primary: for the clients that need them, and never more than the cap."""

from __future__ import annotations

import os
import signal
from itertools import chain, combinations
from typing import TYPE_CHECKING

import pytest
import trio

from controlplane.core.jsonrpc import encode
from controlplane.core.lifecycle import State
from controlplane.errors import Busy, InstanceUnavailable
from controlplane.supervise import lanes as lanes_module
from controlplane.supervise.lanes import LANES_MAX, SPARED_S

if TYPE_CHECKING:
    from controlplane.protocol.capabilities import CapabilitySet
    from controlplane.supervise.lane import Lane
    from controlplane.supervise.lanes import Lanes
    from tests.supervise.conftest import Yard

FEATURES = ("roots", "sampling", "sampling.tools", "elicitation.form", "elicitation.url")
MANY_SETS: list[CapabilitySet] = [
    frozenset(some) for some in chain.from_iterable(combinations(FEATURES, n) for n in (1, 2, 3))
]
MUTE_TO_CLIENTS = b"""
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("method") == "initialize" and not message["params"]["capabilities"]:
        result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "mute", "version": "1"}}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
    elif message.get("id") is not None and message.get("method") != "initialize":
        error = {"code": -32601, "message": "Method not found"}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": error}), flush=True)
"""
"""Never greets a client that can be asked something."""
INTRODUCTION = encode(
    {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "ada", "version": "1"}}
)


class Silent:
    """A client that is told of the end of its process, and says nothing."""

    def on_end(self, reason: str) -> None:
        """Nobody to tell."""


async def all_at_once(lanes: Lanes, *, private: bool) -> tuple[list[Lane], int]:
    """Ask for a process for each set of capabilities; return those that came, and how many were refused."""
    came: list[Lane] = []
    refused = 0

    async def ask(capabilities: CapabilitySet) -> None:
        nonlocal refused
        try:
            wanted = lanes.private(INTRODUCTION, capabilities) if private else lanes.legacy(capabilities)
            came.append(await wanted)
        except Busy:
            refused += 1

    async with trio.open_nursery() as nursery:
        for capabilities in MANY_SETS:
            nursery.start_soon(ask, capabilities)
    return came, refused


@pytest.mark.parametrize("private", [False, True], ids=["shared", "private"])
async def test_clients_that_come_at_once_start_no_more_processes_than_the_cap(
    yard: Yard, echo: bytes, private: bool
) -> None:
    runner = await yard.running(echo, sessions="per-session" if private else "shared")

    came, refused = await all_at_once(runner.lanes, private=private)

    assert len(MANY_SETS) > LANES_MAX
    assert (len(came), refused) == (LANES_MAX, len(MANY_SETS) - LANES_MAX)
    assert len({lane.child.job.pid for lane in came}) == LANES_MAX
    assert len(runner.lanes.children) == LANES_MAX


async def test_the_log_says_which_processes_came_and_went_and_why(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo)
    roots = await runner.lanes.legacy(frozenset({"roots"}))
    unused = await runner.lanes.legacy(frozenset({"sampling"}))
    unused.retire()
    os.kill(roots.child.job.pid, signal.SIGKILL)
    with trio.fail_after(20):
        while runner.lanes.children:
            await trio.sleep(0.01)

    said = yard.journal.messages("system")
    assert f"started process {roots.child.job.pid}, for clients that can be asked: roots" in said
    assert f"not needed any more: process {unused.child.job.pid}, for clients that can be asked: sampling" in said
    assert any(f"process {roots.child.job.pid}, for clients that can be asked: roots; its" in line for line in said)


async def test_a_process_of_its_own_is_nobody_elses_and_ends_with_its_client(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo, sessions="per-session")
    first = await runner.lanes.private(INTRODUCTION, frozenset())
    second = await runner.lanes.private(INTRODUCTION, frozenset())

    assert len({first.child.job.pid, second.child.job.pid}) == 2
    first.retire()
    with trio.fail_after(20):
        await first.child.over.wait()
    assert second.is_open


async def test_at_the_cap_a_client_takes_the_place_of_one_that_has_not_used_its_process_for_a_while(
    yard: Yard, echo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes_module, "LANES_MAX", 1)
    runner = await yard.running(echo, sessions="per-session")
    lane = await runner.lanes.private(INTRODUCTION, frozenset())
    lane.join(Silent())
    with pytest.raises(Busy):
        await runner.lanes.private(INTRODUCTION, frozenset())

    lane.used_at -= SPARED_S + 1
    other = await runner.lanes.private(INTRODUCTION, frozenset())

    assert not lane.is_open
    assert other.is_open


async def test_an_instance_that_stops_does_not_wait_for_a_process_that_is_being_greeted(yard: Yard) -> None:
    runner = await yard.running(MUTE_TO_CLIENTS)
    failed = trio.Event()

    async def want() -> None:
        with pytest.raises(InstanceUnavailable, match="stopped"):
            await runner.lanes.legacy(frozenset({"roots"}))
        failed.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(want)
        with trio.fail_after(20):
            while not runner.lanes.children:
                await trio.sleep(0.01)
            await yard.supervisor.stop(runner)
            await failed.wait()
            await runner.wait_settled(20)
    assert runner.state is State.STOPPED
    assert not runner.lanes.children
