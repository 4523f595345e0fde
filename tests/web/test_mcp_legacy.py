"""Sessions of legacy clients: what is left when a request cannot be carried on, or two things happen at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from controlplane.protocol.handshake import Era
from controlplane.protocol.inbound import read
from controlplane.web.mcp.legacy import DESERTED_S
from controlplane.web.mcp.ring import OPEN_MAX
from tests.protocol.conftest import WAIT_S
from tests.web.mcp_bench import open_bench

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.web.mcp_bench import Bench

URI = "test://watched"


@pytest.fixture
async def native() -> AsyncIterator[Bench]:
    """A server of the same era, which may ask."""
    async with open_bench(Era.LEGACY) as bench:
        yield bench


@pytest.fixture
async def bridged() -> AsyncIterator[Bench]:
    """A modern server."""
    async with open_bench(Era.MODERN) as bench:
        yield bench


async def listen(bench: Bench) -> dict[str, Any]:
    """The server is asked to tell of changes, and says that it will."""
    request = await bench.hear("subscriptions/listen")
    meta = {"io.modelcontextprotocol/subscriptionId": request["id"]}
    told = {"notifications": request["params"]["notifications"], "_meta": meta}
    await bench.peer.say({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": told})
    return request


def is_first(bench: Bench) -> bool:
    """Whether somebody who subscribes now is the first one."""
    return bench.lane.session.audience.subscribe(URI, bench.session().membership)


# -- requests


async def test_a_request_that_finds_no_stream_is_over(native: Bench) -> None:
    holder, session = native.session(), native.session()
    await native.send(holder, "tools/call", 1, name="slow", arguments={})
    await native.hear("tools/call")
    streams = [session.open_stream() for _ in range(OPEN_MAX)]

    refused = await native.send(session, "tools/call", 1, name="waits for its turn", arguments={})

    assert "error" in await refused.answer()
    assert session.calls == {}
    for stream in streams:
        stream.finish()
    assert not session.busy


# -- subscriptions with a server of the same era


async def test_a_subscription_that_fails_is_none(native: Bench) -> None:
    session = native.session()
    posted = await native.send(session, "resources/subscribe", 1, uri=URI)
    request = await native.hear("resources/subscribe")
    await native.peer.refuse(request, -32602)
    assert (await posted.answer())["error"]["code"] == -32602

    assert is_first(native)


async def test_a_subscription_whose_client_leaves_before_the_answer_is_none(native: Bench) -> None:
    session = native.session()
    posted = await native.send(session, "resources/subscribe", 1, uri=URI)
    await native.hear("resources/subscribe")

    posted.scope.cancel()
    with trio.fail_after(WAIT_S):
        await posted.over.wait()

    assert (await native.hear("notifications/cancelled"))["params"]["reason"] == "the caller went away"
    assert (await native.hear("resources/unsubscribe"))["params"] == {"uri": URI}
    assert is_first(native)


# -- subscriptions with a modern server, where each is a request held open


async def test_two_subscriptions_to_one_resource_at_once_are_one(bridged: Bench) -> None:
    session = bridged.session()
    await listen(bridged)  # to the lists
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(session.membership.subscribe, URI)
        await listen(bridged)
    assert len(bridged.calls) == 2

    bridged.legacy.table.end(session)
    await bridged.settled()
    assert (bridged.calls, bridged.lane.subscriptions) == ([], 0)


async def test_a_client_that_unsubscribes_may_subscribe_again_at_once(bridged: Bench) -> None:
    session = bridged.session()
    await listen(bridged)
    first = await bridged.send(session, "resources/subscribe", 1, uri=URI)
    gone = (await listen(bridged))["id"]
    await first.result()

    async with trio.open_nursery() as nursery:
        session.membership.unsubscribe(URI)
        nursery.start_soon(session.membership.subscribe, URI)
        assert (await bridged.hear("notifications/cancelled"))["params"]["requestId"] == gone
        await listen(bridged)

    await bridged.settled()
    assert len(bridged.calls) == 2
    session.membership.unsubscribe(URI)
    await bridged.settled()
    assert len(bridged.calls) == 1


async def test_a_session_that_ends_at_once_listens_to_nothing(bridged: Bench) -> None:
    session = bridged.session()

    bridged.legacy.table.end(session)
    await bridged.settled()

    assert (bridged.calls, len(bridged.lane.session.audience)) == ([], 0)
    assert bridged.lane.subscriptions == 0


async def test_a_session_that_comes_when_the_server_is_gone_ends(native: Bench) -> None:
    native.lane.session.audience.end("the process ended")

    session = native.session()

    with trio.fail_after(WAIT_S):
        await session.closed.wait()


@pytest.mark.parametrize("method", ["resources/subscribe", "tools/list"])
async def test_what_is_left_of_a_batch_when_its_session_has_ended_is_not_done(native: Bench, method: str) -> None:
    session = native.session()
    message = read(b'{"jsonrpc":"2.0","id":1,"method":"%b","params":{"uri":"test://watched"}}' % method.encode())
    native.legacy.table.end(session)

    with trio.fail_after(WAIT_S):
        await native.legacy.answer_on(session, native.runner, message, session.standalone)

    await native.heard_nothing_more()
    assert is_first(native)


# -- what is another client's


async def test_what_the_server_still_says_of_somebody_elses_call_is_not_told_to_the_session(native: Bench) -> None:
    session = native.session()
    other = await native.post("tools/call", name="long", arguments={}, meta={"progressToken": "mine"})
    request = await native.hear("tools/call")
    other.scope.cancel()
    await native.hear("notifications/cancelled")

    token = request["params"]["_meta"]["progressToken"]
    progress = {"progressToken": token, "progress": 1, "message": "a secret"}
    await native.peer.say({"jsonrpc": "2.0", "method": "notifications/progress", "params": progress})
    log = {"level": "error", "data": "a secret"}
    await native.peer.say({"jsonrpc": "2.0", "method": "notifications/message", "params": log})
    await native.settled()

    assert session.standalone.last == 0


async def test_a_request_that_is_cancelled_while_it_waits_for_its_turn_is_never_made(native: Bench) -> None:
    holder, session = native.session(), native.session()
    await native.send(holder, "tools/call", 1, name="slow", arguments={})
    request = await native.hear("tools/call")
    waiting = await native.send(session, "tools/call", 1, name="waits for its turn", arguments={})

    session.calls[b"1"].cancel()

    assert "error" in await waiting.answer()
    assert (session.calls, native.runner.calls_in_flight) == ({}, 1)
    await native.peer.answer(request, {"content": []})
    await native.heard_nothing_more()
    assert native.calls == []


async def test_a_session_that_ends_while_a_request_waits_for_its_turn_makes_none(native: Bench) -> None:
    holder, session = native.session(), native.session()
    await native.send(holder, "tools/call", 1, name="slow", arguments={})
    request = await native.hear("tools/call")
    await native.send(session, "tools/call", 1, name="waits for its turn", arguments={})

    native.legacy.table.end(session)
    await native.peer.answer(request, {"content": []})

    await native.heard_nothing_more()
    assert (native.calls, native.runner.calls_in_flight) == ([], 0)


# -- clients that leave


async def test_a_question_to_a_client_that_left_is_given_up_after_a_while(native: Bench) -> None:
    session = native.session()
    posted = await native.send(session, "tools/call", 1, name="asks", arguments={})
    await native.hear("tools/call")
    await native.peer.say({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": {"message": "?"}})
    await native.settled()
    native.legacy.give_up_deserted(0.0)
    native.legacy.give_up_deserted(DESERTED_S)
    await native.heard_nothing_more()  # the client is still connected

    posted.scope.cancel()
    await posted.over.wait()
    native.legacy.give_up_deserted(100.0)
    native.legacy.give_up_deserted(100.0 + DESERTED_S - 1)
    await native.heard_nothing_more()
    native.legacy.give_up_deserted(100.0 + DESERTED_S)

    told = await native.peer.hear()
    assert (told["id"], told["error"]["message"]) == ("q", "the client that was asked has left")
