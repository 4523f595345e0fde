"""Writing and reading logs, samples, events and post-mortems, on a real Postgres."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import attrs
import pytest

from controlplane.errors import InvalidRequest
from controlplane.store.base import DataRefused
from controlplane.store.filters import (
    AuditFilter,
    EventFilter,
    FleetEventFilter,
    IncarnationFilter,
    LogFilter,
    MetricFilter,
)
from controlplane.store.text import json_text
from controlplane.store.values import Batch
from tests.store.rows import ago, audit_row, event, evidence, incarnation, instance, line, now, sample

if TYPE_CHECKING:
    from controlplane.model import LogLine
    from controlplane.store.postgres import PostgresStore


def messages(rows: tuple[LogLine, ...]) -> list[str]:
    return [row.message for row in rows]


async def test_a_line_comes_back_as_it_was_written(store: PostgresStore) -> None:
    first = line(uuid4(), "grüße ✓ \t|,\\N\\.", level="error", stream="build", incarnation=3)
    await store.write(Batch(logs=(first,)))
    assert (await store.logs(first.instance_id, LogFilter())).rows == (first,)


async def test_lines_of_one_instant_keep_the_order_in_which_they_were_written(store: PostgresStore) -> None:
    one, at = uuid4(), now()
    await store.write(Batch(logs=tuple(line(one, str(n), at=at) for n in range(50))))
    await store.write(Batch(logs=tuple(line(one, str(n), at=at) for n in range(50, 80))))

    assert messages((await store.logs(one, LogFilter(limit=500))).rows) == [str(n) for n in range(80)]
    assert messages((await store.logs(one, LogFilter(tail=3))).rows) == ["77", "78", "79"]


async def test_pages_follow_each_other_without_gap_or_repetition(store: PostgresStore) -> None:
    one, start = uuid4(), ago(days=1)
    lines = [line(one, str(n), at=start + timedelta(minutes=40 * (n // 3))) for n in range(100)]  # over two partitions
    await store.write(Batch(logs=tuple(lines)))

    seen: list[str] = []
    cursor, pages = None, 0
    while True:
        page = await store.logs(one, LogFilter(limit=7, cursor=cursor))
        seen += messages(page.rows)
        pages += 1
        if page.next_cursor is None:
            break
        cursor = page.next_cursor
    assert seen == [str(n) for n in range(100)]
    assert pages == 15


async def test_a_page_that_ends_with_the_last_row_hands_out_no_cursor(store: PostgresStore) -> None:
    one = uuid4()
    await store.write(Batch(logs=tuple(line(one, str(n)) for n in range(4))))
    assert (await store.logs(one, LogFilter(limit=4))).next_cursor is None
    assert (await store.logs(one, LogFilter(limit=3))).next_cursor is not None
    assert (await store.logs(uuid4(), LogFilter())).rows == ()


@pytest.mark.parametrize("cursor", ["", "x", "nonsense", "////", "AAAA", "f" * 22, "ünï"])
async def test_a_cursor_of_somebody_elses_making_is_an_invalid_request(store: PostgresStore, cursor: str) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        await store.logs(uuid4(), LogFilter(cursor=cursor))


async def test_log_filters_choose_by_level_stream_incarnation_time_and_text(store: PostgresStore) -> None:
    one, start = uuid4(), ago(hours=1)
    lines = (
        line(one, "Listening on 100% of ports", at=start, level="info", stream="stdout", incarnation=1),
        line(one, "it broke_here", at=start + timedelta(minutes=1), level="error", stream="stderr", incarnation=1),
        line(one, "started again", at=start + timedelta(minutes=2), level="info", stream="system", incarnation=2),
        line(one, "nul \x00 byte", at=start + timedelta(minutes=3), level="warning", stream="stderr", incarnation=2),
    )
    await store.write(Batch(logs=lines))

    async def found(**filters: Any) -> list[int]:
        rows = (await store.logs(one, LogFilter(**filters))).rows
        return [int((row.at - start).total_seconds() // 60) for row in rows]

    assert await found(levels=("error", "warning")) == [1, 3]
    assert await found(stream="stderr") == [1, 3]
    assert await found(stream="no such stream") == []
    assert await found(incarnation=2) == [2, 3]
    assert await found(since=start + timedelta(minutes=1), until=start + timedelta(minutes=3)) == [1, 2]
    assert await found(q="LISTENING") == [0]
    assert await found(q="%") == [0]
    assert await found(q="e_h") == [1]
    assert await found(q="nul \x00") == [3]
    assert await found(levels=("info",), tail=1) == [2]


async def test_a_query_that_looks_like_sql_is_text(store: PostgresStore) -> None:
    one, hostile = uuid4(), "'; DROP TABLE mcp_instance_logs; --"
    await store.write(Batch(logs=(line(one, hostile, level=hostile),)))
    assert messages((await store.logs(one, LogFilter(q=hostile, levels=(hostile[:16],)))).rows) == [hostile]


@pytest.mark.parametrize(
    ("printed", "kept"),
    [
        ("a\x00b", "a\\x00b"),
        ("\ud800 and \udfff", "\\ud800 and \\udfff"),
        ("\x00" * 3, "\\x00\\x00\\x00"),
    ],
)
async def test_what_postgres_refuses_is_kept_as_visible_escapes_and_the_batch_with_it(
    store: PostgresStore, printed: str, kept: str
) -> None:
    one = uuid4()
    await store.write(Batch(logs=(line(one, "before"), line(one, printed), line(one, "after"))))
    rows = (await store.logs(one, LogFilter())).rows
    assert [(row.message, row.sanitized) for row in rows] == [("before", False), (kept, True), ("after", False)]


async def test_control_characters_and_rare_planes_are_kept_as_they_are(store: PostgresStore) -> None:
    one, message = uuid4(), "\x1b[31mred\x7f \u202e \U0010ffff \ufffe"
    await store.write(Batch(logs=(line(one, message),)))
    (row,) = (await store.logs(one, LogFilter())).rows
    assert (row.message, row.sanitized) == (message, False)


DEEP: Any = {}
for _ in range(5_000):
    DEEP = {"a": [DEEP]}


@pytest.mark.parametrize(
    "data",
    [
        {"a\x00": "\x00"},
        {"s": "\ud800", "\udfff": 1},
        {"n": math.nan, "i": math.inf, "m": -math.inf},
        {"big": 10**5_000, "float": 1e22, "tiny": 5e-324},
        {"when": datetime(2026, 1, 1, tzinfo=UTC), "bytes": b"\x00\xff", "set": {1}},
        DEEP,
        {"large": "x" * 2**19},
    ],
    ids=["nul", "surrogate", "not finite", "numbers", "foreign types", "deep", "large"],
)
async def test_any_event_data_is_kept_as_json(store: PostgresStore, data: Any) -> None:
    one = uuid4()
    await store.write(Batch(events=(event(one, json_text(data)), event(one))))
    first, second = (await store.events(one, EventFilter())).rows
    assert first.data == json.loads(json_text(data))
    assert second.data == {}


async def test_events_come_in_order_and_are_chosen_by_type_and_time(store: PostgresStore) -> None:
    one, start = uuid4(), ago(hours=1)
    kinds = ("deployed", "status", "status", "post_mortem")
    rows = tuple(
        event(one, f'{{"n": {n}}}', type=kind, at=start + timedelta(minutes=n)) for n, kind in enumerate(kinds)
    )
    await store.write(Batch(events=(*rows, event(None, type="shutdown", owner=None), event(uuid4()))))

    async def found(**filters: Any) -> list[int]:
        return [row.data["n"] for row in (await store.events(one, EventFilter(**filters))).rows]

    assert await found() == [0, 1, 2, 3]
    assert await found(types=("status", "post_mortem")) == [1, 2, 3]
    assert await found(since=start + timedelta(minutes=2)) == [2, 3]
    assert await found(tail=2) == [2, 3]
    page = await store.events(one, EventFilter(limit=3))
    assert page.next_cursor is not None
    assert await found(cursor=page.next_cursor) == [3]
    (stored, *_) = page.rows
    assert (stored.type, stored.owner, stored.instance_id, stored.at) == ("deployed", "ada", one, start)


async def test_samples_come_back_as_they_were_taken(store: PostgresStore) -> None:
    one, start = uuid4(), ago(minutes=10)
    full = sample(at=start, open_files=9, calls=2**40, errors=2, p50_ms=1.25, p95_ms=99.5)
    bare = sample(at=start + timedelta(seconds=1))
    await store.write(Batch(samples=((one, full), (one, bare), (uuid4(), bare))))

    assert (await store.metrics(one, MetricFilter())).rows == (full, bare)
    assert (await store.metrics(one, MetricFilter(tail=1))).rows == (bare,)
    assert (await store.metrics(one, MetricFilter(since=bare.at))).rows == (bare,)
    page = await store.metrics(one, MetricFilter(limit=1))
    assert page.rows == (full,)
    assert (await store.metrics(one, MetricFilter(cursor=page.next_cursor))).rows == (bare,)


async def test_samples_fold_into_steps(store: PostgresStore) -> None:
    one = uuid4()
    start = ago(hours=2).replace(minute=0, second=0, microsecond=0)
    taken = [
        (one, sample(at=start + timedelta(seconds=n), cpu_percent=float(n), memory_mb=100.0 - n, calls=1, p95_ms=n / 2))
        for n in range(25)
    ]
    await store.write(Batch(samples=tuple(taken)))

    rows = (await store.metrics(one, MetricFilter(step_s=10))).rows
    assert [(row.at - start).total_seconds() for row in rows] == [0, 10, 20]
    assert [row.cpu_percent for row in rows] == [4.5, 14.5, 22.0]
    assert [row.memory_mb for row in rows] == [100.0, 90.0, 80.0]
    assert [row.calls for row in rows] == [10, 10, 5]
    assert [row.p95_ms for row in rows] == [4.5, 9.5, 12.0]
    assert [row.p50_ms for row in rows] == [None] * 3

    first = await store.metrics(one, MetricFilter(step_s=10, limit=1))
    second = await store.metrics(one, MetricFilter(step_s=10, limit=1, cursor=first.next_cursor))
    assert first.rows + second.rows == rows[:2]
    assert (await store.metrics(one, MetricFilter(step_s=10, tail=1))).rows == rows[2:]


@pytest.mark.parametrize("step_s", [1e-9, 1e12])
async def test_an_absurd_step_is_bounded(store: PostgresStore, step_s: float) -> None:
    one = uuid4()
    await store.write(Batch(samples=((one, sample()),)))
    assert len((await store.metrics(one, MetricFilter(step_s=step_s))).rows) == 1


async def test_post_mortems_come_latest_first_and_replace_what_was_known(store: PostgresStore) -> None:
    made = instance()
    await store.add_instance(made, quota=10)
    await store.write(Batch(incarnations=tuple(incarnation(made.id, n) for n in (1, 2, 3))))
    ended = [
        incarnation(made.id, n, ended_at=now(), exit_code=n, evidence=evidence(reason=f"exit {n}")) for n in (1, 3)
    ]
    await store.write(Batch(incarnations=tuple(ended)))

    assert [found.reason for found in await store.post_mortems(made.id)] == ["exit 3", "exit 1"]
    assert await store.post_mortems(made.id, 1) == [ended[1].evidence]
    assert await store.post_mortems(uuid4()) == []


async def test_events_of_the_fleet_come_newest_first_with_names_page_by_page(store: PostgresStore) -> None:
    cow, goat, start = instance("cow"), instance("goat"), ago(days=1)
    for made in (cow, goat):
        await store.add_instance(made, quota=10)
    rows = [
        event(made.id, json.dumps({"n": n}), at=start + timedelta(hours=2 * (n // 3)))  # over two partitions
        for n, made in enumerate([cow, goat] * 15)
    ]
    await store.write(Batch(events=(*rows, event(None, '{"n": 30}', owner=None, type="services"))))
    await store.delete_instance(goat.id)

    seen: list[tuple[int, str | None]] = []
    cursor, pages = None, 0
    while cursor is not None or not pages:
        page = await store.fleet_events(FleetEventFilter(limit=4, cursor=cursor))
        seen += [(row.event.data["n"], row.name) for row in page.rows]
        cursor, pages = page.next_cursor, pages + 1
    assert seen == [(30, None), *((n, ("cow", "goat")[n % 2]) for n in reversed(range(30)))]
    assert pages == 8


async def test_events_of_the_fleet_are_chosen_by_owner_type_status_and_time(store: PostgresStore) -> None:
    one, start = uuid4(), ago(hours=1)
    rows = [
        event(one, '{"status": "running"}', at=start),
        event(one, '{"status": "failed"}', at=start + timedelta(minutes=1)),
        event(one, type="post_mortem", at=start + timedelta(minutes=2), owner="bob"),
        event(None, type="services", at=start + timedelta(minutes=3), owner=None),
    ]
    await store.write(Batch(events=tuple(rows)))

    async def found(**filters: Any) -> list[int]:
        page = await store.fleet_events(FleetEventFilter(**filters))
        return [int((row.event.at - start).total_seconds() // 60) for row in page.rows]

    assert await found() == [3, 2, 1, 0]
    assert await found(owner="ada") == [1, 0]
    assert await found(owner="bob") == [2]
    assert await found(types=("post_mortem", "services")) == [3, 2]
    assert await found(statuses=("failed",)) == [3, 2, 1], "it chooses among the events of that type only"
    assert await found(types=("status",), statuses=("failed", "stopped")) == [1]
    assert await found(since=start + timedelta(minutes=1), until=start + timedelta(minutes=3)) == [2, 1]


async def test_the_audit_log_comes_newest_first_with_names_page_by_page(store: PostgresStore) -> None:
    cow = instance("cow")
    await store.add_instance(cow, quota=10)
    start, n = ago(minutes=5), 9
    kept = [audit_row(str(cow.id), at=start + timedelta(seconds=at)) for at in range(n)]
    kept[3] = attrs.evolve(
        kept[3], owner="bob"
    )  # what is written there is not his, so its name is none of his business
    kept[4] = attrs.evolve(kept[4], owner=None, actor=None, credential=None, request_id="", count=7)
    kept[5] = attrs.evolve(kept[5], target="-" * 36, address="\x00\udc80")
    await store.write(Batch(audit=tuple(kept)))

    first = await store.audit(AuditFilter(limit=4))
    rest = await store.audit(AuditFilter(limit=5, cursor=first.next_cursor))
    rows = [*first.rows, *rest.rows]
    assert rest.next_cursor is None
    kept[5] = attrs.evolve(kept[5], address="\\x00\\udc80")
    assert [found.row for found in rows] == kept[::-1]
    assert [found.name for found in rows] == ["cow", "cow", "cow", None, None, None, "cow", "cow", "cow"]


async def test_the_audit_log_is_chosen_by_who_what_whose_and_when(store: PostgresStore) -> None:
    start = ago(hours=1)
    rows = [
        audit_row("a", actor="ada", owner="ada"),
        audit_row("b", actor="ada", owner="bob", action="deploy", status=422),
        audit_row("c", actor="bob", owner=None, action="stopInstance", status=404),
        audit_row("", actor=None, owner=None, action="signIn", status=401),
        audit_row("a", actor="eve", owner="eve", status=503),
        audit_row(f"{UUID(int=5)} my ci", actor="eve", owner="eve", action="removeToken", status=503),
    ]
    at = [attrs.evolve(row, at=start + timedelta(minutes=n)) for n, row in enumerate(rows)]
    await store.write(Batch(audit=tuple(at)))

    async def found(**filters: Any) -> list[int]:
        return [at.index(kept.row) for kept in (await store.audit(AuditFilter(**filters))).rows]

    assert await found() == [5, 4, 3, 2, 1, 0]
    assert await found(seen_by="bob") == [2, 1]
    assert await found(seen_by="ada") == [1, 0]
    assert await found(seen_by="mallory") == []
    assert await found(seen_by="bob", actor="eve") == [], "what is asked for does not widen what is seen"
    assert await found(actor="ada") == [1, 0]
    assert await found(owner="bob") == [1]
    assert await found(actions=("deploy", "signIn")) == [3, 1]
    assert await found(targets=("a", "c\x00")) == [4, 0]
    assert await found(targets=("my ci",)) == await found(targets=(str(UUID(int=5)),)) == [5]
    assert await found(targets=("my", "ci")) == [], "a token is named by all of its name"
    assert await found(classes=(4,)) == [3, 2, 1]
    assert await found(classes=(2, 5)) == [5, 4, 0]
    assert await found(since=start + timedelta(minutes=1), until=start + timedelta(minutes=3)) == [2, 1]


async def test_processes_come_latest_first_as_they_were_written_page_by_page(store: PostgresStore) -> None:
    made = instance()
    await store.add_instance(made, quota=10)
    kept = [incarnation(made.id, n, revision=n, pid=100 + n) for n in range(1, 6)]
    kept[2] = attrs.evolve(kept[2], ended_at=now(), signal="SIGKILL", evidence=evidence(), revision=None)
    await store.write(Batch(incarnations=tuple(kept)))

    first = await store.incarnations(made.id, IncarnationFilter(limit=3))
    assert list(first.rows) == [kept[4], kept[3], kept[2]]
    rest = await store.incarnations(made.id, IncarnationFilter(limit=3, cursor=first.next_cursor))
    assert (list(rest.rows), rest.next_cursor) == ([kept[1], kept[0]], None)
    assert (await store.incarnations(uuid4(), IncarnationFilter())).rows == ()

    await store.delete_instance(made.id)
    assert len((await store.incarnations(made.id, IncarnationFilter())).rows) == 5, "its history outlives it"


@pytest.mark.parametrize("tail", [-1, 0, 2**40])
async def test_an_absurd_tail_is_bounded(store: PostgresStore, tail: int) -> None:
    one = uuid4()
    await store.write(Batch(logs=(line(one),)))
    assert len((await store.logs(one, LogFilter(tail=tail))).rows) == (1 if tail > 0 else 0)


async def test_rows_of_a_day_without_partition_make_one(store: PostgresStore) -> None:
    one = uuid4()
    days = (ago(days=400), ago(days=40), now() + timedelta(days=40))
    await store.write(Batch(logs=tuple(line(one, at=at) for at in days)))
    assert [row.at for row in (await store.logs(one, LogFilter())).rows] == list(days)


async def test_a_batch_is_written_whole_or_not_at_all(store: PostgresStore) -> None:
    one = uuid4()
    for bad in (
        Batch(logs=(line(one), line(one, stream="no such stream"))),
        Batch(logs=(line(one),), samples=((one, sample(processes=2**40)),)),
        Batch(logs=(line(one),), events=(event(one, "no json"),)),
        Batch(logs=(line(one),), incarnations=(incarnation(uuid4()),)),
    ):
        with pytest.raises(DataRefused):
            await store.write(bad)
    assert (await store.logs(one, LogFilter())).rows == ()
    assert store.statistics().available


async def test_an_empty_batch_is_nothing(store: PostgresStore) -> None:
    before = store.statistics().calls
    await store.write(Batch())
    assert store.statistics().calls == before


def test_halves_of_a_batch_hold_every_row_once_and_in_order() -> None:
    one = uuid4()
    whole = Batch(
        logs=tuple(line(one, str(n)) for n in range(3)),
        samples=((one, sample()),),
        events=(event(one), event(one)),
        incarnations=(incarnation(one),),
    )
    first, second = whole.halves()
    assert (len(first), len(second)) == (3, 4)
    for kind in attrs.asdict(whole, recurse=False):
        assert getattr(first, kind) + getattr(second, kind) == getattr(whole, kind)
