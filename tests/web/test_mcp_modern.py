"""Requests of modern clients: what is parked, what is passed on, and what is left when somebody goes."""

from __future__ import annotations

import gc
import json
from typing import TYPE_CHECKING, Any

import pytest
import trio

from controlplane.errors import InstanceUnavailable
from controlplane.protocol.handshake import META, Era
from controlplane.supervise.lane import SUBSCRIPTIONS_MAX
from controlplane.web.mcp.exchange import Exchange
from tests.protocol.conftest import WAIT_S
from tests.web.mcp_bench import open_bench
from tests.web.mcp_outlet import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.web.mcp_bench import Bench, Posted


@pytest.fixture
async def bridged() -> AsyncIterator[Bench]:
    """A server of the legacy era, which may ask."""
    async with open_bench(Era.LEGACY) as bench:
        yield bench


@pytest.fixture
async def native() -> AsyncIterator[Bench]:
    async with open_bench(Era.MODERN) as bench:
        yield bench


def question(raw_id: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": raw_id, "method": "elicitation/create", "params": {"message": raw_id}}


async def asked(bench: Bench, *raw_ids: str, token: str | None = None) -> tuple[Posted, dict[str, Any]]:
    """A tool is called that asks the client; returns the call, and what the server got of it."""
    meta = {} if token is None else {"progressToken": token}
    posted = await bench.post("tools/call", name="ask", arguments={}, meta=meta)
    request = await bench.hear("tools/call")
    for raw_id in raw_ids:
        await bench.peer.say(question(raw_id))
    return posted, request


@pytest.mark.parametrize("era", [Era.LEGACY, Era.MODERN])
async def test_a_call_that_says_something_gets_its_time_anew(era: Era) -> None:
    async with open_bench(era) as bench:
        await bench.post("tools/call", name="long", arguments={}, meta={"progressToken": "mine"})
        request = await bench.hear("tools/call")
        before = bench.calls[0].deadline
        token = request["params"]["_meta"]["progressToken"]
        progress = {"progressToken": token, "progress": 1}
        await bench.peer.say({"jsonrpc": "2.0", "method": "notifications/progress", "params": progress})
        with trio.fail_after(WAIT_S):
            while bench.calls[0].deadline == before:
                await trio.sleep(0.001)
        assert bench.calls[0].deadline > before


async def test_a_parked_call_is_not_counted_among_those_in_flight(bridged: Bench) -> None:
    posted, request = await asked(bridged, "q")
    assert bridged.runner.calls_in_flight == 1
    state = (await posted.result())["requestState"]
    assert (len(bridged.modern.parked), bridged.runner.calls_in_flight) == (1, 0)

    answers = {"elicitation-1": {"action": "cancel"}}
    again = await bridged.post("tools/call", name="ask", arguments={}, requestState=state, inputResponses=answers)
    assert bridged.runner.calls_in_flight == 1
    assert (await bridged.peer.hear())["id"] == "q"
    await bridged.peer.answer(request, {"content": []})
    assert (await again.result())["content"] == []
    assert bridged.runner.calls_in_flight == 0


async def test_a_parked_call_that_nobody_comes_back_for_leaves_nothing(bridged: Bench) -> None:
    posted, _ = await asked(bridged, "q")
    await posted.result()

    bridged.modern.parked.close()

    assert (bridged.calls, bridged.runner.calls_in_flight) == ([], 0)
    refused = await bridged.peer.hear()
    assert (refused["id"], refused["error"]["code"]) == ("q", -32603)


async def test_a_parked_call_that_the_server_ends_leaves_nothing(bridged: Bench) -> None:
    posted, request = await asked(bridged, "q")
    state = (await posted.result())["requestState"]
    await bridged.peer.answer(request, {"content": []})
    await bridged.settled()
    assert bridged.runner.calls_in_flight == 0

    again = await bridged.post("tools/call", name="ask", arguments={}, requestState=state)

    assert (await again.result())["content"] == []
    assert (len(bridged.modern.parked), bridged.runner.calls_in_flight) == (0, 0)


async def test_a_server_that_is_to_stop_is_not_kept_by_a_parked_call(bridged: Bench) -> None:
    posted, _ = await asked(bridged, "q")
    state = (await posted.result())["requestState"]

    bridged.lane.session.end_subscriptions(lambda: InstanceUnavailable("the instance was stopped", retry_after_s=1))

    assert bridged.calls == []
    again = await bridged.post("tools/call", name="ask", arguments={}, requestState=state)
    assert (await again.answer())["error"]["code"] == 503


async def test_a_client_that_leaves_before_it_has_the_state_has_nothing_parked(bridged: Bench) -> None:
    client = Client()
    posted = await bridged.post("tools/call", client, name="ask", arguments={}, meta={META + "logLevel": "debug"})
    await bridged.hear("tools/call")
    log = {"level": "error", "data": "begins the stream"}
    await bridged.peer.say({"jsonrpc": "2.0", "method": "notifications/message", "params": log})
    await bridged.settled()
    assert client.messages
    client.tap = trio.Event()
    await bridged.peer.say(question("q"))
    with trio.fail_after(WAIT_S):
        while not len(bridged.modern.parked):
            await trio.sleep(0.001)
    client.gone = True
    client.tap.set()
    with trio.fail_after(WAIT_S):
        await posted.over.wait()

    assert (len(bridged.modern.parked), bridged.calls) == (0, [])


async def test_a_server_that_talks_all_the_while_does_not_keep_its_question_from_the_client(bridged: Bench) -> None:
    posted, request = await asked(bridged, "q", token="mine")
    token = request["params"]["_meta"]["progressToken"]
    progress = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token}}
    with trio.fail_after(WAIT_S):
        while not posted.over.is_set():
            await bridged.peer.say(progress)
            await trio.lowlevel.checkpoint()

    assert posted.client.messages[-1]["result"]["resultType"] == "input_required"


async def test_a_question_that_is_withdrawn_is_not_asked_and_nobody_is_told(bridged: Bench) -> None:
    posted, request = await asked(bridged, "q")
    await bridged.peer.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "q"}})
    await bridged.peer.answer(request, {"content": []})

    assert (await posted.result())["content"] == []
    assert [message.get("method") for message in posted.client.messages] in ([], [None])


async def test_a_question_that_is_withdrawn_while_the_call_is_parked_is_not_asked_again(bridged: Bench) -> None:
    posted, request = await asked(bridged, "q1", "q2")
    first = await posted.result()
    assert sorted(first["inputRequests"]) == ["elicitation-1", "elicitation-2"]
    await bridged.peer.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "q2"}})
    await bridged.settled()

    answers = {"elicitation-1": {"action": "cancel"}}
    again = await bridged.post(
        "tools/call", name="ask", arguments={}, requestState=first["requestState"], inputResponses=answers
    )
    assert (await bridged.peer.hear())["id"] == "q1"
    await bridged.peer.answer(request, {"content": []})

    assert (await again.result())["content"] == []


@pytest.mark.parametrize("tokens", [["new"], []])
async def test_progress_is_told_with_the_token_of_the_retry_if_it_has_one(bridged: Bench, tokens: list[str]) -> None:
    posted, request = await asked(bridged, "q", token="old")
    state = (await posted.result())["requestState"]
    token = request["params"]["_meta"]["progressToken"]
    progress = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token}}
    await bridged.peer.say(progress)
    await bridged.settled()

    answers = {"elicitation-1": {"action": "cancel"}}
    again = await bridged.post(
        "tools/call",
        name="ask",
        arguments={},
        requestState=state,
        inputResponses=answers,
        meta={"progressToken": tokens[0]} if tokens else {},
    )
    assert (await bridged.peer.hear())["id"] == "q"
    await bridged.peer.say(progress)
    await bridged.peer.answer(request, {"content": []})

    assert (await again.result())["content"] == []
    told = [message["params"]["progressToken"] for message in again.client.messages if "method" in message]
    assert told == tokens


async def test_a_client_that_closes_its_connection_has_cancelled(native: Bench) -> None:
    posted = await native.post("tools/call", name="long", arguments={})
    request = await native.hear("tools/call")

    posted.scope.cancel()

    assert (await native.hear("notifications/cancelled"))["params"]["requestId"] == request["id"]
    assert (native.calls, native.runner.calls_in_flight) == ([], 0)
    assert json.dumps(posted.client.messages) == "[]"


async def test_a_parked_call_does_not_hold_its_request(bridged: Bench) -> None:
    posted, _ = await asked(bridged, "q1")
    await posted.result()

    assert len(bridged.modern.parked) == 1
    gc.collect()
    assert [found for found in gc.get_objects() if isinstance(found, Exchange)] == []


# -- subscriptions/listen


async def listening(bench: Bench, **notifications: Any) -> Posted:
    """A client listens, and knows that it does."""
    posted = await bench.post("subscriptions/listen", notifications=notifications)
    with trio.fail_after(WAIT_S):
        while not (posted.client.messages or posted.over.is_set()):
            await trio.sleep(0.001)
    return posted


async def test_a_listener_is_told_what_it_asked_for_and_leaves_nothing_when_it_goes(bridged: Bench) -> None:
    posted = await listening(bridged, toolsListChanged=True, resourceSubscriptions=["test://a"])
    assert posted.client.messages[0]["method"] == "notifications/subscriptions/acknowledged"
    await bridged.hear("resources/subscribe")
    await bridged.peer.say({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    await bridged.peer.say({"jsonrpc": "2.0", "method": "notifications/prompts/list_changed"})
    updated = {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "test://a"}}
    await bridged.peer.say(updated)
    await bridged.settled()
    methods = [message["method"] for message in posted.client.messages[1:]]
    assert methods == ["notifications/tools/list_changed", "notifications/resources/updated"]

    posted.scope.cancel()

    await bridged.hear("resources/unsubscribe")
    assert (len(bridged.lane.session.audience), bridged.lane.subscriptions) == (0, 0)


async def test_listeners_of_a_process_are_bounded_whichever_era_it_is_of(bridged: Bench) -> None:
    bridged.lane.subscriptions = SUBSCRIPTIONS_MAX

    posted = await listening(bridged, toolsListChanged=True)

    assert (await posted.answer())["error"]["code"] == 503
    assert len(bridged.lane.session.audience) == 0


async def test_listeners_are_told_when_the_server_is_gone(bridged: Bench) -> None:
    posted = await listening(bridged, toolsListChanged=True)

    bridged.lane.session.audience.end("the process ended")

    with trio.fail_after(WAIT_S):
        await posted.over.wait()
    assert posted.client.ended
    assert bridged.lane.subscriptions == 0


async def test_a_listener_that_comes_when_the_server_is_gone_does_not_listen_for_ever(bridged: Bench) -> None:
    bridged.lane.session.audience.end("the process ended")

    posted = await listening(bridged, toolsListChanged=True)

    with trio.fail_after(WAIT_S):
        await posted.over.wait()
    assert posted.client.ended
