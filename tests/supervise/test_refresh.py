"""Catalogues of real servers: asked for in the background, kept up to date, and answered from while nobody else can."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio

from controlplane.core.jsonrpc import encode, member_value
from controlplane.core.lifecycle import State
from controlplane.core.restart import RestartPolicy
from controlplane.errors import BadChildMessage, InstanceUnavailable
from controlplane.model import Limits, Section
from controlplane.protocol.handshake import Era
from controlplane.supervise import refresh
from tests import servers

if TYPE_CHECKING:
    from collections.abc import Callable

    from controlplane.supervise.runner import Runner
    from tests.supervise.conftest import Yard

LISTER = servers.source("lister.py")
LONG_BACKOFF = RestartPolicy(base_delay_s=60, max_delay_s=60)
HEAD = b"""
import json, sys
def send(message):
    sys.stdout.write(json.dumps(message) + "\\n")
    sys.stdout.flush()
"""
BARE = (
    HEAD
    + b"""
asked = 0
for line in sys.stdin:
    method = json.loads(line)["method"]
    asked += method == "tools/list"
    if method == "tools/list":
        send({"result": {"tools": [{"name": "count"}]}})
    elif method == "count":
        send({"result": {"asked": asked}})
    else:
        send({"error": "unknown"})
"""
)
LEGACY = (
    HEAD
    + b"""
def result(message):
    if message["method"] == "initialize":
        capabilities = {"tools": {}, "prompts": {}}
        return {"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": {"name": "s", "version": "1"}}
    return lists(message)
for line in sys.stdin:
    message = json.loads(line)
    if message.get("method") == "server/discover":
        send({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "no"}})
    elif "id" in message:
        answer = result(message)
        if answer is not None:
            send({"jsonrpc": "2.0", "id": message["id"], "result": answer})
"""
)


MODERN = (
    HEAD
    + b"""
tools, listener, asked = ["grow"], None, 0
for line in sys.stdin:
    message = json.loads(line)
    method, number, params = message.get("method"), message.get("id"), message.get("params")
    subscription = {"_meta": {"io.modelcontextprotocol/subscriptionId": listener}}
    result = {"resultType": "complete"}
    if method == "server/discover":
        result |= {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {"listChanged": True}}}
    elif method == "tools/list":
        asked += 1
        result |= {"tools": [{"name": name} for name in tools], "ttlMs": 60000, "cacheScope": "public"}
    elif method == "tools/call":
        tools.append(f"tool{asked}")
        if listener is not None:
            send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": subscription})
        result |= {"content": [{"type": "text", "text": str(asked)}]}
    elif method == "subscriptions/listen":
        listener = number
        subscription = {"_meta": {"io.modelcontextprotocol/subscriptionId": number}}
        send({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": subscription})
        continue
    if number is not None:
        send({"jsonrpc": "2.0", "id": number, "result": result})
"""
)


def legacy(lists: bytes) -> bytes:
    """A legacy server that answers everything but the handshake by this function's body."""
    return b"def lists(message):\n" + lists + LEGACY


async def until(condition: Callable[[], Any], timeout_s: float = 20) -> None:
    with trio.fail_after(timeout_s):
        while not condition():
            await trio.sleep(0.01)


async def tool(runner: Runner, name: str, **arguments: Any) -> dict[str, int]:
    """Call a tool of the lister; how often it was asked for each list."""
    params = encode({"name": name, "arguments": arguments})
    text = member_value(await runner.call("tools/call", params, timeout_s=20))["content"][0]["text"]
    asked: dict[str, int] = json.loads(text)
    return asked


def names(runner: Runner, section: Section = Section.TOOLS) -> list[str]:
    return [item["name"] for item in runner.catalogue.values(section) or []]


async def listing(yard: Yard, **options: Any) -> Runner:
    """A lister whose lists are all known."""
    runner = await yard.running(LISTER, **options)
    await until(lambda: all(runner.catalogue.is_fresh(section) for section in Section))
    return runner


async def test_a_server_is_asked_for_all_it_offers_once_it_serves(yard: Yard) -> None:
    runner = await listing(yard)

    assert names(runner) == ["grow", "asked", "hold"]  # two pages
    assert names(runner, Section.PROMPTS) == ["greet"]
    assert names(runner, Section.RESOURCES) == ["a", "b", "c"]
    assert names(runner, Section.RESOURCE_TEMPLATES) == ["any"]
    assert runner.meter.calls == 0
    assert {row.section for row in yard.journal.listings} == set(Section)
    assert set((await tool(runner, "asked")).values()) == {1}


async def test_a_change_that_is_announced_is_asked_for_and_kept(yard: Yard) -> None:
    runner = await listing(yard)
    before = len(yard.journal.listings)

    await tool(runner, "grow")
    await until(lambda: names(runner)[-1] == "new0")
    assert runner.catalogue.is_fresh(Section.TOOLS)
    await tool(runner, "grow", method="resources/list")
    await until(lambda: names(runner, Section.RESOURCES)[-1] == "new0")

    await until(lambda: len(yard.journal.listings) == before + 2)
    asked = await tool(runner, "asked")
    assert asked == {"tools/list": 2, "prompts/list": 1, "resources/list": 2, "resources/templates/list": 2}


async def test_many_changes_are_asked_for_together(yard: Yard) -> None:
    runner = await listing(yard)

    await tool(runner, "grow", n=60)
    await until(lambda: len(names(runner)) == 63)
    assert (await tool(runner, "asked"))["tools/list"] <= 4


async def test_lists_are_answered_while_a_server_waits_to_start_again(yard: Yard) -> None:
    runner = await listing(yard, restart=LONG_BACKOFF)
    before = runner.catalogue.answer("tools/list", None)
    with pytest.raises(Exception, match="SIGKILL"):
        await tool(runner, "kill")
    await until(lambda: runner.state is State.BACKOFF)

    with pytest.raises(InstanceUnavailable):
        await runner.call("tools/list", None)
    answered = runner.catalogue.answer("tools/list", b"{}")
    assert answered == before
    assert [item["name"] for item in member_value(answered or b"")["tools"]] == ["grow", "asked", "hold"]
    assert not runner.catalogue.is_fresh(Section.TOOLS)
    assert runner.catalogue.cached("tools/list", None, trio.current_time()) is None


async def test_a_new_process_is_asked_again(yard: Yard) -> None:
    runner = await listing(yard)
    await tool(runner, "grow")
    await until(lambda: len(names(runner)) == 4)
    await yard.supervisor.restart(runner)
    await until(lambda: len(names(runner)) == 3)  # what has grown is gone with its process


async def test_what_a_caller_asks_for_is_counted_and_taken(yard: Yard) -> None:
    runner = await listing(yard)
    await runner.relist(Section.TOOLS)
    assert runner.meter.calls == 2  # both pages


async def test_a_bare_server_is_asked_for_its_tools_and_once(yard: Yard) -> None:
    runner = await yard.running(BARE)
    assert runner.protocol is not None
    assert runner.protocol.era is Era.BARE
    await until(lambda: names(runner) == ["count"])
    assert member_value(await runner.call("count", None)) == {"asked": 1}
    await yard.supervisor.restart(runner)
    await runner.wait_settled(20)
    assert member_value(await runner.call("count", None)) == {"asked": 0}
    assert names(runner) == ["count"]


async def test_a_modern_server_is_listened_to_and_its_permission_to_remember_is_used(yard: Yard) -> None:
    runner = await yard.running(MODERN)
    assert runner.protocol is not None
    assert runner.protocol.era is Era.MODERN
    await until(lambda: runner.catalogue.is_fresh(Section.TOOLS) and not runner.catalogue.has_work)
    cached = runner.catalogue.cached("tools/list", None, trio.current_time())
    assert member_value(cached or b"")["cacheScope"] == "public"

    await runner.call("tools/call", encode({"name": "grow"}))
    await until(lambda: len(names(runner)) == 2)
    assert len(runner.child.session.pending) == 1 if runner.child else False  # the subscription, which holds no stop up
    with trio.fail_after(3):
        await yard.supervisor.stop(runner)
        await runner.wait_settled(20)


async def test_a_server_that_knows_no_lists_has_none(yard: Yard) -> None:
    source = LISTER.replace(b"elif method in LISTS", b"elif method == 1")
    runner = await yard.running(source)
    await until(lambda: all(runner.catalogue.is_fresh(section) for section in Section))
    assert names(runner) == []


@pytest.mark.parametrize(
    "lists",
    [
        b"    return None\n",  # never
        b"    return 7\n",
        b"    return {'tools': 'many'}\n",
        b"    return {'tools': [{'name': 'x' * 3_000_000}], 'nextCursor': str(id(message))}\n",
    ],
)
async def test_a_server_that_lists_badly_serves_and_stops_all_the_same(yard: Yard, lists: bytes) -> None:
    runner = yard.deploy(legacy(lists), limits=Limits(call_timeout_s=1))
    await runner.wait_settled(30)
    assert runner.serving
    with pytest.raises(Exception, match=r"is no list|larger than|no answer"):
        await runner.relist(Section.TOOLS)
    assert runner.catalogue.tools() is None
    with trio.fail_after(8):
        await yard.supervisor.stop(runner)
        await runner.wait_settled(20)
    assert runner.state is State.STOPPED
    assert runner.instance.last_error is None


async def test_a_server_that_always_has_a_next_page_is_not_followed_for_ever(yard: Yard) -> None:
    page = b"    import time\n    return {'tools': [{'name': 'a'}], 'nextCursor': str(time.monotonic_ns())}\n"
    runner = await yard.running(legacy(page))
    await until(lambda: names(runner))
    assert len(names(runner)) == refresh.MAX_PAGES
    same = b"    return {'tools': [{'name': 'a'}], 'nextCursor': 'again'}\n"
    runner = await yard.running(legacy(same))
    await until(lambda: names(runner))
    assert len(names(runner)) == 2


async def test_a_section_too_large_beside_the_others_is_refused(yard: Yard) -> None:
    lists = b"    return {message['method'].partition('/')[0]: [{'name': 'x' * 2_500_000}]}\n"
    runner = await yard.running(legacy(lists))
    await until(lambda: runner.catalogue.is_fresh(Section.TOOLS))
    with pytest.raises(BadChildMessage, match="more than is kept"):
        await runner.relist(Section.PROMPTS)
