"""Numbered events and their fan-out to SSE subscribers.

The hub owns one topic per instance, one per owner and one of the whole fleet.
Live topics come and go with their subscribers, and keep nothing.
Publishing never waits and never fails: a subscriber that does not keep up
loses its own stream (after a last `lagged` event), nobody else's. An event is
encoded once however many subscribers it has.

What happens to instances of other control planes comes in by `relayed`, already
encoded, and goes to those who follow an owner or the fleet. It is numbered here
as what happens here is; the journal of that control plane keeps it.

Numbers are per topic and consecutive; the id `<epoch>-<number>` names the
control plane's life too, so a reader from an earlier life gets an explicit
`gap` instead of a wrong replay.

Snapshot and subscription happen in one step without an await, so no event can
slip in between.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import trio
from attrs import define, field, frozen

from controlplane.core.jsonrpc import encode
from controlplane.core.replay import Ring
from controlplane.subscription import QUEUE_MAX_BYTES, QUEUE_MAX_EVENTS, Subscription, Topic, WireOf

__all__ = [
    "HEARTBEAT_S",
    "QUEUE_MAX_BYTES",
    "QUEUE_MAX_EVENTS",
    "Event",
    "Hub",
    "HubStatistics",
    "Subscription",
    "Topic",
    "WireOf",
]

HEARTBEAT_S = 15.0
"""A real event, so that a reader can tell a quiet stream from a dead one."""
NUMBER_MAX_DIGITS = 18
PER_INSTANCE_ONLY = frozenset({"log", "notification"})
"""Too many for the fleet's streams; they are on the instance's own."""

NOT_RELAYED = PER_INSTANCE_ONLY | {"services"}
"""Of no concern to readers at other control planes: an instance's own streams are its holder's, and what a control plane
sees of Postgres and Redis is its own view."""

KEPT = frozenset(
    {
        "deployed",
        "changed",
        "deleted",
        "status",
        "post_mortem",
        "revision_failed",
        "watchdog",
        "tools_changed",
        "gap",
        "services",
    }
)
"""What happened to an instance, or to what Corral needs, for the database; the rest has tables of its own or is of the moment."""


@frozen(kw_only=True, slots=True)
class Event:
    """Something that happened; `data` holds JSON values."""

    at: datetime
    type: str
    instance_id: UUID | None
    owner: str | None
    data: Mapping[str, Any]


@frozen(kw_only=True)
class HubStatistics:
    """What the hub holds now, and what it has cut so far."""

    topics: int
    subscribers: int
    buffered_bytes: int
    published: int
    lagged: int


@define
class _Channel:
    """One topic's ring and its subscribers."""

    ring: Ring = field(factory=Ring)
    subscribers: set[Subscription] = field(factory=set)


@define(eq=False)
class Hub:
    """Publish and subscribe. `max_bytes` bounds all rings and queues together; `keep` gets what the journal writes."""

    max_bytes: int
    keep: Callable[[Event], None] | None = None
    relay: Callable[[str | None, bytes, bool], None] | None = field(default=None, init=False)
    """Gets what others are to hear of: whose it is, the event as it is encoded, and whether it is kept in a ring."""
    followed_elsewhere: bool = field(default=False, init=False)
    """Somebody follows an owner or the fleet at another control plane."""
    epoch: str = field(factory=lambda: secrets.token_hex(4))
    _channels: dict[Topic, _Channel] = field(factory=dict, init=False)
    _subscribers: int = field(default=0, init=False)
    _followers: int = field(default=0, init=False)
    _buffered: int = field(default=0, init=False)
    _published: int = field(default=0, init=False)
    _lagged: int = field(default=0, init=False)
    _closed: bool = field(default=False, init=False)

    def publish_nowait(
        self, type_: str, *, instance_id: UUID | None, owner: str | None, data: Mapping[str, Any], ring: bool = True
    ) -> Event:
        """Number, keep and fan out one event. With `ring=False` only those listening now get it."""
        event = Event(at=datetime.now(UTC), type=type_, instance_id=instance_id, owner=owner, data=data)
        self._published += 1
        if self.keep is not None and type_ in KEPT:
            self.keep(event)
        body: bytes | None = None
        topics: tuple[Topic, ...] = (instance_id,) if type_ in PER_INSTANCE_ONLY else (instance_id, owner, None)
        for topic in dict.fromkeys(topics):
            channel = self._channels.get(topic)
            if channel is None:
                if not ring:
                    continue
                channel = self._channels[topic] = _Channel()
            if ring or channel.subscribers:
                body = body or _body(event)
                self._deliver(channel, body, keep=ring)
        if self.relay is not None and type_ not in NOT_RELAYED and (ring or self.followed_elsewhere):
            self.relay(owner, body or _body(event), ring)
        self._relieve()
        return event

    def relayed(self, owner: str | None, body: bytes, *, ring: bool) -> None:
        """Fan out what another control plane has published: to those who follow its owner, or everything."""
        self._published += 1
        for topic in dict.fromkeys((owner, None)):
            channel = self._channels.get(topic)
            if channel is None and ring:
                channel = self._channels[topic] = _Channel()
            if channel is not None and (ring or channel.subscribers):
                self._deliver(channel, body, keep=ring)
        self._relieve()

    def tell_gap(self, missed: int) -> None:
        """Tell those who follow an owner or the fleet that so many events of other control planes never came."""
        body = _notice("gap", data={"missed": missed})
        for topic, channel in list(self._channels.items()):
            if _is_fleets(topic):
                self._deliver(channel, body, keep=True)
        self._relieve()

    def subscribe(
        self, *, instance_id: UUID | None = None, owner: str | None = None, last_event_id: str | None = None
    ) -> Subscription:
        """Open a stream: `connected`, then the replay (or a `gap`), then what happens from now on.

        Args:
            instance_id: One instance's stream; else the fleet's.
            owner: Whose fleet; None is everybody's, for administrators.
            last_event_id: The id of the last event that the reader saw.
        """
        topic: Topic = instance_id if instance_id is not None else owner
        if self._closed:
            ended = Subscription(topic, self, 0)
            ended.closed = True
            return ended
        channel = self._channels.setdefault(topic, _Channel())
        newest = channel.ring.last
        known = self._number(last_event_id, newest) if last_event_id else newest
        start = known or 0  # whatever breaks the stream from here on, the reader comes back to this number
        subscription = Subscription(topic, self, start)
        self._word(subscription, "connected", start, instance_id)
        replay = channel.ring.after(start)
        missed = replay.missed if known is not None else None
        if missed != 0:
            self._word(subscription, "gap", newest - len(replay.frames), instance_id, {"missed": missed})
        for frame in replay.frames:
            subscription.force(frame, newest)
        subscription.grant()
        channel.subscribers.add(subscription)
        self._subscribers += 1
        self._followers += _is_fleets(topic)
        self._relieve()
        return subscription

    def publish_live(self, type_: str, topics: Iterable[WireOf], *, instance_id: UUID, data: Mapping[str, Any]) -> None:
        """Fan out one event to those who listen to live topics now, and to nobody else; it is kept nowhere."""
        self._published += 1
        body: bytes | None = None
        for topic in topics:
            channel = self._channels.get(topic)
            if channel is not None:
                body = body or _notice(type_, instance_id, data)
                self._deliver(channel, body, keep=False)
        self._relieve()

    def subscribe_live(self, topic: WireOf, *, is_back: bool = False) -> Subscription:
        """Open a live stream: `connected`, then what happens from now on.

        Args:
            topic: What of.
            is_back: The reader had such a stream before. What it missed is gone, and nobody knows how much that is:
                it is told of a `gap`.
        """
        subscription = Subscription(topic, self, 0)
        if self._closed:
            subscription.closed = True
            return subscription
        self._word(subscription, "connected", 0, topic.instance_id)
        if is_back:
            self._word(subscription, "gap", 0, topic.instance_id, {"missed": None})
        self._channels.setdefault(topic, _Channel()).subscribers.add(subscription)
        self._subscribers += 1
        self._relieve()
        return subscription

    def has_subscribers(self, topic: Topic) -> bool:
        """Whether anybody listens, here or elsewhere: worth asking before an event that is not kept."""
        channel = self._channels.get(topic)
        return bool(channel and channel.subscribers) or (self.followed_elsewhere and _is_fleets(topic))

    @property
    def is_followed(self) -> bool:
        """Whether anybody follows an owner or the fleet here."""
        return self._followers > 0

    def forget_topic(self, topic: UUID | str) -> None:
        """An instance, or an owner, is gone: end its streams and drop its ring."""
        channel = self._channels.pop(topic, None)
        if channel is not None:
            self._buffered -= channel.ring.size_bytes
            channel.ring.clear()
            for subscription in list(channel.subscribers):
                subscription.close()

    def heartbeat(self) -> None:
        """Push one `heartbeat` to everybody; it is not numbered."""
        body = _notice("heartbeat")
        for channel in list(self._channels.values()):
            frame = self._frame(body, channel.ring.last)
            for subscription in list(channel.subscribers):
                if not subscription.push(frame, channel.ring.last):
                    self._cut(subscription)

    async def run_heartbeats(self) -> None:
        """Service loop."""
        while True:
            await trio.sleep(HEARTBEAT_S)
            self.heartbeat()

    def close(self) -> None:
        """Tell every subscriber `shutdown` and end its stream; later subscriptions end at once."""
        self._closed = True
        for channel in list(self._channels.values()):
            for subscription in list(channel.subscribers):
                self._word(subscription, "shutdown", channel.ring.last)
                subscription.close()

    def statistics(self) -> HubStatistics:
        return HubStatistics(
            topics=len(self._channels),
            subscribers=self._subscribers,
            buffered_bytes=self._buffered,
            published=self._published,
            lagged=self._lagged,
        )

    def _frame(self, body: bytes, number: int) -> bytes:
        return b"id: %b-%d\ndata: %b\n\n" % (self.epoch.encode(), number, body)

    def _word(
        self,
        subscription: Subscription,
        type_: str,
        number: int,
        instance_id: UUID | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Tell one subscriber something about its stream."""
        subscription.force(self._frame(_notice(type_, instance_id, data), number), number)

    def _deliver(self, channel: _Channel, body: bytes, *, keep: bool) -> None:
        # An event outside the ring repeats the newest number: a reader that returns with it has missed nothing numbered.
        number = channel.ring.last + 1 if keep else channel.ring.last
        frame = self._frame(body, number)
        if keep:
            before = channel.ring.size_bytes
            channel.ring.append(frame)
            self._buffered += channel.ring.size_bytes - before
        for subscription in list(channel.subscribers):
            if not subscription.push(frame, number):
                self._cut(subscription)

    def _number(self, last_event_id: str, newest: int) -> int | None:
        """The number in an id of ours; None for an id of another life, or one that was never given out."""
        epoch, _, number = last_event_id.rpartition("-")
        if epoch != self.epoch or not number.isascii() or not number.isdigit() or len(number) > NUMBER_MAX_DIGITS:
            return None
        return int(number) if int(number) <= newest else None

    def _cut(self, subscription: Subscription) -> None:
        """What is queued goes too: it is in the ring for when the reader returns, and the memory is needed now."""
        self._lagged += 1
        subscription.clear()
        self._word(subscription, "lagged", subscription.reached)
        subscription.close()

    def _relieve(self) -> None:
        """Come back under the bound."""
        while self._buffered > self.max_bytes and self._give_way():
            pass

    def _give_way(self) -> bool:
        """Cut the subscriber that holds most, or halve the largest ring if that holds more; False if nothing is held."""
        queues = [s for c in self._channels.values() for s in c.subscribers if s.queued_bytes]
        slowest = max(queues, key=lambda s: s.queued_bytes, default=None)
        ring = max((c.ring for c in self._channels.values()), key=lambda r: r.size_bytes, default=None)
        if slowest is not None and (ring is None or slowest.queued_bytes >= ring.size_bytes):
            self._cut(slowest)
            return True
        if ring is None or not ring.size_bytes:
            return False
        before = ring.size_bytes
        for _ in range((len(ring) + 1) // 2):
            ring.drop_oldest()
        self._buffered -= before - ring.size_bytes
        return True

    def _forget(self, subscription: Subscription) -> None:
        channel = self._channels.get(subscription.topic)
        if channel is not None and subscription in channel.subscribers:
            channel.subscribers.discard(subscription)
            if isinstance(subscription.topic, WireOf) and not channel.subscribers:
                del self._channels[subscription.topic]
        self._subscribers -= 1
        self._followers -= _is_fleets(subscription.topic)


def _is_fleets(topic: Topic) -> bool:
    """Whether it is an owner's, or everything."""
    return topic is None or isinstance(topic, str)


def _body(event: Event) -> bytes:
    """The `data:` of a frame, as in the founding README: the type first, the event's own members flat beside it."""
    members: dict[str, Any] = {"type": event.type}
    if event.instance_id is not None:
        members["instance_id"] = str(event.instance_id)
    if event.owner is not None and event.type not in PER_INSTANCE_ONLY:  # an instance's own readers know whose it is
        members["owner"] = event.owner
    members["timestamp"] = event.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    try:
        return encode(members | dict(event.data))
    except (TypeError, ValueError, RecursionError):
        # A child can nest its notification so deep that it decodes and does not encode; publishing never fails.
        return encode(members | {"unencodable": True})


def _notice(type_: str, instance_id: UUID | None = None, data: Mapping[str, Any] | None = None) -> bytes:
    return _body(Event(at=datetime.now(UTC), type=type_, instance_id=instance_id, owner=None, data=data or {}))
