"""What a server asks on a conversation that several clients share: whose question it is, over real pipes."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from controlplane.protocol.asking import QUESTION_MAX_BYTES
from controlplane.protocol.pending import Asked
from tests.protocol.conftest import WAIT_S, open_talk
from tests.protocol.test_questions import Member

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controlplane.protocol.pending import Call
    from tests.protocol.conftest import Talk

INTRODUCTION = b'{"protocolVersion":"2025-11-25","capabilities":{"elicitation":{}},"clientInfo":{}}'
ANSWER = b'"result":{"action":"cancel"}'


@pytest.fixture
async def shared() -> AsyncIterator[Talk]:
    """A legacy conversation whose server may ask."""
    async with introduced() as talk:
        yield talk


@asynccontextmanager
async def introduced(*, is_private: bool = False) -> AsyncIterator[Talk]:
    async with open_talk() as talk:
        talk.session.introduce(INTRODUCTION, may_ask=True, is_private=is_private)
        with trio.fail_after(WAIT_S):
            async with trio.open_nursery() as nursery:

                async def greet() -> None:
                    await talk.peer.answer(await talk.peer.hear(), {"protocolVersion": "2025-11-25"})
                    assert (await talk.peer.hear())["method"] == "notifications/initialized"

                nursery.start_soon(greet)
                await talk.session.shake_hands()
        yield talk


async def begin(talk: Talk, asker: object) -> Call:
    """A tool call of somebody's, and that the server has it."""
    with trio.fail_after(WAIT_S):
        call = await talk.session.open("tools/call", b"{}", timeout_s=WAIT_S, asker=asker)
    while (heard := await talk.peer.hear())["method"] == "ping":  # it was asked whether it knows of a call's end
        pass
    assert heard["method"] == "tools/call"
    return call


async def ask(talk: Talk, raw_id: str) -> None:
    await talk.peer.say({"jsonrpc": "2.0", "id": raw_id, "method": "elicitation/create", "params": {}})
    await heard(talk)


async def heard(talk: Talk) -> None:
    """All that the server has said until now has come in: it gets the answer to its ping."""
    await talk.peer.say({"jsonrpc": "2.0", "id": "sync", "method": "ping"})
    assert await talk.peer.hear() == {"jsonrpc": "2.0", "id": "sync", "result": {}}


def questions(call: Call) -> list[bytes]:
    return [message.id for message in call.inbox or () if isinstance(message, Asked)]


async def beside(talk: Talk) -> tuple[Call, Call]:
    """Two clients' calls: the first one's server waits for its client, so that the second one runs beside it."""
    first = await begin(talk, "first")
    await ask(talk, "q1")
    second = await begin(talk, "second")
    assert questions(first) == [b'"q1"']
    return first, second


async def test_a_call_that_waits_for_its_client_does_not_hold_up_others(shared: Talk) -> None:
    first, second = await beside(shared)

    await shared.peer.say({"jsonrpc": "2.0", "id": second.wire_id, "result": {}})
    with trio.fail_after(WAIT_S):
        assert await shared.session.pending.wait(second) == b'"result":{}'
    assert first.outcome is None


async def test_a_question_too_large_to_be_held_is_refused(shared: Talk) -> None:
    call = await begin(shared, "first")
    params = {"message": "x" * QUESTION_MAX_BYTES}
    await shared.peer.say({"jsonrpc": "2.0", "id": "large", "method": "elicitation/create", "params": params})

    assert (await shared.peer.hear())["error"]["code"] == -32601
    assert questions(call) == []


async def test_a_question_that_may_be_one_of_twos_goes_to_the_one_who_is_left(shared: Talk) -> None:
    first, second = await beside(shared)
    await ask(shared, "q2")
    assert (questions(first), questions(second)) == ([b'"q1"'], [])

    await shared.peer.say({"jsonrpc": "2.0", "id": first.wire_id, "result": {}})
    assert (await shared.peer.hear())["error"]["code"] == -32603  # q1 will not be answered any more
    await heard(shared)

    assert questions(second) == [b'"q2"']
    assert shared.session.answer(b'"q2"', ANSWER)
    assert (await shared.peer.hear())["id"] == "q2"


async def test_a_call_that_was_given_up_does_not_put_its_questions_to_the_next(shared: Talk) -> None:
    first = await begin(shared, "first")
    shared.session.pending.give_up(first, "its client left")
    assert (await shared.peer.hear())["method"] == "notifications/cancelled"
    second = await begin(shared, "second")

    await ask(shared, "late")

    assert questions(second) == []


async def test_once_a_call_that_was_given_up_is_answered_the_next_may_be_asked(shared: Talk) -> None:
    first = await begin(shared, "first")
    shared.session.pending.give_up(first, "its client left")
    assert (await shared.peer.hear())["method"] == "notifications/cancelled"
    await shared.peer.say({"jsonrpc": "2.0", "id": first.wire_id, "result": {}})
    second = await begin(shared, "second")

    await ask(shared, "q")

    assert questions(second) == [b'"q"']


async def test_a_client_may_be_asked_although_it_gave_up_a_call_of_its_own(shared: Talk) -> None:
    first = await begin(shared, "client")
    shared.session.pending.give_up(first, "its client cancelled it")
    assert (await shared.peer.hear())["method"] == "notifications/cancelled"
    second = await begin(shared, "client")

    await ask(shared, "q")

    assert questions(second) == [b'"q"']


async def test_a_withdrawn_question_holds_nobody_up(shared: Talk) -> None:
    first = await begin(shared, "first")
    await ask(shared, "q1")
    await shared.peer.say({"method": "notifications/cancelled", "params": {"requestId": "q1"}})
    await heard(shared)

    assert not shared.session.waits_for(b'"q1"')
    assert not shared.session.is_crowded()
    assert json.loads(b"[%b]" % b",".join(questions(first))) == ["q1"]


async def test_what_a_server_asks_right_after_the_handshake_waits_for_its_one_client() -> None:
    async with introduced(is_private=True) as talk:
        await talk.peer.say({"jsonrpc": "2.0", "id": "roots", "method": "roots/list"})
        await heard(talk)
        client = Member()
        talk.session.audience.join(client)

        with trio.fail_after(WAIT_S):
            while not client.asked:
                await trio.sleep(0.001)
        assert [asked.id for asked in client.asked] == [b'"roots"']


async def test_on_a_shared_conversation_nobody_is_waited_for(shared: Talk) -> None:
    await shared.peer.say({"jsonrpc": "2.0", "id": "roots", "method": "roots/list"})
    assert (await shared.peer.hear())["error"]["code"] == -32601
