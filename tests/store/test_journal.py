"""The journal on a real Postgres: batches, outages, rows that cannot be written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import attrs
import trio
from attrs import frozen

from controlplane.core.lifecycle import State
from controlplane.store.backlog import Backlog
from controlplane.store.filters import AuditFilter, EventFilter, LogFilter, MetricFilter
from controlplane.store.journal import Journal
from controlplane.store.text import LINE_MAX_BYTES
from tests.store.rows import audit_row, evidence, incarnation, instance, line, now, sample

if TYPE_CHECKING:
    import pytest

    from controlplane.store.postgres import PostgresStore
    from tests.services import Postgres

WRITTEN_S = 20.0


@frozen(kw_only=True)
class HubEvent:
    """As the hub makes them."""

    at: Any
    type: str = "status"
    instance_id: UUID | None = None
    owner: str | None = "ada"
    data: Any = attrs.field(factory=dict)


@asynccontextmanager
async def running(journal: Journal) -> AsyncIterator[Journal]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        yield journal
        nursery.cancel_scope.cancel()


async def messages(store: PostgresStore, instance_id: UUID) -> list[str]:
    return [row.message for row in (await store.logs(instance_id, LogFilter(limit=10_000))).rows]


async def until_written(journal: Journal) -> None:
    with trio.fail_after(WRITTEN_S):
        while len(journal):
            await trio.sleep(0.01)


async def test_rows_are_written_by_themselves(store: PostgresStore) -> None:
    made = instance()
    await store.add_instance(made, quota=10)
    async with running(Journal(store)) as journal:
        journal.log(line(made.id, "hello"))
        journal.sample(made.id, sample())
        journal.event(HubEvent(at=now(), instance_id=made.id, data={"a": ["\x00", float("nan")]}))
        journal.observe(attrs.evolve(made, state=State.RUNNING), phase="serving")
        journal.incarnation(incarnation(made.id, 1, ended_at=now(), exit_code=1, evidence=evidence()))
        await until_written(journal)

    assert await messages(store, made.id) == ["hello"]
    assert len((await store.metrics(made.id, MetricFilter())).rows) == 1
    (event,) = (await store.events(made.id, EventFilter())).rows
    assert event.data == {"a": ["\\x00", "nan"]}
    assert [found.state for found in await store.instances()] == [State.RUNNING]
    assert len(await store.post_mortems(made.id)) == 1
    statistics = journal.statistics()
    assert (statistics.written, statistics.rows, statistics.size_bytes) == (5, 0, 0)
    assert (statistics.refused, statistics.failures, dict(statistics.shed)) == (0, 0, {})


async def test_a_flood_is_written_in_few_transactions(store: PostgresStore) -> None:
    one = uuid4()
    before = store.statistics().calls
    async with running(Journal(store)) as journal:
        for number in range(10_000):
            journal.log(line(one, str(number)))
        assert await journal.flush(WRITTEN_S)
    assert await messages(store, one) == [str(number) for number in range(10_000)]
    assert store.statistics().calls - before <= 13


async def test_a_flush_makes_what_came_before_it_readable_at_once(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controlplane.store.journal.FLUSH_S", 3_600.0)  # by itself it would not write in this test
    one = uuid4()
    async with running(Journal(store)) as journal:
        for number in range(20):
            journal.log(line(one, str(number)))
            assert await journal.flush(WRITTEN_S)
            assert (await messages(store, one))[-1] == str(number)
        assert await journal.flush(0), "nothing waits: nothing to wait for"


async def test_many_may_wait_for_one_flush(store: PostgresStore) -> None:
    one = uuid4()
    done: list[bool] = []
    async with running(Journal(store)) as journal:
        journal.log(line(one))

        async def flush() -> None:
            done.append(await journal.flush(WRITTEN_S))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(flush)
    assert done == [True] * 20
    assert len(await messages(store, one)) == 1


async def test_a_flush_without_a_running_writer_writes_itself(store: PostgresStore) -> None:
    one, journal = uuid4(), Journal(store)
    for number in range(2_500):
        journal.log(line(one, str(number)))
    assert await journal.flush(WRITTEN_S)
    assert len(await messages(store, one)) == 2_500


async def test_a_flush_that_runs_out_of_time_breaks_off_no_batch(
    own_postgres: Postgres, own_store: PostgresStore
) -> None:
    one = uuid4()
    async with running(Journal(own_store)) as journal:
        own_postgres.freeze()
        journal.log(line(one, "once"))
        with trio.fail_after(5):
            assert not await journal.flush(0.2)
        own_postgres.thaw()
        await until_written(journal)
    assert await messages(own_store, one) == ["once"]


async def test_a_line_that_is_too_long_is_cut_visibly(store: PostgresStore) -> None:
    one, journal = uuid4(), Journal(store)
    journal.log(line(one, "é" * LINE_MAX_BYTES))
    assert await journal.flush(WRITTEN_S)
    (message,) = await messages(store, one)
    assert len(message.encode()) <= LINE_MAX_BYTES
    assert message.endswith(f" … [cut: the line had {2 * LINE_MAX_BYTES} bytes]")
    assert journal.statistics().cut == 1


async def test_rows_outlive_an_outage(own_postgres: Postgres, own_store: PostgresStore) -> None:
    made = instance()
    await own_store.add_instance(made, quota=10)
    async with running(Journal(own_store)) as journal:
        own_postgres.kill()
        for number in range(2_500):
            journal.log(line(made.id, str(number)))
        done = audit_row("grace")
        journal.audit(done)
        journal.observe(attrs.evolve(made, state=State.RUNNING))
        with trio.fail_after(WRITTEN_S):
            while not journal.statistics().failures:
                await trio.sleep(0.01)
        assert not await journal.flush(WRITTEN_S), "it gives up at once while Postgres is known to be away"
        assert journal.statistics().rows == 2_502
        assert journal.statistics().oldest_s > 0
        journal.observe(attrs.evolve(made, state=State.FAILED))

        own_postgres.start()
        await until_written(journal)
    assert await messages(own_store, made.id) == [str(number) for number in range(2_500)]
    assert [found.state for found in await own_store.instances()] == [State.FAILED]
    assert [kept.row for kept in (await own_store.audit(AuditFilter())).rows] == [done]
    assert dict(journal.statistics().dropped) == {"refused": 0}


async def test_what_an_outage_makes_it_give_up_is_counted_and_marked_in_the_log(
    own_postgres: Postgres, own_store: PostgresStore
) -> None:
    chatty, quiet = uuid4(), uuid4()
    async with running(Journal(own_store, Backlog(max_rows=100))) as journal:
        own_postgres.kill()
        journal.log(line(quiet, "quiet"))
        for number in range(500):
            journal.log(line(chatty, str(number)))
            journal.sample(chatty, sample())
        own_postgres.start()
        await until_written(journal)

    kept = await messages(own_store, chatty)
    lost = journal.statistics().shed["logs"]
    assert 0 < lost == 500 - len([message for message in kept if message.isdigit()])
    assert f"{lost} lines are missing here: the database was away or too slow to keep them" in kept
    assert kept[-1] == "499" or kept[-2] == "499"
    assert await messages(own_store, quiet) == ["quiet"]
    assert journal.statistics().shed["samples"] >= 400


async def test_one_row_that_postgres_refuses_does_not_take_the_others_with_it(
    store: PostgresStore, caplog: pytest.LogCaptureFixture
) -> None:
    one, journal = uuid4(), Journal(store)
    for number in range(1_000):
        bad = number in {0, 421, 999}
        journal.log(line(one, str(number), stream="no such stream" if bad else "stdout"))
    journal.sample(one, sample(processes=2**40))
    journal.sample(one, sample())
    journal.incarnation(incarnation(uuid4(), 1))  # of an instance that is not there
    assert await journal.flush(WRITTEN_S)

    kept = await messages(store, one)
    assert kept == [str(number) for number in range(1_000) if number not in {0, 421, 999}]
    assert len((await store.metrics(one, MetricFilter())).rows) == 1
    statistics = journal.statistics()
    assert (statistics.refused, statistics.written, statistics.rows) == (5, 998, 0)
    assert statistics.dropped["refused"] == 5
    assert "planted" not in caplog.text


async def test_a_refused_row_is_not_quoted_in_the_log(store: PostgresStore, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(store)
    journal.log(line(uuid4(), "planted-secret", stream="planted-secret"))
    assert await journal.flush(WRITTEN_S)
    assert journal.statistics().refused == 1
    assert "planted-secret" not in caplog.text


async def test_any_text_that_a_server_prints_is_kept(store: PostgresStore) -> None:
    one, journal = uuid4(), Journal(store)
    odd = [chr(code) for code in (*range(0x100), 0xD800, 0xDFFF, 0xFFFE, 0xFFFF, 0x10FFFF)] + ["\x00\ud800" * 9_000, ""]
    for text in odd:
        journal.log(line(one, text))
    assert await journal.flush(WRITTEN_S)
    assert len(await messages(store, one)) == len(odd)
    assert journal.statistics().refused == 0


async def test_cancelling_the_writer_while_postgres_is_frozen_is_prompt(
    own_postgres: Postgres, own_store: PostgresStore
) -> None:
    async with running(Journal(own_store)) as journal:
        own_postgres.freeze()
        journal.log(line(uuid4()))
        await journal.flush(0.2)
        started = trio.current_time()
    assert trio.current_time() - started < 1.0
    own_postgres.thaw()
