"""The cache on a real Valkey, and without one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from hashlib import sha256
from uuid import UUID, uuid4

import pytest
import trio
import trio.testing

from controlplane import cache as subject
from controlplane.cache import Cache, open_cache
from controlplane.config import ConfigError
from controlplane.model import Listing, Section
from tests.services import Valkey, own_valkey, redis_url, valkey_server

__all__ = ["own_valkey", "redis_url", "valkey_server"]

ITEMS = b'[{"name":"echo", "x":1.50,"inputSchema":{"type":"object"}},{"name":"\\ud83d"}]'
SEEN_AT = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
RECOVERS_S = 10.0
HANGS_S = 30.0
"""A hundred times `CALL_S` and more: tells a call that hangs from a machine that is busy."""


TOOLS = Section.TOOLS


def listing(instance_id: UUID, items: bytes = ITEMS) -> Listing:
    return Listing(instance_id=instance_id, section=TOOLS, items=items, digest=sha256(items).digest(), seen_at=SEEN_AT)


@pytest.fixture
async def cache(redis_url: str) -> AsyncIterator[Cache]:
    async with open_cache(redis_url) as opened:
        yield opened


@pytest.fixture
async def own_cache(own_valkey: Valkey) -> AsyncIterator[Cache]:
    async with open_cache(own_valkey.url) as opened:
        await opened.put_listing(listing(uuid4()), 60)  # a connection is in the pool, as in a running control plane
        yield opened


async def until_available(cache: Cache) -> None:
    with trio.fail_after(RECOVERS_S):
        while not cache.statistics().available:
            await trio.sleep(0.02)


async def test_a_catalogue_comes_back_as_it_was_put(cache: Cache) -> None:
    one, other = uuid4(), uuid4()
    await cache.put_listing(listing(one), 60)

    assert await cache.get_listing(one, TOOLS) == listing(one)
    assert await cache.get_listing(other, TOOLS) is None
    statistics = cache.statistics()
    assert (statistics.hits, statistics.misses, statistics.errors) == (1, 1, 0)


async def test_every_key_expires(cache: Cache, valkey_server: Valkey) -> None:
    await cache.put_listing(listing(uuid4()), 60)
    await cache.allow("deploys:ada", 10)

    keys = [word for word in valkey_server.command("KEYS", "*").decode().split("\r\n") if word.startswith("corral:")]
    assert len(keys) == 2
    for key in keys:
        assert 0 < int(valkey_server.command("TTL", key).decode().strip(":\r\n")) <= 120


async def test_a_catalogue_is_gone_after_its_time(cache: Cache) -> None:
    instance_id = uuid4()
    await cache.put_listing(listing(instance_id), 0.001)
    with trio.fail_after(5):
        while await cache.get_listing(instance_id, TOOLS) is not None:
            await trio.sleep(0.005)


async def test_a_dropped_catalogue_is_gone(cache: Cache) -> None:
    instance_id = uuid4()
    await cache.put_listing(listing(instance_id), 60)
    await cache.drop_listings(instance_id)
    assert await cache.get_listing(instance_id, TOOLS) is None


async def test_a_catalogue_that_is_too_large_is_not_kept(cache: Cache, valkey_server: Valkey) -> None:
    await cache.put_listing(listing(uuid4(), b'[{"name":"%b"}]' % (b"x" * 2**20)), 60)
    assert valkey_server.command("DBSIZE") == b":0\r\n"


async def test_a_bucket_lets_as_many_through_as_it_holds(cache: Cache) -> None:
    allowed = [await cache.allow("deploys:ada", 5) for _ in range(8)]
    assert allowed == [True] * 5 + [False] * 3
    assert await cache.allow("deploys:bob", 5) is True


async def test_a_bucket_fills_up_again(cache: Cache) -> None:
    while await cache.allow("deploys:ada", 600):
        pass
    with trio.fail_after(5):  # ten a second
        while not await cache.allow("deploys:ada", 600):
            await trio.sleep(0.01)


async def test_two_control_planes_share_a_bucket(redis_url: str, cache: Cache) -> None:
    async with open_cache(redis_url) as other:
        allowed = [await one.allow("deploys:ada", 4) for one in (cache, other) * 3]
    assert allowed.count(True) == 4


@pytest.mark.parametrize(
    "value",
    [
        "not json",
        "[]",
        "2026-11-22T12:00:00+00:00",
        "2026-11-22T12:00:00+00:00\nnot json",
        "2026-11-22T12:00:00+00:00\n{}",
        "2026-11-22T12:00:00+00:00\n[1]",
        '2026-11-22T12:00:00+00:00\n["x"]',
        "2026-11-22T12:00:00\n[]",
        "yesterday\n[]",
        "\x00",
    ],
)
async def test_a_value_that_is_no_catalogue_is_a_miss_and_is_removed(
    cache: Cache, valkey_server: Valkey, value: str
) -> None:
    instance_id = uuid4()
    valkey_server.command("SET", f"corral:catalogue:1:tools:{instance_id}", value)

    assert await cache.get_listing(instance_id, TOOLS) is None
    assert valkey_server.command("EXISTS", f"corral:catalogue:1:tools:{instance_id}") == b":0\r\n"


async def test_another_type_under_our_keys_is_a_miss_and_is_removed(cache: Cache, valkey_server: Valkey) -> None:
    instance_id = uuid4()
    valkey_server.command("LPUSH", f"corral:catalogue:1:tools:{instance_id}", "x")
    valkey_server.command("SET", "corral:rate:deploys:ada", "x")

    assert await cache.get_listing(instance_id, TOOLS) is None
    assert await cache.allow("deploys:ada", 5) is None
    assert cache.statistics().available
    assert cache.statistics().errors == 2

    await cache.put_listing(listing(instance_id), 60)
    assert await cache.get_listing(instance_id, TOOLS) == listing(instance_id)
    assert await cache.allow("deploys:ada", 5) is True


async def test_a_flushed_redis_is_a_miss_and_nothing_more(cache: Cache, valkey_server: Valkey) -> None:
    instance_id = uuid4()
    await cache.put_listing(listing(instance_id), 60)
    await cache.allow("deploys:ada", 5)
    valkey_server.command("FLUSHALL")
    valkey_server.command("SCRIPT", "FLUSH")

    assert await cache.get_listing(instance_id, TOOLS) is None
    assert await cache.allow("deploys:ada", 5) is True
    assert cache.statistics().errors == 0


async def test_a_full_redis_is_no_error_to_the_caller(own_valkey: Valkey, own_cache: Cache) -> None:
    own_valkey.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    own_valkey.command("CONFIG", "SET", "maxmemory", "1")

    await own_cache.put_listing(listing(uuid4()), 60)
    assert await own_cache.allow("deploys:ada", 5) is None
    statistics = own_cache.statistics()
    assert statistics.available
    assert statistics.errors == 2
    assert statistics.problem is not None
    assert "OutOfMemory" in statistics.problem


async def test_a_stopped_redis_answers_not_known_at_once_and_is_found_again(
    own_valkey: Valkey, own_cache: Cache
) -> None:
    own_valkey.kill()
    with trio.fail_after(HANGS_S):
        for _ in range(20):
            assert await own_cache.get_listing(uuid4(), TOOLS) is None
            assert await own_cache.allow("deploys:ada", 5) is None
    assert not own_cache.statistics().available
    assert own_cache.statistics().problem is not None

    own_valkey.start()
    await until_available(own_cache)
    assert await own_cache.allow("deploys:ada", 5) is True
    assert own_cache.statistics().problem is None


async def test_a_restarted_redis_costs_at_most_a_moment(own_valkey: Valkey, own_cache: Cache) -> None:
    own_valkey.kill()
    own_valkey.start()
    instance_id = uuid4()
    with trio.fail_after(RECOVERS_S):
        while await own_cache.get_listing(instance_id, TOOLS) is None:
            await own_cache.put_listing(listing(instance_id), 60)
            await trio.sleep(0.01)


async def test_a_frozen_redis_holds_nobody_up(own_valkey: Valkey, own_cache: Cache) -> None:
    own_valkey.freeze()
    with trio.fail_after(HANGS_S):
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(own_cache.allow, "deploys:ada", 5)
    assert own_cache.statistics().errors == 100

    with trio.testing.assert_no_checkpoints():  # while it is known to be away it is not asked
        assert await own_cache.allow("deploys:ada", 5) is None
    assert own_cache.statistics().errors == 101

    own_valkey.thaw()
    await until_available(own_cache)
    assert await own_cache.allow("deploys:ada", 5) is True


async def test_a_return_is_met_by_few_connections(own_valkey: Valkey, own_cache: Cache) -> None:
    own_valkey.kill()
    async with trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(own_cache.get_listing, uuid4(), TOOLS)
    own_valkey.start()
    await until_available(own_cache)
    answer = own_valkey.command("INFO", "clients").decode()
    clients = int(answer.partition("connected_clients:")[2].split()[0])
    assert clients <= subject.MAX_CONNECTIONS + 1


async def test_a_redis_that_was_never_there_does_not_stop_the_start(tmp_path: object) -> None:
    async with open_cache(f"unix://{tmp_path}/nobody.sock") as cache:
        assert await cache.get_listing(uuid4(), TOOLS) is None
        assert not cache.statistics().available


async def test_leaving_is_bounded_while_redis_is_frozen(own_valkey: Valkey) -> None:
    with trio.fail_after(10):
        async with open_cache(own_valkey.url) as cache:
            assert await cache.allow("deploys:ada", 5) is True
            own_valkey.freeze()
            assert await cache.allow("deploys:ada", 5) is None


async def test_a_cancelled_caller_leaves_at_once_and_the_next_answer_is_right(cache: Cache) -> None:
    ids = [uuid4() for _ in range(20)]
    for number, instance_id in enumerate(ids):
        await cache.put_listing(listing(instance_id, b'[{"name":"%d"}]' % number), 60)

    async def ask_and_leave(instance_id: object, after_s: float) -> None:
        with trio.move_on_after(after_s):
            await cache.get_listing(instance_id, TOOLS)  # type: ignore[arg-type]

    async with trio.open_nursery() as nursery:
        for number, instance_id in enumerate(ids):
            nursery.start_soon(ask_and_leave, instance_id, number * 0.0002)
    for number, instance_id in enumerate(ids):
        assert await cache.get_listing(instance_id, TOOLS) == listing(instance_id, b'[{"name":"%d"}]' % number)


@pytest.mark.parametrize("url", ["http://localhost", "nonsense", "redis://host:notaport"])
async def test_a_url_that_cannot_be_used_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError, match="REDIS_URL"):
        async with open_cache(url):
            pass
