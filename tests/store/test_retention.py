"""Forgetting: which partitions go (pure), and what a round does to a real database."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import trio

from controlplane.config import Config
from controlplane.store.filters import AuditFilter, LogFilter, MetricFilter
from controlplane.store.partitions import (
    AUDIT,
    DAYS_AHEAD,
    EVENTS,
    HISTORY,
    LOGS,
    METRICS,
    Partition,
    ahead,
    outdated,
    over_size,
)
from controlplane.store.retention import retain
from controlplane.store.values import Batch, Idempotency, Retention
from tests.store.rows import ago, audit_row, event, evidence, incarnation, instance, line, now, on_connection, sample

if TYPE_CHECKING:
    from controlplane.store.postgres import PostgresStore
    from tests.services import Postgres

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAYS = {LOGS: 7, METRICS: 2, EVENTS: 30, AUDIT: 90}


def day(number: int, table: str = LOGS) -> Partition:
    return Partition(date(2026, 11, 22) + timedelta(days=number), table)


@pytest.fixture
def database(database_url: str) -> str:
    return database_url.split("/")[3].split("?")[0]


def partitions(postgres: Postgres, database: str, table: str) -> list[str]:
    sql = f"SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = '{table}'::regclass ORDER BY 1"
    return postgres.sql(database, sql).split()


def test_a_partition_is_known_by_its_name() -> None:
    for table in HISTORY:
        partition = Partition(date(2026, 1, 9), table)
        assert Partition.named(partition.name) == partition
    for name in ("mcp_instance_logs", "mcp_users_20260101", "mcp_events_20261301", "mcp_events_2026010", "x"):
        assert Partition.named(name) is None


def test_a_day_ends_at_midnight_utc_wherever_the_time_was_written() -> None:
    almost = datetime(2026, 11, 22, 23, 59, 59, 999_999, tzinfo=UTC)
    assert Partition.of(LOGS, almost) == day(0)
    assert Partition.of(LOGS, almost + timedelta(microseconds=1)) == day(1)
    assert Partition.of(LOGS, datetime.fromisoformat("2026-11-23T01:30:00+02:00")) == day(0)


def test_today_and_the_days_ahead_are_wanted_of_each_table() -> None:
    wanted = ahead(NOON)
    assert len(wanted) == len(set(wanted)) == len(HISTORY) * (DAYS_AHEAD + 1)
    assert {day(0), day(DAYS_AHEAD), day(0, EVENTS)} < set(wanted)


def test_a_partition_goes_when_its_last_row_is_older_than_its_days() -> None:
    present = [day(n, table) for table in HISTORY for n in range(-100, 4)]
    gone = outdated(present, DAYS, NOON)
    assert max(p.day for p in gone if p.table == LOGS) == date(2026, 11, 14)
    assert max(p.day for p in gone if p.table == METRICS) == date(2026, 11, 19)
    assert max(p.day for p in gone if p.table == EVENTS) == date(2026, 10, 22)
    assert max(p.day for p in gone if p.table == AUDIT) == date(2026, 8, 23)


@pytest.mark.parametrize(
    ("sizes", "cap", "dropped"),
    [
        ([], 10, []),
        ([5], 10, []),
        ([50], 10, []),
        ([5, 5], 10, []),
        ([5, 5, 5], 10, [-2]),
        ([5, 5, 50], 10, [-2, -1]),
        ([100, 1, 1], 10, [-2]),
        ([0, 0, 50], 10, [-2, -1]),
    ],
)
def test_the_oldest_go_until_the_rest_fits_and_the_newest_stays(sizes: list[int], cap: int, dropped: list[int]) -> None:
    days = [day(n - len(sizes) + 1) for n in range(len(sizes))]
    assert over_size(list(zip(days, sizes, strict=True))[::-1], cap) == [day(n) for n in dropped]


def test_the_settings_arrive() -> None:
    config = Config(
        log_retention_days=3,
        log_max_mb=17,
        metric_retention_days=4,
        event_retention_days=5,
        audit_retention_days=6,
        audit_max_mb=18,
    )
    assert Retention.from_config(config) == Retention(
        log_days=3,
        log_max_bytes=17 * 2**20,
        metric_days=4,
        event_days=5,
        audit_days=6,
        audit_max_bytes=18 * 2**20,
    )


async def test_a_round_drops_what_is_past_its_days_and_makes_the_days_ahead(
    store: PostgresStore, postgres_server: Postgres, database: str
) -> None:
    one = uuid = instance().id
    old = Batch(
        logs=(line(one, "old", at=ago(days=9)), line(one, "new", at=ago(days=6))),
        samples=((uuid, sample(at=ago(days=4))), (uuid, sample())),
        events=(event(one, at=ago(days=9)),),
    )
    await store.write(old)
    postgres_server.sql(database, f"DROP TABLE {Partition.of(LOGS, now() + timedelta(days=2)).name}")

    report = await store.retain(Retention())
    assert report.created == (Partition.of(LOGS, now() + timedelta(days=2)).name,)
    assert set(report.dropped) == {Partition.of(LOGS, ago(days=9)).name, Partition.of(METRICS, ago(days=4)).name}
    assert [row.message for row in (await store.logs(one, LogFilter())).rows] == ["new"]
    assert len((await store.metrics(one, MetricFilter())).rows) == 1
    assert (await store.retain(Retention())).dropped == ()


async def test_a_write_into_a_day_that_was_dropped_behind_its_back_makes_it_anew(
    store: PostgresStore, postgres_server: Postgres, database: str
) -> None:
    one = instance().id
    await store.write(Batch(logs=(line(one, "first"),)))
    postgres_server.sql(database, f"DROP TABLE {Partition.of(LOGS, now()).name}")
    await store.write(Batch(logs=(line(one, "second"),)))
    assert [row.message for row in (await store.logs(one, LogFilter())).rows] == ["second"]


async def test_logs_over_their_size_lose_the_oldest_days(store: PostgresStore) -> None:
    one = instance().id
    for days in (3, 2, 1, 0):
        await store.write(Batch(logs=tuple(line(one, "x" * 1_000, at=ago(days=days)) for _ in range(500))))

    report = await store.retain(Retention(log_max_bytes=1_700_000))
    assert report.dropped == (Partition.of(LOGS, ago(days=3)).name, Partition.of(LOGS, ago(days=2)).name)
    assert report.logs_deleted == 0
    assert len((await store.logs(one, LogFilter(limit=5_000))).rows) == 1_000


async def test_today_alone_over_the_size_loses_its_oldest_rows(store: PostgresStore, database_url: str) -> None:
    one, count = instance().id, 6_000
    lines = [
        line(one, f"{number:06} {number * 7919:01000}", at=NOON + timedelta(seconds=number)) for number in range(count)
    ]
    for start in range(0, count, 1_000):
        await store.write(Batch(logs=tuple(lines[start : start + 1_000])))

    retention = Retention(log_max_bytes=3 * 2**20)
    report = await on_connection(database_url, retain, retention, NOON + timedelta(hours=2))
    assert report.dropped == ()
    assert report.logs_deleted > 1_000
    rows = (await store.logs(one, LogFilter(limit=10_000))).rows
    assert [row.message[:6] for row in rows] == [f"{number:06}" for number in range(report.logs_deleted, count)]
    assert 2 * 2**20 < sum(len(row.message) for row in rows) < 3 * 2**20

    again = await on_connection(database_url, retain, retention, NOON + timedelta(hours=2))
    assert again.logs_deleted == 0, "what counts is what is alive, not the size of the file"


async def test_the_audit_log_over_its_size_loses_the_oldest_days_and_then_the_oldest_rows(
    store: PostgresStore, database_url: str
) -> None:
    for days in (100, 60, 30):
        await store.write(Batch(audit=tuple(audit_row(at=NOON - timedelta(days=days)) for _ in range(2_000))))
    await store.write(Batch(audit=tuple(audit_row(f"{n}", at=NOON + timedelta(seconds=n)) for n in range(6_000))))

    retention = Retention(audit_max_bytes=1_000_000)
    report = await on_connection(database_url, retain, retention, NOON + timedelta(hours=2))
    assert report.dropped == tuple(Partition.of(AUDIT, NOON - timedelta(days=days)).name for days in (100, 60, 30))
    assert report.audit_deleted > 1_000
    rows = (await store.audit(AuditFilter(limit=10_000))).rows
    assert [kept.row.target for kept in rows[::-1]] == [f"{n}" for n in range(report.audit_deleted, 6_000)]
    assert (await on_connection(database_url, retain, retention, NOON + timedelta(hours=2))).audit_deleted == 0


async def test_a_round_purges_expired_keys_and_deleted_instances_without_history(
    store: PostgresStore, postgres_server: Postgres, database: str
) -> None:
    kept, gone, recent = instance("kept", incarnation=3), instance("gone"), instance("recent")
    for made, age in ((kept, 25.0), (gone, 23.0), (recent, 0.0)):
        key = Idempotency(
            owner="ada", key=made.name, body_digest=b"d" * 32, instance_id=made.id, created_at=ago(hours=age)
        )
        await store.add_instance(made, quota=10, idempotency=key)
    await store.write(
        Batch(
            incarnations=tuple(
                incarnation(kept.id, n, started_at=ago(days=50 - n), ended_at=ago(days=50 - n), evidence=evidence())
                for n in (1, 2, 3)
            )
        )
    )
    await store.delete_instance(gone.id)
    await store.delete_instance(recent.id)
    postgres_server.sql(
        database, f"UPDATE mcp_instances SET deleted_at = now() - interval '31 days' WHERE id = '{gone.id}'"
    )

    report = await store.retain(Retention())
    assert report.instances_purged == 1
    assert await store.instance_of_deleted(gone.id) is None
    assert await store.instance_of_deleted(recent.id) == ("ada", "recent")
    assert postgres_server.sql(database, "SELECT key FROM mcp_idempotency ORDER BY 1").split() == ["gone", "recent"]
    numbers = postgres_server.sql(database, "SELECT number FROM mcp_incarnations").split()
    assert numbers == ["3"], "the latest stays, however old it is"


async def test_a_partition_that_is_being_read_is_dropped_later(
    store: PostgresStore, database_url: str, postgres_server: Postgres
) -> None:
    old = line(instance().id, at=ago(days=20))
    await store.write(Batch(logs=(old,)))
    reading, done = trio.Event(), trio.Event()

    async def read() -> None:
        database = database_url.split("/")[3].split("?")[0]
        hold = f"BEGIN; SELECT count(*) FROM {Partition.of(LOGS, old.at).name}; SELECT pg_sleep(60)"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: trio.to_thread.run_sync(_quietly, postgres_server, database, hold))
            await trio.to_thread.run_sync(_wait_for_query, postgres_server, database, "pg_sleep(60)")
            reading.set()
            await done.wait()
            ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; SELECT%'"
            postgres_server.sql(database, ends)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await reading.wait()
            assert (await store.retain(Retention())).dropped == ()
            await store.write(Batch(logs=(line(instance().id),)))
            done.set()
        assert len((await store.retain(Retention())).dropped) == 1


def _quietly(postgres: Postgres, database: str, statements: str) -> None:
    try:
        postgres.sql(database, statements)
    except RuntimeError:
        return


def _wait_for_query(postgres: Postgres, database: str, part: str) -> None:
    sql = f"SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE '%{part}%'"
    while postgres.sql(database, sql).strip() == "0":
        pass


async def test_two_control_planes_do_not_forget_at_the_same_time(store: PostgresStore, database_url: str) -> None:
    await store.write(Batch(logs=(line(instance().id, at=ago(days=20)),)))
    dropped = []

    async def forget() -> None:
        dropped.extend((await on_connection(database_url, retain, Retention())).dropped)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(forget)
    assert len(dropped) == 1
