"""What happens to instances of one control plane, told to the others: events over a channel of Redis.

The channel is named after the database, by the key that all its control planes
share: another Corral on the same Redis has another. Nothing crosses that is not
in the event streams. Each message is sealed (HMAC) with a key that is derived from
the same one: whoever reaches Redis can read, hold back and repeat messages, but
write none; one with a wrong seal is dropped and counted. Events of a user whom this
node does not know (yet) go to those who follow everything, and are kept for nobody else.

Redis promises nothing here, and nobody waits for it: what was lost is counted
(`core.relay`), and readers are told of a `gap`. Every node speaks every `BEAT_S`,
so that a loss is noticed without a next event, and so that a connection that
hears nothing, not even its own node, is known to be dead.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from math import inf
from typing import TYPE_CHECKING, Any

import redis.asyncio as redis_asyncio
import trio
import trio_asyncio
from attrs import define, field, frozen
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from controlplane.core.relay import Hearing, Message, Outbox, opened, read, sealed, written

if TYPE_CHECKING:
    from uuid import UUID

    from controlplane.hub import Hub

log = logging.getLogger("corral.bus")

BEAT_S = 2.0
"""Between two words of a node that has nothing to tell."""
LOOK_S = 0.25
"""How soon the others hear that somebody has begun to follow the fleet here."""
SILENCE_S = 3 * BEAT_S
"""Who has heard nothing for so long, not even the own node, listens to nothing."""
PUBLISH_S = 1.0
"""Bound of one message to Redis, and of the way there."""
RETRY_MIN_S, RETRY_MAX_S = 0.1, 2.0
"""Between attempts while Redis is away, doubling."""
WARN_EVERY_S = 60.0
"""Between two lines of the log about wrong seals."""
CLOSE_S = 1.0
TROUBLES = (RedisError, OSError, TimeoutError, asyncio.CancelledError)


def channel_of(key: bytes, database: str) -> str:
    """The channel of one database: by its own identity, and the key of those who may know."""
    return "corral:events:" + hmac.new(key, b"events of " + database.encode(), hashlib.sha256).hexdigest()[:32]


def seal_of(key: bytes, database: str) -> bytes:
    """The key of the seals on that channel, which tells nothing of the one it is derived from."""
    return hmac.digest(key, b"seal of events of " + database.encode(), "sha256")


@frozen(kw_only=True)
class BusStatistics:
    """How the bus does; counts since it was opened."""

    available: bool
    sent: int
    heard: int
    missed: int
    """Events of others that never came."""
    waiting: int
    refused: int
    """Messages with a wrong seal: a stranger's, or of a control plane with another SECRET_KEY or of an older version."""


@define(eq=False)
class Bus:
    """Made by `open_bus`."""

    hub: Hub
    _loop: trio_asyncio.BaseTrioEventLoop
    _client: Any
    _channel: str
    _node: str
    _seal: bytes = field(repr=False)
    _knows: Callable[[str], bool]
    _outbox: Outbox = field(init=False)
    _hearing: Hearing = field(factory=Hearing, init=False)
    _followed_at: dict[str, float] = field(factory=dict, init=False)
    """When a node last said that it has followers, in Trio time."""
    _wake: trio.Event = field(factory=trio.Event, init=False)
    _away: bool = field(default=False, init=False)
    _sent: int = field(default=0, init=False)
    _heard: int = field(default=0, init=False)
    _missed: int = field(default=0, init=False)
    _refused: int = field(default=0, init=False)
    _quiet_until: float = field(default=-inf, init=False)

    def __attrs_post_init__(self) -> None:
        self._outbox = Outbox(self._node, secrets.token_hex(4))
        self.hub.relay = self._put

    def statistics(self) -> BusStatistics:
        """How the bus does."""
        return BusStatistics(
            available=not self._away,
            sent=self._sent,
            heard=self._heard,
            missed=self._missed,
            waiting=len(self._outbox),
            refused=self._refused,
        )

    def _put(self, owner: str | None, body: bytes, ring: bool) -> None:
        self._outbox.put(owner, body, ring=ring)
        self._wake.set()

    # -- out

    async def speak(self) -> None:
        """Service loop: send what waits, and a word now and then."""
        due, told, delay = 0.0, False, RETRY_MIN_S
        while True:
            with trio.move_on_after(LOOK_S):
                await self._wake.wait()
            self._wake = trio.Event()
            now = trio.current_time()
            self._forget_followers(now)
            listens = self.hub.is_followed
            if not len(self._outbox) and listens == told and now < due:
                continue
            if await self._send(listens=listens):
                due, told, delay = now + BEAT_S, listens, RETRY_MIN_S
                if len(self._outbox):
                    self._wake.set()
                continue
            await trio.sleep(delay)
            delay = min(RETRY_MAX_S, delay * 2)

    async def _send(self, *, listens: bool) -> bool:
        """One message. While Redis is known to be away, only a word without events goes ahead: they can wait for it."""
        if self._away and not await self._publish(Message(self._outbox.head(listens=listens))):
            return False
        return await self._publish(self._outbox.take(listens=listens))

    async def _publish(self, message: Message) -> bool:
        data = sealed(written(message), self._seal)
        problem = f"no answer within {PUBLISH_S:g} s"
        with trio.move_on_after(PUBLISH_S):
            try:
                await trio_asyncio.aio_as_trio(self._client.publish, loop=self._loop)(self._channel, data)
            except TROUBLES as error:
                problem = _reason(error)
            else:
                self._sent += len(message.events)
                self._note(None)
                return True
        self._note(problem)
        return False

    def _note(self, problem: str | None) -> None:
        if self._away is not (problem is not None):
            self._away = problem is not None
            log.warning("events of other control planes do not come through: %s", problem) if problem else log.warning(
                "events of other control planes come through again"
            )

    # -- in

    async def hear(self) -> None:
        """Service loop: take what comes, on a connection that is replaced when it is lost."""
        delay = RETRY_MIN_S
        while True:
            began = trio.current_time()
            with suppress(*TROUBLES):
                await trio_asyncio.aio_as_trio(self._hear_once, loop=self._loop)()
            delay = RETRY_MIN_S if trio.current_time() - began > RETRY_MAX_S else min(RETRY_MAX_S, delay * 2)
            await trio.sleep(delay)

    async def _hear_once(self) -> None:
        """Until the connection is lost, or nothing is heard on it (asyncio)."""
        pubsub = self._client.pubsub()
        try:
            await asyncio.wait_for(pubsub.subscribe(self._channel), PUBLISH_S)
            while (message := await pubsub.get_message(timeout=SILENCE_S)) is not None:
                if message["type"] == "message":
                    self._take(message["data"])
        finally:
            with suppress(*TROUBLES):
                await asyncio.wait_for(pubsub.aclose(), CLOSE_S)

    def _take(self, data: bytes) -> None:
        inside = opened(data, self._seal)
        if inside is None:
            self._note_refused()
            return
        message = read(inside)
        if message is None or message.head.node == self._node:
            return
        missed = self._hearing.missed(message)
        if missed:
            self._missed += missed
            self.hub.tell_gap(missed)
        for event in message.events:
            self._heard += 1
            owner = event.owner if event.owner is not None and self._knows(event.owner) else None
            self.hub.relayed(owner, event.body, ring=event.ring)
        if message.head.listens:
            self._followed_at[message.head.node] = trio.current_time()
        else:
            self._followed_at.pop(message.head.node, None)
        self.hub.followed_elsewhere = bool(self._followed_at)

    def _note_refused(self) -> None:
        self._refused += 1
        if trio.current_time() >= self._quiet_until:
            self._quiet_until = trio.current_time() + WARN_EVERY_S
            log.warning("messages with a wrong seal come over Redis, and are dropped: %d so far", self._refused)

    def _forget_followers(self, now: float) -> None:
        """A node that says nothing any more follows nothing."""
        for node in [node for node, at in self._followed_at.items() if now - at > SILENCE_S]:
            del self._followed_at[node]
        self.hub.followed_elsewhere = bool(self._followed_at)

    async def settle(self) -> None:
        """Once: who is heard for the first time after this has come up since, and its first event is its number 1."""
        await trio.sleep(SILENCE_S)
        self._hearing.settled = True

    async def close(self) -> None:
        """Send what waits, if that is quick, and close the connections."""
        self.hub.relay = None
        with trio.move_on_after(CLOSE_S, shield=True):
            while len(self._outbox) and not self._away and await self._send(listens=False):
                pass
            with suppress(*TROUBLES):
                await trio_asyncio.aio_as_trio(self._client.aclose, loop=self._loop)()


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"


@asynccontextmanager
async def open_bus(
    url: str, hub: Hub, *, channel: str, seal: bytes, node_id: UUID, knows: Callable[[str], bool]
) -> AsyncIterator[Bus]:
    """Relay the hub's events to and from the others; does not wait for Redis. An asyncio loop must be open around it.

    Args:
        url: As for the cache, which has checked it.
        hub: Whose events.
        channel: From `channel_of`.
        seal: From `seal_of`.
        node_id: This node's.
        knows: Whether there is a user of this name.
    """
    loop = trio_asyncio.current_loop.get()
    assert loop is not None
    client = redis_asyncio.Redis.from_url(
        url, socket_connect_timeout=PUBLISH_S, socket_timeout=PUBLISH_S, retry=Retry(NoBackoff(), 1)
    )
    bus = Bus(hub, loop, client, channel, str(node_id), seal, knows)
    try:
        async with trio.open_nursery() as nursery:
            for service in (bus.speak, bus.hear, bus.settle):
                nursery.start_soon(service)
            yield bus
            nursery.cancel_scope.cancel()
    finally:
        await bus.close()
