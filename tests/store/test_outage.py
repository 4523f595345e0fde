"""Postgres away, frozen, back again, full or read-only: bounded, told once, mended without a restart."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from uuid import uuid4

import psutil
import pytest
import trio
import trio.testing

from controlplane.config import ConfigError
from controlplane.errors import StorageUnavailable
from controlplane.secretbox import SecretBox
from controlplane.store.filters import LogFilter
from controlplane.store.postgres import open_store
from controlplane.store.values import Batch, Retention
from tests.store.rows import SECRET_KEY, instance, line

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from controlplane.store.postgres import PostgresStore
    from tests.services import Postgres

BOUND_S = 8.0
"""What every caller is promised."""
AT_ONCE_S = 1.0
"""An answer without asking takes microseconds; this allows for a busy machine."""
RECOVERS_S = 30.0


async def until_available(store: PostgresStore) -> None:
    with trio.fail_after(RECOVERS_S):
        while not store.statistics().available:
            await trio.sleep(0.02)


async def until_away(store: PostgresStore) -> None:
    with trio.fail_after(RECOVERS_S):
        while store.statistics().available:
            try:
                await store.ping()
            except StorageUnavailable:
                await trio.sleep(0.01)


async def timed(call: Callable[[], Awaitable[object]]) -> float:
    """How long a call took to raise StorageUnavailable."""
    started = trio.current_time()
    with pytest.raises(StorageUnavailable) as caught:
        await call()
    assert caught.value.retry_after_s is not None
    return trio.current_time() - started


async def test_a_killed_postgres_is_found_again_without_a_restart(
    own_postgres: Postgres, own_store: PostgresStore, caplog: pytest.LogCaptureFixture
) -> None:
    made = instance()
    await own_store.add_instance(made, quota=10)

    own_postgres.kill()
    await until_away(own_store)
    statistics = own_store.statistics()
    assert not statistics.writable
    assert statistics.away_since is not None
    assert "cannot be reached" in str(statistics.problem)
    calls = (
        own_store.users,
        own_store.ping,
        lambda: own_store.add_instance(instance("b"), quota=10),
        lambda: own_store.add_revision(made),
        lambda: own_store.switch_revision(made),
        lambda: own_store.revisions(made.id),
    )
    for call in calls:
        assert await timed(call) < AT_ONCE_S
    assert await timed(lambda: own_store.retain(Retention())) < AT_ONCE_S

    own_postgres.start()
    await until_available(own_store)
    assert await own_store.instances() == [made]
    statistics = own_store.statistics()
    assert (statistics.available, statistics.writable, statistics.problem) == (True, True, None)
    told = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len([message for message in told if "away" in message]) == 1, "once, not once per call"
    assert len([message for message in told if "back" in message]) == 1


async def test_calls_under_way_when_postgres_is_killed_fail_soon(
    own_postgres: Postgres, own_store: PostgresStore
) -> None:
    outcomes: list[str] = []

    async def call() -> None:
        try:
            while True:
                await own_store.users()
        except StorageUnavailable:
            outcomes.append("unavailable")

    with trio.fail_after(BOUND_S):
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(call)
            await own_store.ping()
            own_postgres.kill()
    assert outcomes == ["unavailable"] * 20


async def test_one_backend_that_is_ended_costs_nothing(own_postgres: Postgres, own_store: PostgresStore) -> None:
    await own_store.ping()
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'corral'"
    assert own_postgres.sql("postgres", others).strip() == "t"
    for _ in range(4):
        await own_store.users()
    assert own_store.statistics().available


async def test_a_frozen_postgres_answers_nobody_late_and_everybody_at_once_later(
    own_postgres: Postgres, own_store: PostgresStore
) -> None:
    await own_store.ping()
    own_postgres.freeze()
    times: list[float] = []

    async def call(number: int) -> None:
        one = instance(f"i{number}")
        times.append(await timed(lambda: own_store.add_instance(one, quota=1000)))

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(call, number)
    assert len(times) == 100
    assert max(times) < BOUND_S
    with trio.fail_after(RECOVERS_S):
        while own_store.statistics().available:  # found out in the background: nobody calls
            await trio.sleep(0.02)
    assert await timed(own_store.users) < AT_ONCE_S
    assert await timed(lambda: own_store.write(Batch(logs=(line(uuid4()),)))) < AT_ONCE_S

    own_postgres.thaw()
    await until_available(own_store)
    assert len(await own_store.users()) == 1
    assert own_store.statistics().busy == 0


async def test_a_cancelled_caller_leaves_a_frozen_postgres_at_once(
    own_postgres: Postgres, own_store: PostgresStore
) -> None:
    await own_store.ping()
    own_postgres.freeze()
    started = trio.current_time()
    with trio.move_on_after(0.2) as scope:
        await own_store.add_instance(instance(), quota=10)
    assert scope.cancelled_caught
    assert trio.current_time() - started < 0.2 + AT_ONCE_S
    own_postgres.thaw()
    await until_available(own_store)
    await own_store.ping()


async def test_cancelled_calls_leave_no_connection_behind_and_mix_nothing_up(store: PostgresStore) -> None:
    made = [instance(f"i{number}") for number in range(5)]
    for one in made:
        await store.add_instance(one, quota=10)
        await store.write(Batch(logs=(line(one.id, one.name),)))

    async def leave(number: int) -> None:
        with trio.move_on_after(number * 0.0003):
            await store.logs(made[number % 5].id, LogFilter())

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(leave, number)
        for one in made * 4:
            assert [row.message for row in (await store.logs(one.id, LogFilter())).rows] == [one.name]
    assert store.statistics().busy == 0


async def test_the_store_closes_in_time_while_postgres_is_frozen(own_postgres: Postgres) -> None:
    with trio.fail_after(BOUND_S):
        async with open_store(own_postgres.url("postgres"), SecretBox(SECRET_KEY), wait_s=5) as store:
            await store.ping()
            own_postgres.freeze()


async def test_a_slow_query_is_given_up_without_taking_postgres_for_lost(
    own_postgres: Postgres, own_store: PostgresStore
) -> None:
    """The lock stands for any statement that takes too long: the server ends it, and is known to be there."""
    async with trio.open_nursery() as nursery:
        hold = "BEGIN; LOCK TABLE mcp_users; SELECT pg_sleep(30)"
        nursery.start_soon(lambda: trio.to_thread.run_sync(_ignore, own_postgres, hold, abandon_on_cancel=True))
        await trio.to_thread.run_sync(_wait_locked, own_postgres)
        assert await timed(own_store.users) < BOUND_S
        assert own_store.statistics().available
        await own_store.tokens()
        own_postgres.sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN%'")
    assert len(await own_store.users()) == 1


def _ignore(postgres: Postgres, statements: str) -> None:
    try:
        postgres.sql("postgres", statements)
    except RuntimeError:
        return


def _wait_locked(postgres: Postgres) -> None:
    while postgres.sql("postgres", "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock'").strip() == "0":
        pass


async def test_a_read_only_postgres_reads_on_and_refuses_writes_with_the_reason(
    own_postgres: Postgres, own_store: PostgresStore, caplog: pytest.LogCaptureFixture
) -> None:
    def read_only(word: str) -> None:
        own_postgres.sql("postgres", f"ALTER SYSTEM SET default_transaction_read_only = {word}")
        own_postgres.sql("postgres", "SELECT pg_reload_conf()")

    async def until_refused() -> None:
        while True:
            try:
                await own_store.write(Batch(logs=(line(uuid4()),)))
            except StorageUnavailable:
                return

    async def until_accepted() -> None:
        while not own_store.statistics().writable:
            try:
                await own_store.write(Batch(logs=(line(uuid4()),)))
            except StorageUnavailable:
                await trio.sleep(0.01)

    read_only("on")
    with trio.fail_after(RECOVERS_S):
        await until_refused()
    for _ in range(3):
        assert await timed(lambda: own_store.add_instance(instance(), quota=1)) < BOUND_S
    assert len(await own_store.users()) == 1
    statistics = own_store.statistics()
    assert (statistics.available, statistics.writable) == (True, False)
    assert "read-only" in str(statistics.problem)
    assert len([record for record in caplog.records if "refuses to write" in record.message]) == 1

    read_only("off")
    with trio.fail_after(RECOVERS_S):
        await until_accepted()
    assert own_store.statistics().problem is None


async def test_a_full_house_is_an_outage_with_its_reason(own_postgres: Postgres) -> None:
    """max_connections reached by others: no connection for us."""
    own_postgres.sql("postgres", "CREATE ROLE guest LOGIN CONNECTION LIMIT 0; GRANT ALL ON SCHEMA public TO guest")
    url = own_postgres.url("postgres").replace("corral@", "guest@")
    with trio.fail_after(BOUND_S), pytest.raises(StorageUnavailable, match="too many connections"):
        async with open_store(url, SecretBox(SECRET_KEY), wait_s=1):
            pass


async def test_a_start_waits_for_a_database_that_comes_later(own_postgres: Postgres) -> None:
    own_postgres.kill()
    async with trio.open_nursery() as nursery:
        opened = trio.Event()

        async def start() -> None:
            async with open_store(own_postgres.url("postgres"), SecretBox(SECRET_KEY), wait_s=30) as store:
                await store.ping()
                opened.set()

        nursery.start_soon(start)
        await trio.testing.wait_all_tasks_blocked(0.3)
        assert not opened.is_set()
        own_postgres.start()
        with trio.fail_after(RECOVERS_S):
            await opened.wait()


@pytest.mark.parametrize("frozen", [False, True])
async def test_a_start_without_database_ends_with_the_reason(own_postgres: Postgres, frozen: bool) -> None:
    if frozen:
        own_postgres.freeze()
    else:
        own_postgres.kill()
    with trio.fail_after(BOUND_S), pytest.raises(StorageUnavailable, match=r"no database within 1 s: Postgres"):
        async with open_store(own_postgres.url("postgres"), SecretBox(SECRET_KEY), wait_s=1):
            pass


@pytest.mark.parametrize("url", ["mysql://localhost/x", "postgresql://u:hunter2@h:port/x", "nonsense"])
async def test_a_url_that_cannot_be_used_is_a_configuration_error_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match="DATABASE_URL") as caught:
        async with open_store(url, SecretBox(SECRET_KEY), wait_s=1):
            pass
    assert "hunter2" not in str(caught.value)


async def test_what_the_body_raises_comes_out_as_it_is(database_url: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_store(database_url, SecretBox(SECRET_KEY), wait_s=5):
            _ = 1 / 0


async def test_a_table_that_was_taken_away_is_an_outage_and_not_a_crash(
    own_postgres: Postgres, own_store: PostgresStore
) -> None:
    own_postgres.sql("postgres", "ALTER TABLE mcp_users RENAME TO hidden")
    assert await timed(own_store.users) < BOUND_S
    own_postgres.sql("postgres", "ALTER TABLE hidden RENAME TO mcp_users")
    assert len(await own_store.users()) == 1


async def test_closing_a_store_whose_postgres_was_killed_a_moment_ago_is_no_error(
    own_postgres: Postgres, box: SecretBox
) -> None:
    with trio.fail_after(BOUND_S):
        async with open_store(own_postgres.url("postgres"), box, wait_s=5) as store:
            await store.ping()
            assert own_postgres.process is not None
            backends = psutil.Process(own_postgres.process.pid).children()
            own_postgres.kill()
            psutil.wait_procs(backends, timeout=BOUND_S)  # blocks the loop: the pool has not seen it
