"""Bare servers: answers without ids, matched by order, so order is never lost in silence."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from controlplane.errors import BadChildMessage, CallTimeout, InstanceCrashed
from controlplane.protocol.greeting import PROBE_TIMEOUT_S
from controlplane.protocol.handshake import Era
from controlplane.protocol.outbox import Outbox
from controlplane.protocol.session import MAX_MESSAGE_BYTES, Session
from tests.protocol.conftest import WAIT_S, Ears, Talk, open_talk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SECONDS = 30.0


@pytest.fixture
async def bare() -> AsyncIterator[Talk]:
    """A session with a bare server, after its handshake."""
    async with open_talk() as talk:
        await talk.shake_hands("bare")
        yield talk


async def settled() -> None:
    with trio.fail_after(WAIT_S):
        await trio.testing.wait_all_tasks_blocked()


async def test_calls_go_out_one_at_a_time_and_answers_belong_in_order(bare: Talk) -> None:
    calls = [await bare.start("m", b'{"n":%d}' % n) for n in range(4)]
    for number in range(4):
        request = await bare.peer.hear()
        await settled()
        assert bare.peer.heard_nothing()
        assert request["params"] == {"n": number}
        await bare.peer.say({"result": {"n": number}})

    assert [await call.result() for call in calls] == [{"n": n} for n in range(4)]


async def test_what_is_no_answer_keeps_the_order(bare: Talk) -> None:
    call = await bare.start("m")
    await bare.peer.hear()
    noise = [b"calculating ...", b'{"level":"info","result":"done"}', b'"result"', b"{}"]
    for line in noise:
        await bare.peer.say(line)
    await bare.peer.say({"method": "notifications/message", "params": {}})
    await bare.peer.say({"id": 5, "method": "ping"})
    await settled()
    assert not call.is_over
    assert bare.peer.heard_nothing(), "any line at all would be answered"

    await bare.peer.say({"result": {"right": 1}})
    assert await call.result() == {"right": 1}
    assert bare.ears.noise == noise


async def test_answers_are_mended(bare: Talk) -> None:
    call = await bare.start("tools/list", b'{"_meta":{"progressToken":1},"cursor":null}')
    assert (await bare.peer.hear())["params"] == {"cursor": None}
    await bare.peer.say({"result": {"tools": [{"name": "calculator"}]}})

    assert await call.result() == {"tools": [{"name": "calculator", "inputSchema": {"type": "object"}}]}


async def test_the_handshake_and_ping_are_answered_without_the_server(bare: Talk) -> None:
    assert (await (await bare.start("initialize")).result())["serverInfo"]["name"] == "unknown"
    assert await (await bare.start("ping")).result() == {}
    assert bare.peer.heard_nothing()


async def test_a_surplus_answer_while_nobody_waits_goes_to_nobody(bare: Talk) -> None:
    await bare.peer.say({"result": {"wrong": 1}})
    await settled()
    call = await bare.start("m")
    await bare.peer.hear()
    await bare.peer.say({"result": {"right": 1}})

    assert await call.result() == {"right": 1}


async def test_an_answer_that_does_not_come_ends_the_conversation(
    bare: Talk, autojump_clock: trio.testing.MockClock
) -> None:
    began = trio.current_time()
    slow = await bare.start("slow", timeout_s=2.0)
    queued = await bare.start("queued", timeout_s=SECONDS)
    await bare.peer.hear()

    error = await slow.failure()

    assert isinstance(error, CallTimeout)
    assert str(error) == "no answer to slow within 2 s"
    assert 2.0 <= trio.current_time() - began <= 2.2
    assert bare.session.broken.is_set()
    assert bare.session.broken_reason == "a call timed out, and a server without ids cannot be told"
    assert isinstance(await queued.failure(), InstanceCrashed)
    assert bare.peer.heard_nothing()


async def test_a_short_limit_of_one_caller_costs_nobody_the_server(
    bare: Talk, autojump_clock: trio.testing.MockClock
) -> None:
    hasty = await bare.start("slow", timeout_s=0.2, owed_s=SECONDS)
    await bare.peer.hear()
    patient = await bare.start("next", timeout_s=SECONDS)

    assert str(await hasty.failure()) == "no answer to slow within 0.2 s"
    await settled()
    assert bare.peer.heard_nothing(), "the first answer is still owed"
    await bare.peer.say({"result": {"n": 1}})
    await bare.peer.hear()
    await bare.peer.say({"result": {"n": 2}})

    assert await patient.result() == {"n": 2}
    assert not bare.session.broken.is_set()


async def test_an_answer_that_is_owed_for_too_long_ends_the_conversation(
    bare: Talk, autojump_clock: trio.testing.MockClock
) -> None:
    began = trio.current_time()
    hasty = await bare.start("slow", timeout_s=0.2, owed_s=5.0)
    await bare.peer.hear()
    await hasty.failure()
    assert not bare.session.broken.is_set()

    with trio.fail_after(WAIT_S):
        await bare.session.broken.wait()

    assert trio.current_time() - began == pytest.approx(5.0, abs=0.2)
    assert bare.session.gave_up


async def test_time_runs_while_a_call_waits_for_its_turn(bare: Talk, autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()
    slow = await bare.start("slow", timeout_s=SECONDS)
    await bare.peer.hear()
    queued = await bare.start("queued", timeout_s=2.0)

    error = await queued.failure()

    assert isinstance(error, CallTimeout)
    assert str(error) == "no answer to queued within 2 s"
    assert trio.current_time() - began == pytest.approx(2.0, abs=0.2)
    assert not bare.session.broken.is_set()
    assert bare.peer.heard_nothing()
    await bare.peer.say({"result": {"n": 1}})
    assert await slow.result() == {"n": 1}


async def test_the_time_spent_waiting_counts_for_the_whole_call(
    bare: Talk, autojump_clock: trio.testing.MockClock
) -> None:
    began = trio.current_time()
    first = await bare.start("first", timeout_s=SECONDS)
    await bare.peer.hear()
    second = await bare.start("second", timeout_s=5.0)
    await trio.sleep(4)
    await bare.peer.say({"result": {}})
    await first.result()
    await bare.peer.hear()

    assert str(await second.failure()) == "no answer to second within 5 s"
    assert trio.current_time() - began == pytest.approx(5.0, abs=0.2)


@pytest.mark.parametrize("how", ["cancelled", "hung up"])
async def test_a_caller_that_leaves_costs_nobody_else_anything(
    bare: Talk, autojump_clock: trio.testing.MockClock, how: str
) -> None:
    """A token that may call could else take the server from everybody by hanging up."""
    left = await bare.start("left", timeout_s=SECONDS, is_gone=(lambda: True) if how == "hung up" else None)
    await bare.peer.hear()
    if how == "cancelled":
        left.scope.cancel()
    else:
        assert isinstance(await left.failure(), CallTimeout)
    stays = await bare.start("stays", timeout_s=SECONDS)
    await trio.sleep(1)
    assert bare.peer.heard_nothing(), "the answer of the first is still owed"

    await bare.peer.say({"result": {"for": "the one that left"}})
    assert (await bare.peer.hear())["method"] == "stays"
    await bare.peer.say({"result": {"for": "the one that stayed"}})

    assert await stays.result() == {"for": "the one that stayed"}
    assert not bare.session.broken.is_set()


async def test_a_deserted_call_that_is_never_answered_ends_the_conversation_at_its_limit(
    bare: Talk, autojump_clock: trio.testing.MockClock
) -> None:
    left = await bare.start("left", timeout_s=3.0)
    await bare.peer.hear()
    left.scope.cancel()
    stays = await bare.start("stays", timeout_s=SECONDS)

    assert isinstance(await stays.failure(), InstanceCrashed)
    assert bare.session.broken.is_set()
    assert bare.peer.heard_nothing()


async def test_a_caller_that_left_while_it_waited_for_its_turn_sends_nothing(
    bare: Talk, autojump_clock: trio.testing.MockClock
) -> None:
    first = await bare.start("first", timeout_s=SECONDS)
    await bare.peer.hear()
    left = await bare.start("left", timeout_s=SECONDS, is_gone=lambda: True)
    await trio.sleep(1)
    await bare.peer.say({"result": {}})
    await first.result()

    assert isinstance(await left.failure(), CallTimeout)
    assert bare.peer.heard_nothing()
    assert not bare.session.broken.is_set()


async def test_an_over_long_line_ends_the_conversation_because_it_may_have_been_the_answer(bare: Talk) -> None:
    call = await bare.start("m")
    await bare.peer.hear()
    await bare.peer.write(b"x" * (MAX_MESSAGE_BYTES + 1) + b"\n")

    assert isinstance(await call.failure(), BadChildMessage)
    assert bare.session.broken.is_set()


async def test_when_the_server_ends_nobody_waits_for_a_turn(bare: Talk) -> None:
    calls = [await bare.start("m") for _ in range(3)]
    await bare.peer.hear()
    bare.peer.stdout.close_writes()
    with trio.fail_after(WAIT_S):
        await bare.session.broken.wait()
    bare.session.fail_pending(lambda: InstanceCrashed("it ended"))

    for call in calls:
        assert isinstance(await call.failure(), InstanceCrashed)


# -- the handshake's own answers


async def test_a_slow_start_leaves_no_answer_of_the_handshake_to_be_taken_for_a_calls(
    talk: Talk, autojump_clock: trio.testing.MockClock
) -> None:
    """It answers probe and `initialize`, one line each; the second comes when calls are under way."""

    async def serve() -> None:
        await talk.peer.hear()
        await trio.sleep(PROBE_TIMEOUT_S + 1)
        assert (await talk.peer.hear())["method"] == "initialize"
        await talk.peer.say({"error": {"code": -32601, "message": "the probe's"}})

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        facts = await talk.session.shake_hands()
    assert facts.era is Era.BARE
    call = await talk.start("m", timeout_s=SECONDS)
    await trio.sleep(1)
    await talk.peer.say({"error": {"code": -32601, "message": "initialize's"}})
    assert (await talk.peer.hear())["method"] == "m"
    await talk.peer.say({"result": {"right": 1}})

    assert await call.result() == {"right": 1}


async def test_an_answer_to_our_answer_is_owed_as_well(talk: Talk) -> None:
    async def serve() -> None:
        await talk.peer.hear()
        await talk.peer.say({"id": 1, "method": "ping"})
        assert (await talk.peer.hear())["result"] == {}
        await talk.peer.say({"error": {"code": -32601, "message": "the probe's"}})

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await talk.session.shake_hands()
    call = await talk.start("m")
    await settled()
    await talk.peer.say({"error": {"code": -32601, "message": "for the pong"}})
    assert (await talk.peer.hear())["method"] == "m"
    await talk.peer.say({"result": {"right": 1}})

    assert await call.result() == {"right": 1}


async def test_an_answer_of_the_handshake_that_never_comes_ends_the_conversation(
    talk: Talk, autojump_clock: trio.testing.MockClock
) -> None:
    async def serve() -> None:
        await talk.peer.hear()
        await trio.sleep(PROBE_TIMEOUT_S + 1)
        await talk.peer.say({"error": "only one"})

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await talk.session.shake_hands()

    assert isinstance(await (await talk.start("m", timeout_s=SECONDS)).failure(), InstanceCrashed)
    assert talk.session.broken.is_set()


# -- the founding README's own server

README_SERVER = """
import asyncio
import json
from typing import Dict, Any

async def handle_request(request: Dict[str, Any]) -> Dict[str, Any]:
    method = request.get("method")
    params = request.get("params", {})

    if method == "tools/list":
        return {
            "result": {
                "tools": [
                    {"name": "calculator", "description": "Basic calculator"}
                ]
            }
        }

    return {"error": {"code": -32601, "message": "Method not found"}}

async def main():
    while True:
        try:
            line = input()
            request = json.loads(line)
            response = await handle_request(request)
            print(json.dumps(response))
        except EOFError:
            break
        except Exception as e:
            error_response = {
                "error": {"code": -32603, "message": str(e)}
            }
            print(json.dumps(error_response))

if __name__ == "__main__":
    asyncio.run(main())
"""


async def test_the_founding_readmes_server_is_served_as_it_is_printed() -> None:
    with trio.fail_after(60):
        process = await trio.lowlevel.open_process(
            [sys.executable, "-u", "-c", README_SERVER], stdin=-1, stdout=-1, env={"PATH": os.environ["PATH"]}
        )
        assert process.stdin is not None
        assert process.stdout is not None
        outbox = Outbox(process.stdin.fileno(), lambda: None)
        session = Session(outbox, process.stdout.fileno(), Ears(), "0.0.test")
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.run)
                assert (await session.shake_hands()).era is Era.BARE
                for _ in range(5):
                    member = await session.call("tools/list", None, timeout_s=10)
                    assert b'"calculator"' in member
                    assert b'"inputSchema":{"type":"object"}' in member
                assert b"-32601" in await session.call("no/such", b"{}", timeout_s=10)
                nursery.cancel_scope.cancel()
        finally:
            process.kill()
            await process.aclose() if hasattr(process, "aclose") else await process.wait()
