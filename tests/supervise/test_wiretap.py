"""Who watches an instance costs nobody anything, and sees every process of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio

from controlplane.core.floodgate import Floodgate
from controlplane.core.jsonrpc import encode
from controlplane.hub import QUEUE_MAX_EVENTS
from controlplane.supervise.wiretap import Wanted
from controlplane.wire.sse import SseParser

if TYPE_CHECKING:
    from controlplane.hub import Subscription
    from controlplane.supervise.child import Child
    from controlplane.supervise.runner import Runner
    from tests.supervise.conftest import Yard

INTRODUCTION = encode(
    {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "ada", "version": "1"}}
)
SAMPLING = frozenset({"sampling"})
BARE = b"""
import json, sys
for line in sys.stdin:
    print(json.dumps({"result": {"asked": json.loads(line)["method"]}}), flush=True)
"""


async def heard(stream: Subscription) -> list[dict[str, Any]]:
    """What is queued now, and at least one event."""
    with trio.fail_after(10):
        return [json.loads(event.data) for event in SseParser().feed(await stream.take())]


async def heard_until(stream: Subscription, **members: Any) -> list[dict[str, Any]]:
    """Everything up to an event with these members."""
    events: list[dict[str, Any]] = []
    with trio.fail_after(10):
        while not any(members.items() <= event.items() for event in events):
            events += await heard(stream)
    return events


def taps(child: Child | None) -> tuple[Any, Any]:
    assert child is not None
    return child.session.tap, child.session.outbox.tap


def is_tapped(child: Child | None) -> bool:
    return taps(child) != (None, None)


async def call(runner: Runner, method: str = "ping") -> None:
    await runner.call(method, None)


async def test_nothing_is_set_on_a_session_unless_somebody_watches(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo)
    assert taps(runner.child) == (None, None)

    first = runner.wiretap.listen(Wanted())
    second = runner.wiretap.listen(Wanted(direction="to_server"))
    assert None not in taps(runner.child)

    first.close()
    assert is_tapped(runner.child)
    second.close()
    second.close()
    assert taps(runner.child) == (None, None)
    assert not runner.wiretap.is_on


async def test_nothing_of_a_watcher_is_left_in_the_hub(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo)
    before = yard.hub.statistics()

    for number in range(20):
        with runner.wiretap.listen(Wanted(frozenset({f"tools/{number}"}))):
            await call(runner)

    after = yard.hub.statistics()
    assert (after.topics, after.subscribers) == (before.topics, before.subscribers)


async def test_every_process_of_an_instance_is_seen_from_its_first_message_on(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo)
    stream = runner.wiretap.listen(Wanted(frozenset({"initialize"}), "to_server"))

    shared = await runner.lanes.legacy(SAMPLING)
    private = await runner.lanes.private(INTRODUCTION, frozenset())
    runner.want_running()
    await runner.wait_settled(30)
    events = await heard_until(stream, incarnation=2, lane="primary")

    found = {(event["lane"], event["pid"]) for event in events if event["type"] == "wire"}
    assert {("shared", shared.child.job.pid), ("private", private.child.job.pid), ("primary", runner.pid)} <= found
    assert not is_tapped(shared.child), "it has ended"


async def test_a_call_that_began_before_anybody_watched_is_known_by_its_answer(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo)
    params = encode({"name": "sleep", "arguments": {"seconds": 0.2}})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runner.call, "tools/call", params)
        while not (runner.child and runner.child.session.pending):
            await trio.sleep(0)
        stream = runner.wiretap.listen(Wanted(frozenset({"tools/call"})))

    events = await heard_until(stream, kind="response")
    assert events[-1]["ms"] >= 200


async def test_answers_without_ids_are_put_to_their_calls(yard: Yard) -> None:
    runner = await yard.running(BARE)
    stream = runner.wiretap.listen(Wanted(direction="from_server"))

    for method in ("a/b", "c/d"):
        await call(runner, method)

    events = await heard_until(stream, method="c/d")
    found = [(event["method"], event["id"]) for event in events if event["type"] == "wire"]
    assert found[-2:] == [("a/b", None), ("c/d", None)]


async def test_a_watcher_that_does_not_read_is_cut_and_disturbs_nobody(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo)
    slow, quick = runner.wiretap.listen(Wanted()), runner.wiretap.listen(Wanted())
    other = yard.hub.subscribe(instance_id=runner.instance.id)
    seen: list[dict[str, Any]] = []
    for _ in range(QUEUE_MAX_EVENTS):
        await call(runner)
        seen += await heard(quick)

    assert slow.closed
    assert [event["type"] for event in await heard(slow)] == ["lagged"]
    with pytest.raises(trio.EndOfChannel):
        await slow.take()
    assert not quick.closed
    assert not other.closed
    assert is_tapped(runner.child)
    numbers = [event["seq"] for event in seen if event["type"] == "wire"]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


async def test_a_burst_that_arrives_in_one_read_cuts_no_reader_who_had_no_turn(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo)
    stream = runner.wiretap.listen(Wanted())
    seen: list[dict[str, Any]] = []

    async def read() -> None:
        while True:
            seen.extend(await heard(stream))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await runner.call("tools/call", encode({"name": "burst", "arguments": {"n": 2000}}))
        while not any(event.get("kind") == "response" and event["method"] == "tools/call" for event in seen):
            await trio.sleep(0)
        nursery.cancel_scope.cancel()

    assert sum(event["type"] == "wire" and event["kind"] == "notification" for event in seen) == 2000


async def test_more_than_can_be_shown_is_counted(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo)
    runner.wiretap._gate = Floodgate(lines_per_s=20)  # 200 at once
    stream = runner.wiretap.listen(Wanted())
    await runner.call("tools/call", encode({"name": "burst", "arguments": {"n": 500}}))

    events = await heard(stream)
    while not any(event["type"] == "gap" for event in events):
        await call(runner)
        with trio.move_on_after(0.02):
            events += await heard(stream)

    shown = [event["type"] for event in events]
    missed = events[shown.index("gap")]["missed"]
    assert shown[:2] == ["connected", "wire"]
    assert missed > 0
    assert events[shown.index("gap") + 1]["seq"] - events[shown.index("gap") - 1]["seq"] == missed + 1


async def test_the_streams_of_a_removed_instance_end(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo)
    stream = runner.wiretap.listen(Wanted())

    await yard.supervisor.remove(runner)
    with trio.fail_after(30):
        while not stream.closed:
            await trio.sleep(0.01)

    assert runner.wiretap.listen(Wanted()).closed
