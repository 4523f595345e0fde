"""Numbered events and their fan-out: nothing is lost in silence, and nobody's slowness is another's."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest
import trio
from attrs import define, field, frozen
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.replay import MAX_EVENTS
from controlplane.hub import HEARTBEAT_S, QUEUE_MAX_BYTES, QUEUE_MAX_EVENTS, Event, Hub, Subscription
from controlplane.wire.sse import SseParser

COW = UUID(int=1)
GOAT = UUID(int=2)
ROOMY = 256 * 2**20


@frozen
class Seen:
    """One event as a reader got it."""

    id: str
    type: str
    data: dict[str, Any]

    @property
    def number(self) -> int:
        return int(self.id.rpartition("-")[2])


def read(frames: bytes) -> list[Seen]:
    seen = []
    for event in SseParser().feed(frames):
        data = json.loads(event.data)
        seen.append(Seen(event.id, data["type"], data))
    return seen


async def taken(subscription: Subscription) -> list[Seen]:
    with trio.fail_after(5):
        return read(await subscription.take())


async def ended(subscription: Subscription) -> bool:
    with trio.fail_after(5):
        try:
            await subscription.take()
        except trio.EndOfChannel:
            return True
    return False


def publish(
    hub: Hub, value: Any = None, *, instance_id: UUID | None = COW, owner: str = "ada", ring: bool = True
) -> None:
    hub.publish_nowait("status", instance_id=instance_id, owner=owner, data={"value": value}, ring=ring)


def values(seen: list[Seen]) -> list[Any]:
    return [event.data["value"] for event in seen if event.type == "status"]


# -- frames and topics


async def test_a_frame_has_an_id_and_the_events_members_beside_its_type() -> None:
    hub = Hub(ROOMY)
    with hub.subscribe(instance_id=COW) as stream:
        hub.publish_nowait("log", instance_id=COW, owner="ada", data={"message": "moo\n\nid: 7", "level": "info"})
        connected, log = await taken(stream)

    assert connected.type == "connected"
    assert list(connected.data) == ["type", "instance_id", "timestamp"]
    assert log.id == f"{hub.epoch}-1"
    assert log.data == {
        "type": "log",
        "instance_id": str(COW),
        "timestamp": log.data["timestamp"],
        "message": "moo\n\nid: 7",
        "level": "info",
    }
    assert log.data["timestamp"].endswith("Z")


async def test_an_instances_stream_holds_nothing_of_another_instance() -> None:
    hub = Hub(ROOMY)
    with hub.subscribe(instance_id=COW) as cow, hub.subscribe(instance_id=GOAT) as goat:
        publish(hub, "moo", instance_id=COW)
        publish(hub, "bleat", instance_id=GOAT)

        assert values(await taken(cow)) == ["moo"]
        assert values(await taken(goat)) == ["bleat"]


async def test_an_owners_stream_holds_that_owners_fleet_and_administrators_see_everything() -> None:
    hub = Hub(ROOMY)
    with hub.subscribe(owner="ada") as ada, hub.subscribe(owner="bob") as bob, hub.subscribe() as admin:
        publish(hub, "moo", instance_id=COW, owner="ada")
        publish(hub, "bleat", instance_id=GOAT, owner="bob")

        assert values(await taken(ada)) == ["moo"]
        assert values(await taken(bob)) == ["bleat"]
        assert values(await taken(admin)) == ["moo", "bleat"]


@pytest.mark.parametrize("type_", ["log", "notification"])
async def test_what_comes_by_the_thousand_stays_on_the_instances_own_stream(type_: str) -> None:
    hub = Hub(ROOMY)
    with hub.subscribe(instance_id=COW) as cow, hub.subscribe(owner="ada") as ada, hub.subscribe() as admin:
        hub.publish_nowait(type_, instance_id=COW, owner="ada", data={})

        assert [event.type for event in await taken(cow)] == ["connected", type_]
        assert [event.type for event in await taken(ada)] == ["connected"]
        assert [event.type for event in await taken(admin)] == ["connected"]


async def test_an_event_says_whose_it_is_but_for_what_comes_by_the_thousand() -> None:
    hub = Hub(ROOMY)
    with hub.subscribe(instance_id=COW) as cow, hub.subscribe() as admin:
        for type_ in ("sample", "log"):
            hub.publish_nowait(type_, instance_id=COW, owner="ada", data={})

        assert [event.data.get("owner") for event in await taken(cow)] == [None, "ada", None]
        assert [event.data.get("owner") for event in await taken(admin)] == [None, "ada"]


async def test_an_event_of_no_instance_goes_to_its_owner_and_the_administrators() -> None:
    hub = Hub(ROOMY)
    with hub.subscribe(owner="ada") as ada, hub.subscribe() as admin:
        publish(hub, 1, instance_id=None)
        hub.publish_nowait("status", instance_id=None, owner=None, data={"value": 2})

        assert values(await taken(ada)) == [1]
        assert values(await taken(admin)) == [1, 2]


async def test_each_topic_numbers_from_one_without_a_hole() -> None:
    hub = Hub(ROOMY)
    with hub.subscribe(instance_id=COW) as cow, hub.subscribe() as admin:
        for instance_id in (COW, GOAT, COW):
            publish(hub, instance_id=instance_id)

        assert [event.number for event in await taken(cow)] == [0, 1, 2]
        assert [event.number for event in await taken(admin)] == [0, 1, 2, 3]


async def test_an_event_outside_the_ring_is_heard_now_and_never_again() -> None:
    hub = Hub(ROOMY)
    publish(hub, "kept")
    with hub.subscribe(instance_id=COW) as stream:
        publish(hub, "passing", ring=False)
        publish(hub, "kept too")
        seen = await taken(stream)

    assert [(event.number, event.data.get("value")) for event in seen] == [(1, None), (1, "passing"), (2, "kept too")]
    with hub.subscribe(instance_id=COW, last_event_id=f"{hub.epoch}-0") as again:
        assert values(await taken(again)) == ["kept", "kept too"]


async def test_an_event_outside_the_ring_that_nobody_hears_costs_nothing() -> None:
    hub = Hub(ROOMY)
    publish(hub, ring=False)

    assert (hub.statistics().topics, hub.statistics().buffered_bytes) == (0, 0)


async def test_what_happened_is_kept_and_what_is_of_the_moment_is_not() -> None:
    kept: list[Event] = []
    hub = Hub(ROOMY, kept.append)
    types = ["deployed", "status", "log", "call", "sample", "notification", "post_mortem", "changed", "deleted"]
    events = [hub.publish_nowait(type_, instance_id=COW, owner="ada", data={}, ring=False) for type_ in types]

    assert kept == [events[0], events[1], events[6], events[7], events[8]]


async def test_whether_anybody_listens_can_be_asked_first() -> None:
    hub = Hub(ROOMY)
    assert not hub.has_subscribers(COW)
    with hub.subscribe(instance_id=COW):
        assert hub.has_subscribers(COW)
        assert not hub.has_subscribers(None)
    publish(hub)
    assert not hub.has_subscribers(COW)


# -- coming back


async def test_a_reader_that_comes_back_gets_exactly_what_it_missed() -> None:
    hub = Hub(ROOMY)
    for number in range(1, 6):
        publish(hub, number)

    with hub.subscribe(instance_id=COW, last_event_id=f"{hub.epoch}-2") as stream:
        publish(hub, 6)
        seen = await taken(stream)

    assert [event.type for event in seen] == ["connected"] + ["status"] * 4
    assert [event.number for event in seen] == [2, 3, 4, 5, 6]
    assert values(seen) == [3, 4, 5, 6]


async def test_a_reader_that_was_away_too_long_is_told_how_much_is_gone() -> None:
    hub = Hub(ROOMY)
    for number in range(1, MAX_EVENTS + 11):
        publish(hub, number)

    with hub.subscribe(instance_id=COW, last_event_id=f"{hub.epoch}-4") as stream:
        connected, gap, *rest = await taken(stream)

    assert (connected.type, connected.number) == ("connected", 4)
    assert (gap.type, gap.data["missed"], gap.number) == ("gap", 6, 10)
    assert values(rest) == list(range(11, MAX_EVENTS + 11))


@pytest.mark.parametrize(
    "last_event_id",
    [
        "feedbeef-3",
        "nonsense",
        "-",
        "{epoch}-",
        "{epoch}--1",
        "{epoch}-99",
        "{epoch}-²",
        "{epoch}-0x1",
        "{epoch}-" + "9" * 5000,
    ],
)
async def test_an_id_of_another_life_gets_a_gap_of_unknown_size_and_all_there_is(last_event_id: str) -> None:
    hub = Hub(ROOMY)
    publish(hub, 1)
    publish(hub, 2)

    with hub.subscribe(instance_id=COW, last_event_id=last_event_id.replace("{epoch}", hub.epoch)) as stream:
        seen = await taken(stream)

    assert [event.type for event in seen] == ["connected", "gap", "status", "status"]
    assert seen[1].data["missed"] is None
    assert [event.number for event in seen] == [0, 0, 1, 2]


async def test_two_lives_never_share_an_epoch() -> None:
    assert len({Hub(ROOMY).epoch for _ in range(50)}) == 50


async def test_whatever_frame_a_reader_saw_last_it_comes_back_to_the_very_next_one() -> None:
    """The connection may break after any frame, `connected` and `gap` included."""
    hub = Hub(ROOMY)
    for number in range(1, MAX_EVENTS + 4):
        publish(hub, number)
    with hub.subscribe(instance_id=COW, last_event_id=f"{hub.epoch}-1") as stream:
        seen = await taken(stream)
    told = seen[:5]

    for count in range(1, len(told) + 1):
        with hub.subscribe(instance_id=COW, last_event_id=told[count - 1].id) as stream:
            again = await taken(stream)
        both = [*told[:count], *again]
        missed = sum(event.data["missed"] for event in both if event.type == "gap")
        assert missed == 2
        assert values(both) == list(range(4, MAX_EVENTS + 4))


async def test_a_long_replay_does_not_count_as_lagging() -> None:
    """Else a busy stream could never be taken up again: the next event would cut it before its first byte."""
    hub = Hub(ROOMY)
    for number in range(1, 601):
        publish(hub, number)

    with hub.subscribe(instance_id=COW, last_event_id=f"{hub.epoch}-0") as stream:
        for number in range(601, 701):
            publish(hub, number)
        assert values(await taken(stream)) == list(range(1, 701))
        assert not stream.closed


# -- slow readers


async def test_a_reader_that_lags_is_cut_after_a_last_word_and_others_go_on() -> None:
    hub = Hub(ROOMY)
    with hub.subscribe(instance_id=COW) as slow, hub.subscribe(instance_id=COW) as quick:
        heard = []
        for number in range(1, QUEUE_MAX_EVENTS + 11):
            publish(hub, number)
            heard += values(await taken(quick))

        seen = await taken(slow)
        assert seen[-1].type == "lagged"
        assert await ended(slow)
        assert heard == list(range(1, QUEUE_MAX_EVENTS + 11))
        assert not quick.closed
    assert (hub.statistics().lagged, hub.statistics().subscribers) == (1, 0)


async def test_a_reader_that_was_cut_loses_nothing_by_coming_back() -> None:
    hub = Hub(ROOMY)
    with hub.subscribe(instance_id=COW) as slow:
        publish(hub, 1)
        before = await taken(slow)
        for number in range(2, QUEUE_MAX_EVENTS + 20):
            publish(hub, number)
        after = await taken(slow)
    publish(hub, QUEUE_MAX_EVENTS + 20)

    with hub.subscribe(instance_id=COW, last_event_id=after[-1].id) as again:
        rest = await taken(again)

    assert values([*before, *after, *rest]) == list(range(1, QUEUE_MAX_EVENTS + 21))


async def test_a_reader_that_was_cut_holds_no_memory() -> None:
    hub = Hub(ROOMY)
    with hub.subscribe(instance_id=COW) as slow:
        for _ in range(QUEUE_MAX_EVENTS + 1):
            publish(hub, "x" * 1000)
        assert slow.queued_bytes < 500


async def test_bytes_cut_a_reader_as_numbers_do_but_one_large_event_passes_alone() -> None:
    hub = Hub(ROOMY)
    with hub.subscribe(instance_id=COW) as stream:
        await stream.take()
        publish(hub, "x" * (QUEUE_MAX_BYTES + 1))
        assert len(values(await taken(stream))[0]) == QUEUE_MAX_BYTES + 1

        publish(hub, "y")
        publish(hub, "x" * QUEUE_MAX_BYTES)
        assert (await taken(stream))[-1].type == "lagged"
        assert await ended(stream)


# -- waiting


async def test_a_waiting_reader_wakes_for_each_publish() -> None:
    hub = Hub(ROOMY)
    heard: list[Any] = []
    with hub.subscribe(instance_id=COW) as stream:
        await stream.take()

        async def listen() -> None:
            while len(heard) < 3:
                heard.extend(values(read(await stream.take())))

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                for number in range(3):
                    await trio.testing.wait_all_tasks_blocked()
                    publish(hub, number)
    assert heard == [0, 1, 2]


async def test_a_reader_that_stops_waiting_loses_nothing() -> None:
    hub = Hub(ROOMY)
    with hub.subscribe(instance_id=COW) as stream:
        await stream.take()
        with trio.move_on_after(0) as gave_up:
            await stream.take()
        assert gave_up.cancelled_caught
        publish(hub, 1)

        assert values(await taken(stream)) == [1]


@pytest.mark.parametrize("how", ["close", "exit", "hub", "forget"])
async def test_a_waiting_reader_wakes_when_its_stream_ends(how: str) -> None:
    hub = Hub(ROOMY)
    stream = hub.subscribe(instance_id=COW)
    await stream.take()
    last: list[Seen] = []

    async def listen() -> None:
        with suppress(trio.EndOfChannel):
            while True:
                last.extend(read(await stream.take()))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await trio.testing.wait_all_tasks_blocked()
            if how == "close":
                stream.close()
            elif how == "exit":
                stream.__exit__(None, None, None)
            elif how == "hub":
                hub.close()
            else:
                hub.forget_topic(COW)
    assert [event.type for event in last] == (["shutdown"] if how == "hub" else [])
    assert hub.statistics().subscribers == 0


async def test_closing_twice_is_closing_once() -> None:
    hub = Hub(ROOMY)
    with hub.subscribe(instance_id=COW) as one, hub.subscribe(instance_id=COW):
        one.close()
        one.close()
        assert hub.statistics().subscribers == 1
    assert hub.statistics().subscribers == 0


# -- the end of things


async def test_when_the_hub_closes_every_reader_gets_what_is_queued_and_a_last_word() -> None:
    hub = Hub(ROOMY)
    with hub.subscribe(instance_id=COW) as cow, hub.subscribe() as admin:
        publish(hub, 1)
        hub.close()

        for stream in (cow, admin):
            assert [event.type for event in await taken(stream)] == ["connected", "status", "shutdown"]
            assert await ended(stream)
        assert hub.statistics().subscribers == 0
    with hub.subscribe(instance_id=GOAT) as late:
        assert await ended(late)
    assert hub.statistics().topics == 3, "a subscription that came too late makes no topic"


async def test_a_removed_instance_ends_its_streams_and_frees_its_ring() -> None:
    hub = Hub(ROOMY)
    publish(hub, "x" * 1000, owner="ada")
    held = hub.statistics().buffered_bytes
    with hub.subscribe(instance_id=COW) as stream:
        hub.publish_nowait("deleted", instance_id=COW, owner="ada", data={})
        hub.forget_topic(COW)
        hub.forget_topic(COW)

        assert [event.type for event in await taken(stream)] == ["connected", "deleted"]
        assert await ended(stream)
    assert hub.statistics().topics == 2
    assert hub.statistics().buffered_bytes < held


async def test_heartbeats_come_by_the_clock_and_move_no_number(autojump_clock: trio.testing.MockClock) -> None:
    hub = Hub(ROOMY)
    publish(hub, 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run_heartbeats)
        with hub.subscribe(instance_id=COW) as stream:
            await stream.take()
            began = trio.current_time()
            beats = [(await taken_slowly(stream))[0] for _ in range(3)]
            assert trio.current_time() - began == pytest.approx(3 * HEARTBEAT_S)
        nursery.cancel_scope.cancel()

    assert {(beat.type, beat.number) for beat in beats} == {("heartbeat", 1)}


async def taken_slowly(subscription: Subscription) -> list[Seen]:
    with trio.fail_after(2 * HEARTBEAT_S):
        return read(await subscription.take())


async def test_a_heartbeat_finds_the_reader_that_does_not_read() -> None:
    hub = Hub(ROOMY)
    with hub.subscribe(instance_id=COW) as stream:
        for _ in range(QUEUE_MAX_EVENTS + 1):
            hub.heartbeat()

        assert stream.closed
        assert (await taken(stream))[-1].type == "lagged"


# -- memory


async def test_over_the_bound_the_largest_ring_gives_way_before_small_queues() -> None:
    hub = Hub(100_000)
    for number in range(100):
        hub.publish_nowait("log", instance_id=GOAT, owner="ada", data={"value": number, "pad": "x" * 900})
    with hub.subscribe(instance_id=COW) as stream:
        for number in range(100):
            hub.publish_nowait("log", instance_id=GOAT, owner="ada", data={"value": number, "pad": "x" * 900})
        assert hub.statistics().buffered_bytes <= 100_000
        assert not stream.closed


async def test_over_the_bound_the_slowest_reader_is_cut_and_its_memory_is_free_at_once() -> None:
    hub = Hub(100_000)
    with hub.subscribe(instance_id=COW) as slow, hub.subscribe(instance_id=COW) as quick:
        for _ in range(200):
            publish(hub, "x" * 900, ring=False)
            await taken(quick)
            assert hub.statistics().buffered_bytes <= 100_000

        assert slow.closed
        assert not quick.closed
    assert hub.statistics().lagged == 1


async def test_one_event_to_many_readers_cannot_pass_the_bound_by_more_than_itself() -> None:
    hub = Hub(100_000)
    streams = [hub.subscribe(instance_id=COW) for _ in range(50)]
    publish(hub, "x" * 50_000)

    assert hub.statistics().buffered_bytes <= 100_000
    for stream in streams:
        stream.__exit__(None, None, None)


async def test_many_replays_at_once_stay_within_the_bound() -> None:
    hub = Hub(100_000)
    for _ in range(30):
        publish(hub, "x" * 900, instance_id=COW, owner="ada")

    streams = [hub.subscribe(instance_id=COW, last_event_id=f"{hub.epoch}-0") for _ in range(20)]

    assert hub.statistics().buffered_bytes <= 100_000
    for stream in streams:
        stream.__exit__(None, None, None)


async def test_a_bound_smaller_than_anything_breaks_nothing() -> None:
    hub = Hub(10)
    with hub.subscribe(instance_id=COW) as stream:
        for number in range(20):
            publish(hub, number)
            publish(hub, number, ring=False)
        assert stream.closed
    assert hub.statistics().buffered_bytes <= 10


@define
class Stage:
    """A hub with a small bound, and whatever happens to it. Only `log` events: they are in no fleet's ring."""

    hub: Hub = field(factory=lambda: Hub(20_000))
    streams: list[Subscription] = field(factory=list)

    def publish(self, topic: int, size: int, *, ring: bool = True) -> None:
        data = {"value": "x" * size}
        self.hub.publish_nowait("log", instance_id=UUID(int=topic), owner="ada", data=data, ring=ring)

    def tell(self, topic: int, size: int) -> None:
        self.publish(topic, size, ring=False)

    def subscribe(self, topic: int, number: int) -> None:
        last = f"{self.hub.epoch}-{number}" if number < 50 else None
        self.streams.append(self.hub.subscribe(instance_id=UUID(int=topic), last_event_id=last))

    def take(self, which: int, _: int) -> None:
        if self.streams and self.streams[which % len(self.streams)].queued_bytes:
            trio.run(self.streams[which % len(self.streams)].take)

    def leave(self, which: int, _: int) -> None:
        if self.streams:
            self.streams.pop(which % len(self.streams)).__exit__(None, None, None)

    def forget(self, topic: int, _: int) -> None:
        self.hub.forget_topic(UUID(int=topic))

    def heartbeat(self, _: int, __: int) -> None:
        self.hub.heartbeat()

    @property
    def last_words(self) -> int:
        return sum(stream.queued_bytes for stream in self.streams if stream.closed)


WHAT = st.sampled_from(["publish", "publish", "tell", "subscribe", "take", "leave", "forget", "heartbeat"])


@given(st.lists(st.tuples(WHAT, st.integers(0, 3), st.integers(0, 3_000) | st.integers(0, 60)), max_size=60))
def test_what_is_accounted_for_stays_bounded_and_returns_to_zero(steps: list[tuple[str, int, int]]) -> None:
    stage = Stage()
    for what, which, size in steps:
        getattr(stage, what)(which, size)
        assert 0 <= stage.hub.statistics().buffered_bytes <= 20_000 + stage.last_words
        assert stage.hub.statistics().subscribers == sum(not stream.closed for stream in stage.streams)

    while stage.streams:
        stage.leave(0, 0)
    for topic in range(4):
        stage.forget(topic, 0)
    assert (stage.hub.statistics().subscribers, stage.hub.statistics().buffered_bytes) == (0, 0)


# -- what cannot be written


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", ["half \ud800 a pair", object(), nested(200_000)], ids=["text", "object", "nesting"])
async def test_an_event_that_cannot_be_written_is_told_without_its_data(value: Any) -> None:
    hub = Hub(ROOMY)
    with hub.subscribe(instance_id=COW) as stream:
        publish(hub, value)
        publish(hub, "next")
        _, broken, after = await taken(stream)

    assert (broken.type, broken.data["instance_id"], "value" in broken.data) == ("status", str(COW), False)
    assert broken.data["unencodable"] is True
    assert after.data["value"] == "next"
