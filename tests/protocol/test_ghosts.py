"""A call that was given up may still ask, but not for longer than its server takes to notice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from controlplane.protocol.floor import FADE_S, REST_S
from tests.protocol.conftest import WAIT_S
from tests.protocol.test_asking import ask, begin, heard, questions, shared

__all__ = ["shared"]

if TYPE_CHECKING:
    from tests.protocol.conftest import Talk


async def give_up(talk: Talk) -> int:
    """Somebody's call is given up; returns the id of the ping that asks the server whether it knows."""
    call = await begin(talk, "first")
    talk.session.pending.give_up(call, "its client left")
    assert (await talk.peer.hear())["method"] == "notifications/cancelled"
    ping = await talk.peer.hear()
    assert ping["method"] == "ping"
    wire_id: int = ping["id"]
    return wire_id


async def open_call(talk: Talk, asker: str) -> None:
    await talk.session.open("tools/call", b"{}", timeout_s=WAIT_S, asker=asker)


async def until_asked(talk: Talk) -> float:
    """Have the server ask during another client's call; returns the seconds until that one has the question."""
    second = await begin(talk, "second")
    await ask(talk, "q")
    began = trio.current_time()
    with trio.fail_after(WAIT_S):
        while questions(second) != [b'"q"']:
            await trio.sleep(0.01)
    return trio.current_time() - began


async def test_a_server_that_has_read_of_the_end_of_a_call_may_soon_ask_for_the_next(shared: Talk) -> None:
    ping = await give_up(shared)
    await shared.peer.say({"jsonrpc": "2.0", "id": ping, "result": {}})
    await heard(shared)

    assert await until_asked(shared) < REST_S


async def test_until_then_nobody_elses_call_begins_and_what_it_asks_last_is_refused(shared: Talk) -> None:
    ping = await give_up(shared)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(open_call, shared, "second")
        await trio.testing.wait_all_tasks_blocked()
        assert shared.session.must_wait("tools/call", "second")

        await shared.peer.say({"jsonrpc": "2.0", "id": "late", "method": "elicitation/create", "params": {}})
        refused = await shared.peer.hear()
        assert (refused["id"], refused["error"]["code"]) == ("late", -32601)
        await shared.peer.say({"jsonrpc": "2.0", "id": ping, "result": {}})
        with trio.fail_after(WAIT_S):
            assert (await shared.peer.hear())["method"] == "tools/call"


async def test_an_error_answers_the_ping_as_well(shared: Talk) -> None:
    ping = await give_up(shared)
    await shared.peer.say({"jsonrpc": "2.0", "id": ping, "error": {"code": -32601, "message": "what?"}})
    await heard(shared)

    assert await until_asked(shared) < REST_S


async def test_a_log_line_after_the_server_has_read_of_it_is_the_next_calls(shared: Talk) -> None:
    ping = await give_up(shared)
    await shared.peer.say({"jsonrpc": "2.0", "id": ping, "result": {}})
    await heard(shared)
    second = await begin(shared, "second")
    faded_at = trio.current_time() + FADE_S
    with trio.fail_after(WAIT_S):
        while trio.current_time() < faded_at:
            await trio.sleep(0.01)

    await shared.peer.say({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "mine"}})
    await heard(shared)

    assert [told.method for told in second.inbox or ()] == ["notifications/message"]
