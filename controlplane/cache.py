"""What is quick to lose: what instances offer, and shared rate buckets, in Redis.

Redis failing is never an error here: a question is answered "not known" within
100 ms and counted. While it is known to be away it is not asked at all; one probe
in the background looks for it, so its return meets one connection and not a storm.
Every key expires. No token and no secret is ever put here, and what comes back is
not trusted further than its type.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar

import redis.asyncio as redis_asyncio
import trio
import trio_asyncio
from attrs import define, field, frozen
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from controlplane.config import ConfigError
from controlplane.core import rawjson
from controlplane.model import Listing, Section

if TYPE_CHECKING:
    from uuid import UUID

log = logging.getLogger(__name__)

CALL_S = 0.1
"""Bound of every call, connecting included: a healthy Redis answers in a millisecond."""
PROBE_S = 1.0
"""Bound of a probe, which nobody waits for."""
PROBE_MIN_S, PROBE_MAX_S = 0.1, 2.0
"""Between probes while Redis is away, doubling."""
MAX_CONNECTIONS = 8
"""Calls at once; more wait, within their 100 ms."""
LISTING_MAX_BYTES = 2**20
"""A larger listing is not kept: it would cost the others their place."""
LISTING_FORMAT = 1
"""Part of the key: what an older or newer Corral wrote in another form is not found."""
CLOSE_S = 1.0
BUCKET_EXPIRES_S = 120
"""A rate bucket fills up within a minute; after two it may as well not exist."""

PREFIX = "corral"

TAKE_FROM_BUCKET = """
local full = tonumber(ARGV[1])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local kept = redis.call('HMGET', KEYS[1], 'level', 'at')
local level = tonumber(kept[1]) or full
local at = tonumber(kept[2]) or now
level = math.min(full, level + math.max(0, now - at) * full / 60)
local allowed = 0
if level >= 1 then
    allowed = 1
    level = level - 1
end
redis.call('HSET', KEYS[1], 'level', tostring(level), 'at', string.format('%.6f', now))
redis.call('EXPIRE', KEYS[1], ARGV[2])
return allowed
"""
"""A token bucket that fills `full` per minute, by the server's clock: several control planes share it."""

T = TypeVar("T")


@frozen(kw_only=True)
class CacheStatistics:
    """How the cache does; counts since it was opened."""

    available: bool
    problem: str | None
    """What went wrong last, for an operator; None while all is well."""
    hits: int
    misses: int
    errors: int
    """Questions that Redis did not answer, or answered with an error."""


@define(eq=False)
class Cache:
    """Made by `open_cache`."""

    _loop: trio_asyncio.BaseTrioEventLoop
    _client: Any
    _prefix: str
    _problem: str | None = field(default=None, init=False)
    _away: bool = field(default=False, init=False)
    _doubt: trio.Event = field(factory=trio.Event, init=False)
    _writing: trio.Lock = field(factory=trio.Lock, init=False)
    """Listings are written one at a time: a fleet that starts at once must not take every connection for it."""
    _hits: int = field(default=0, init=False)
    _misses: int = field(default=0, init=False)
    _errors: int = field(default=0, init=False)

    async def get_listing(self, instance_id: UUID, section: Section) -> Listing | None:
        """What an instance offers in one section, as it was put; None if that is not known."""
        key = self._listing_key(instance_id, section)
        kept: bytes | None = await self._ask(key, self._client.get, key)
        listing = None if kept is None else _listing_of(instance_id, section, kept)
        if kept is not None and listing is None:
            self._note("a listing cannot be read")
            await self._ask(key, self._client.delete, key)
        if listing is None:
            self._misses += 1
        else:
            self._hits += 1
        return listing

    async def put_listing(self, listing: Listing, ttl_s: float) -> None:
        """Keep what an instance offers in one section for `ttl_s` seconds, if that is possible."""
        if len(listing.items) > LISTING_MAX_BYTES:
            return
        key = self._listing_key(listing.instance_id, listing.section)
        kept = listing.seen_at.isoformat().encode() + b"\n" + listing.items
        async with self._writing:
            await self._ask(key, self._client.set, key, kept, px=max(1, int(ttl_s * 1000)))

    async def drop_listings(self, instance_id: UUID) -> None:
        """Forget all that an instance offers."""
        keys = [self._listing_key(instance_id, section) for section in Section]
        async with self._writing:
            await self._ask(keys[0], self._client.delete, *keys)

    def _listing_key(self, instance_id: UUID, section: Section) -> str:
        return self._key(f"catalogue:{LISTING_FORMAT}:{section.value}", instance_id)

    async def allow(self, key: str, per_minute: int) -> bool | None:
        """Take one from a bucket that holds and gets `per_minute`; None if Redis cannot tell."""
        name = self._key("rate", key)
        allowed = await self._ask(name, self._client.eval, TAKE_FROM_BUCKET, 1, name, per_minute, BUCKET_EXPIRES_S)
        return None if allowed is None else bool(allowed)

    def statistics(self) -> CacheStatistics:
        """How the cache does."""
        return CacheStatistics(
            available=not self._away,
            problem=self._problem,
            hits=self._hits,
            misses=self._misses,
            errors=self._errors,
        )

    def _key(self, kind: str, name: object) -> str:
        return f"{self._prefix}:{kind}:{name}"

    async def _ask(self, key: str, command: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T | None:
        """Ask Redis within 100 ms; None if it does not answer."""
        if self._away:
            self._errors += 1
            return None
        with trio.move_on_after(CALL_S) as scope:
            try:
                answer = await self._cross(command, *args, **kwargs)
            except (RedisConnectionError, RedisTimeoutError, OSError, asyncio.CancelledError) as error:
                self._lost(_reason(error))
            except RedisError as error:
                self._note(_reason(error))
                await self._clear_wrong_type(key, error)
            else:
                self._problem = None
                return answer
        if scope.cancelled_caught:
            self._lost(f"no answer within {CALL_S * 1000:g} ms")
        return None

    async def _clear_wrong_type(self, key: str, error: RedisError) -> None:
        """Something else lies under our key, perhaps for ever: make room."""
        if str(error).startswith("WRONGTYPE"):
            with suppress(RedisError, OSError, asyncio.CancelledError):
                await self._cross(self._client.delete, key)

    async def _cross(self, command: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        answer: T = await trio_asyncio.aio_as_trio(command, loop=self._loop)(*args, **kwargs)
        return answer

    def _note(self, problem: str) -> None:
        self._errors += 1
        if problem != self._problem:
            log.warning("cache: %s", problem)
        self._problem = problem

    def _lost(self, problem: str) -> None:
        self._note(problem)
        self._away = True
        self._doubt.set()

    async def watch(self) -> None:
        """Look for a Redis that is away, alone, until it answers; runs as long as the cache is open."""
        while True:
            await self._doubt.wait()
            delay = PROBE_MIN_S
            while not await self._answers():
                await trio.sleep(delay)
                delay = min(PROBE_MAX_S, delay * 2)
            self._doubt = trio.Event()
            self._away, self._problem = False, None
            log.warning("cache: back")

    async def _answers(self) -> bool:
        with trio.move_on_after(PROBE_S):
            try:
                await self._cross(self._client.ping)
            except (RedisError, OSError, asyncio.CancelledError):
                return False
            return True
        return False

    async def close(self) -> None:
        """Close the connections; bounded."""
        with trio.move_on_after(CLOSE_S, shield=True):
            try:
                await self._cross(self._client.aclose)
            except (RedisError, OSError, asyncio.CancelledError) as error:
                log.debug("cache: %s", _reason(error))


def _listing_of(instance_id: UUID, section: Section, kept: bytes) -> Listing | None:
    """A listing as `put_listing` writes it: a time, a line break, and the items."""
    time, _, raw = kept.partition(b"\n")
    try:
        seen_at = datetime.fromisoformat(time.decode())
    except ValueError:
        return None
    listed = rawjson.items(raw)
    if listed is None or seen_at.tzinfo is None or not all(item.startswith(b"{") for item in listed):
        return None
    return Listing(instance_id=instance_id, section=section, items=raw, digest=sha256(raw).digest(), seen_at=seen_at)


def _reason(error: BaseException) -> str:
    """One line for an operator; Redis quotes no values in its errors."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"


@asynccontextmanager
async def open_cache(url: str, *, prefix: str = PREFIX) -> AsyncIterator[Cache]:
    """Open the cache; does not wait for Redis, and does not need it.

    Uses the asyncio loop that is open around it, or opens one.

    Args:
        url: redis://, rediss:// or unix://, with a password where one is needed.
        prefix: First part of every key, for several Corrals on one Redis.

    Raises:
        ConfigError: the URL cannot be used.
    """
    client = _client(url)
    async with _asyncio_loop() as loop:
        cache = Cache(loop, client, prefix)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cache.watch)
                yield cache
                nursery.cancel_scope.cancel()
        finally:
            await cache.close()


def _client(url: str) -> Any:
    try:
        pool = redis_asyncio.BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=CALL_S,
            socket_timeout=PROBE_S,
            socket_connect_timeout=PROBE_S,
            retry=Retry(NoBackoff(), 1),  # once, at once: a pooled connection may be from before a restart
        )
    except ValueError:
        raise ConfigError(
            ["REDIS_URL: expected redis://host:port, rediss://host:port or unix:///path/to/socket"]
        ) from None
    return redis_asyncio.Redis.from_pool(pool)


@asynccontextmanager
async def _asyncio_loop() -> AsyncIterator[trio_asyncio.BaseTrioEventLoop]:
    """The loop that is open around us, or one of our own; what nobody awaited there is logged, not raised."""
    loop = trio_asyncio.current_loop.get()
    if loop is not None and not loop.is_closed():
        loop.set_exception_handler(_log_stray)
        yield loop
        return
    async with trio_asyncio.open_loop() as loop:
        loop.set_exception_handler(_log_stray)
        yield loop


def _log_stray(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    log.debug("cache: %s (%r)", context.get("message"), context.get("exception"))
