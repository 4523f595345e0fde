"""Events of one control plane in the streams of another, over a real Valkey that may go away."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import trio
import trio_asyncio
from attrs import define, field, frozen

from controlplane import bus as subject
from controlplane.bus import Bus, channel_of, open_bus, seal_of
from controlplane.hub import Hub
from controlplane.wire.sse import SseParser
from tests.services import Valkey, own_valkey, redis_url, valkey_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controlplane.subscription import Subscription

__all__ = ["own_valkey", "redis_url", "valkey_server"]

COW = UUID(int=7)
HANGS_S = 30.0
SEAL = b"s" * 32
USERS = ("alice", "bob")
FORGED = '{"node":"x","life":"1","last":1,"listens":false}\n[1,"%s"]\t{"type":"shutdown"}'
"""Of a user; all that it lacks is a seal."""


@frozen
class Pair:
    """Two control planes; what `one` publishes, `other` is to hear."""

    one: Hub
    other: Hub
    talker: Bus
    hearer: Bus


@asynccontextmanager
async def pair(
    url: str, channels: tuple[str, str] = ("c", "c"), seals: tuple[bytes, bytes] = (SEAL, SEAL)
) -> AsyncIterator[Pair]:
    one, other = Hub(64 * 2**20), Hub(64 * 2**20)
    async with (
        trio_asyncio.open_loop(),
        open_bus(url, one, channel=channels[0], seal=seals[0], node_id=UUID(int=1), knows=USERS.__contains__) as talker,
        open_bus(
            url, other, channel=channels[1], seal=seals[1], node_id=UUID(int=2), knows=USERS.__contains__
        ) as hearer,
    ):
        yield Pair(one, other, talker, hearer)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words often, so that nothing here takes long."""
    for name, seconds in {"BEAT_S": 0.1, "SILENCE_S": 1.0, "LOOK_S": 0.02, "RETRY_MAX_S": 0.2}.items():
        monkeypatch.setattr(subject, name, seconds)


def publish(hub: Hub, type_: str = "status", **data: Any) -> None:
    hub.publish_nowait(type_, instance_id=COW, owner="alice", data=data)


@define(eq=False)
class Reader:
    """Reads one stream."""

    subscription: Subscription
    _parser: SseParser = field(factory=SseParser, init=False)
    _events: list[dict[str, Any]] = field(factory=list, init=False)

    async def until(self, type_: str) -> dict[str, Any]:
        """The next event of a type."""
        with trio.fail_after(HANGS_S):
            while True:
                while self._events:
                    event = self._events.pop(0)
                    if event["type"] == type_:
                        return event
                self._events += [json.loads(event.data) for event in self._parser.feed(await self.subscription.take())]

    async def is_quiet(self) -> bool:
        """Whether nothing but `connected` comes for a while."""
        with trio.move_on_after(0.1):
            while True:
                event = await self.until_any()
                if event["type"] != "connected":
                    return False
        return True

    async def until_any(self) -> dict[str, Any]:
        while not self._events:
            self._events += [json.loads(event.data) for event in self._parser.feed(await self.subscription.take())]
        return self._events.pop(0)


async def connected(both: Pair) -> None:
    """Wait until each hears the other: events before that are nobody's."""
    with trio.fail_after(HANGS_S):
        for hub in (both.one, both.other):
            with hub.subscribe():
                peer = both.other if hub is both.one else both.one
                while not peer.followed_elsewhere:
                    await trio.sleep(0.01)


@pytest.mark.parametrize("owner", ["alice", None])
async def test_what_happens_at_one_is_in_the_streams_of_the_other_once_and_as_it_was(
    redis_url: str, owner: str | None
) -> None:
    async with pair(redis_url) as both:
        await connected(both)
        here, there = Reader(both.one.subscribe(owner=owner)), Reader(both.other.subscribe(owner=owner))
        publish(both.one, status="running")
        publish(both.one, "deleted")

        mine, theirs = await here.until("deleted"), await there.until("deleted")

        assert theirs == mine
        assert both.hearer.statistics().heard == 2
        assert (both.talker.statistics().heard, both.hearer.statistics().sent) == (0, 0)  # and not sent back


async def test_whose_it_is_decides_who_hears_of_it(redis_url: str) -> None:
    async with pair(redis_url) as both:
        await connected(both)
        everybody, bob = Reader(both.other.subscribe()), Reader(both.other.subscribe(owner="bob"))
        publish(both.one)
        await everybody.until("status")

        assert await bob.is_quiet()


async def test_lines_of_a_log_and_what_a_node_sees_of_its_services_stay_where_they_are(redis_url: str) -> None:
    async with pair(redis_url) as both:
        await connected(both)
        everybody, cow = Reader(both.other.subscribe()), Reader(both.other.subscribe(instance_id=COW))
        publish(both.one, "log", message="moo")
        both.one.publish_nowait("services", instance_id=None, owner=None, data={})
        publish(both.one)

        await everybody.until("status")
        assert both.hearer.statistics().heard == 1
        assert await cow.is_quiet()


async def test_events_of_the_moment_are_sent_while_somebody_follows_elsewhere(redis_url: str) -> None:
    async with pair(redis_url) as both:
        await connected(both)
        with trio.fail_after(HANGS_S):
            while both.one.has_subscribers(None):
                await trio.sleep(0.01)
        both.one.publish_nowait("sample", instance_id=COW, owner="alice", data={}, ring=False)
        assert both.talker.statistics().waiting == 0

        with both.other.subscribe(owner="alice") as subscription, trio.fail_after(HANGS_S):
            while not both.one.has_subscribers("alice"):
                await trio.sleep(0.01)
            both.one.publish_nowait("sample", instance_id=COW, owner="alice", data={}, ring=False)
            await Reader(subscription).until("sample")


async def test_a_reader_that_comes_back_gets_what_happened_elsewhere_meanwhile(redis_url: str) -> None:
    async with pair(redis_url) as both:
        await connected(both)
        with both.other.subscribe() as first:
            publish(both.one, number=1)
            await Reader(first).until("status")
            seen = f"{both.other.epoch}-{first.reached}"
        publish(both.one, number=2)
        with trio.fail_after(HANGS_S):
            while both.hearer.statistics().heard < 2:
                await trio.sleep(0.01)

        assert (await Reader(both.other.subscribe(last_event_id=seen)).until("status"))["number"] == 2


async def test_nothing_of_another_database_is_heard(redis_url: str) -> None:
    names = channel_of(b"k", "1/5"), channel_of(b"k", "1/6")
    async with pair(redis_url, names) as both:
        publish(both.one)
        with trio.fail_after(HANGS_S):
            while both.talker.statistics().sent < 1:
                await trio.sleep(0.01)
        await trio.sleep(0.2)

        assert both.hearer.statistics().heard == 0
    assert channel_of(b"k", "1/5") == names[0]
    assert channel_of(b"other", "1/5") != names[0]


async def test_what_a_stranger_writes_to_the_channel_is_dropped_and_counted(
    redis_url: str, valkey_server: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    async with pair(redis_url) as both:
        await connected(both)
        everybody = Reader(both.other.subscribe())
        topics = both.other.statistics().topics
        for written in ("hello", "", *(FORGED % owner for owner in ("alice", *range(50)))):
            valkey_server.command("PUBLISH", "c", written)
        publish(both.one)

        assert [(await everybody.until_any())["type"] for _ in range(2)] == ["connected", "status"]
        now = both.hearer.statistics()
        assert (now.heard, now.refused) == (1, 53)
        assert both.other.statistics().topics == topics + 1  # alice's, by the one that was not forged
        assert len([record for record in caplog.records if "wrong seal" in record.message]) <= 2  # one for each node


async def test_nothing_of_who_has_another_key_is_heard(redis_url: str) -> None:
    async with pair(redis_url, seals=(SEAL, b"o" * 32)) as both:
        publish(both.one)
        with trio.fail_after(HANGS_S):
            while not both.hearer.statistics().refused:
                await trio.sleep(0.01)

        assert both.hearer.statistics().heard == 0
    assert seal_of(b"k", "1/5") == seal_of(b"k", "1/5")
    assert len({seal_of(b"k", "1/5"), seal_of(b"k", "1/6"), seal_of(b"o", "1/5")}) == 3


async def test_what_happens_to_somebody_who_is_not_known_here_is_kept_for_those_alone_who_follow_everything(
    redis_url: str,
) -> None:
    async with pair(redis_url) as both:
        await connected(both)
        everybody = Reader(both.other.subscribe())
        topics = both.other.statistics().topics
        for number in range(20):
            both.one.publish_nowait("status", instance_id=COW, owner=f"stranger-{number}", data={})
        publish(both.one, "deployed")

        for _ in range(20):
            await everybody.until("status")
        await everybody.until("deployed")
        assert both.other.statistics().topics == topics + 1  # alice's


async def test_while_redis_is_away_nobody_waits_and_after_its_return_events_come_or_a_gap_tells(
    own_valkey: Valkey,
) -> None:
    async with pair(own_valkey.url) as both:
        await connected(both)
        with trio.fail_after(HANGS_S):
            while not both.hearer._hearing.settled:
                await trio.sleep(0.01)
        everybody = Reader(both.other.subscribe())
        await trio.to_thread.run_sync(own_valkey.kill)
        for number in range(10_000):
            publish(both.one, number=number)
        await trio.to_thread.run_sync(own_valkey.start)

        gap = await everybody.until("gap")

        assert gap["missed"] > 5000
        with trio.fail_after(HANGS_S):
            while (now := both.hearer.statistics()).heard + now.missed < 10_000:
                await trio.sleep(0.01)
        fresh = Reader(both.other.subscribe())
        publish(both.one, "deployed")
        await fresh.until("deployed")
