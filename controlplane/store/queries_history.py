"""Reading history: logs, samples, events, the audit log, processes (asyncio, one connection each).

A page of what instances print, use and do is in order of time, oldest first, whether it was asked for from the
start (`since`, `cursor`) or from the end (`tail`). One row more than asked for is
fetched, to know whether to hand out a cursor.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from attrs import define, field

from controlplane.store.cursor import Cursor
from controlplane.store.filters import (
    PAGE_MAX,
    TOKEN_ACTIONS,
    AuditFilter,
    EventFilter,
    FleetEventFilter,
    LogFilter,
    MetricFilter,
    Page,
)
from controlplane.store.rows import Row, evidence_of
from controlplane.store.rows_history import (
    AUDIT_COLUMNS,
    audit_of,
    event_of,
    incarnation_of,
    log_of,
    named_event_of,
    sample_of,
)
from controlplane.store.text import clean_text

if TYPE_CHECKING:
    from controlplane.model import Evidence, Incarnation, LogLine, Sample
    from controlplane.store.filters import IncarnationFilter
    from controlplane.store.values import NamedEvent, StoredAudit, StoredEvent

STEP_MIN_S, STEP_MAX_S = 1.0, 86_400.0
"""Seconds: finer than samples are taken makes no sense, nor does longer than a partition."""

NEWEST_FIRST = "timestamp DESC, id DESC"
NAMED = """
    SELECT page.*, instance.name
      FROM ({}) AS page LEFT JOIN mcp_instances AS instance ON instance.id = page.instance_id
     ORDER BY page.timestamp DESC, page.id DESC
"""
"""The rows of a page with their instances' names, which are looked for once the page is known."""

WITH_TARGETS_NAME = """
    SELECT page.*, instance.name
      FROM ({}) AS page LEFT JOIN mcp_instances AS instance
        ON instance.owner = page.owner
       AND instance.id = CASE WHEN page.target ~ '^[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$' THEN page.target::uuid END
     ORDER BY page.timestamp DESC, page.id DESC
"""
"""The same of an audit log's page; a target whose owner it does not know is what somebody wrote who may not see the instance."""

AUDIT_TARGETS = """(
    target = ANY({}::text[])
    OR action = ANY({}::text[]) AND (left(target, 36) = ANY({}::text[]) OR substr(target, 38) = ANY({}::text[]))
)"""
"""A target by all of it; a token's, which is `<uuid> <name>`, by either."""

T = TypeVar("T")


@define
class _Query:
    """A SELECT under construction: conditions with numbered parameters."""

    columns: str
    table: str
    conditions: list[str] = field(factory=list)
    parameters: list[Any] = field(factory=list)

    def where(self, condition: str, *values: Any) -> None:
        """Add a condition; each `{}` in it stands for the next value."""
        first = len(self.parameters) + 1
        self.parameters.extend(values)
        self.conditions.append(condition.format(*(f"${first + n}" for n in range(len(values)))))

    def between(self, since: datetime | None, until: datetime | None) -> None:
        if since is not None:
            self.where("timestamp >= {}", since)
        if until is not None:
            self.where("timestamp < {}", until)

    def text(self, order: str, rows: int, group: str = "") -> str:
        self.parameters.append(rows)
        where = " AND ".join(self.conditions)
        return (
            f"SELECT {self.columns} FROM {self.table} WHERE {where} {group} "  # noqa: S608 -- made of constants
            f"ORDER BY {order} LIMIT ${len(self.parameters)}"
        )


def _bounded(rows: int) -> int:
    return max(0, min(rows, PAGE_MAX))


async def logs(connection: Any, instance_id: UUID, which: LogFilter) -> Page[LogLine]:
    """A page of one instance's log lines."""
    query = _Query(
        "instance_id, log_level, message, timestamp, stream, incarnation, sanitized, id", "mcp_instance_logs"
    )
    query.where("instance_id = {}", instance_id)
    query.between(which.since, which.until)
    if which.levels:
        query.where("log_level = ANY({}::text[])", list(which.levels))
    if which.stream is not None:
        query.where("stream::text = {}", which.stream)
    if which.incarnation is not None:
        query.where("incarnation = {}", which.incarnation)
    if which.q:
        query.where("strpos(lower(message), lower({}::text)) > 0", clean_text(which.q)[0])
    return await _page(connection, query, which, log_of)


async def events(connection: Any, instance_id: UUID, which: EventFilter) -> Page[StoredEvent]:
    """A page of one instance's events."""
    query = _Query("instance_id, owner, type, data, timestamp, id", "mcp_events")
    query.where("instance_id = {}", instance_id)
    query.between(which.since, which.until)
    if which.types:
        query.where("type = ANY({}::text[])", list(which.types))
    return await _page(connection, query, which, event_of)


async def fleet_events(connection: Any, which: FleetEventFilter) -> Page[NamedEvent]:
    """A page of the events of all instances, or of all that one owner has, newest first."""
    query = _Query("instance_id, owner, type, data, timestamp, id", "mcp_events", ["true"])
    if which.owner is not None:
        query.where("owner = {}", which.owner)
    if which.instances is not None:
        query.where("instance_id = ANY({}::uuid[])", list(which.instances))
    query.between(which.since, which.until)
    if which.types:
        query.where("type = ANY({}::text[])", list(which.types))
    if which.statuses:
        query.where("(type <> 'status' OR data ->> 'status' = ANY({}::text[]))", list(which.statuses))
    return await _newest(connection, query, which, NAMED, named_event_of)


async def audit(connection: Any, which: AuditFilter) -> Page[StoredAudit]:
    """A page of the audit log, newest first."""
    query = _Query(f"{', '.join(AUDIT_COLUMNS)}, id", "mcp_audit", ["true"])
    if which.seen_by is not None:
        query.where("(actor = {} OR owner = {})", which.seen_by, which.seen_by)
    if which.actor is not None:
        query.where("actor = {}", which.actor)
    if which.owner is not None:
        query.where("owner = {}", which.owner)
    query.between(which.since, which.until)
    if which.actions:
        query.where("action = ANY({}::text[])", list(which.actions))
    if which.targets:
        targets = [clean_text(target)[0] for target in which.targets]
        query.where(AUDIT_TARGETS, targets, list(TOKEN_ACTIONS), targets, targets)
    if which.classes:
        query.where("status / 100 = ANY({}::integer[])", list(which.classes))
    return await _newest(connection, query, which, WITH_TARGETS_NAME, audit_of)


async def _newest(
    connection: Any, query: _Query, which: FleetEventFilter | AuditFilter, named: str, read: Callable[[Row], T]
) -> Page[T]:
    """A page in which the newest row comes first, with the names of instances as `named` finds them."""
    if which.cursor is not None:
        before = Cursor.decode(which.cursor)
        query.where("(timestamp, id) < ({}, {})", before.at, before.id)
        query.where("timestamp <= {}", before.at)  # lets the planner leave out later partitions
    limit = _bounded(which.limit)
    text = named.format(query.text(NEWEST_FIRST, limit + 1))
    rows = await connection.fetch(text, *query.parameters)
    return _cut(rows, limit, read, lambda row: Cursor(row["timestamp"], row["id"]))


async def _page(connection: Any, query: _Query, which: LogFilter | EventFilter, read: Callable[[Row], T]) -> Page[T]:
    if which.tail is not None:
        text = query.text(NEWEST_FIRST, _bounded(which.tail))
        rows = await connection.fetch(text, *query.parameters)
        return Page(tuple(read(row) for row in reversed(rows)))
    if which.cursor is not None:
        after = Cursor.decode(which.cursor)
        query.where("(timestamp, id) > ({}, {})", after.at, after.id)
        query.where("timestamp >= {}", after.at)  # lets the planner leave out earlier partitions
    limit = _bounded(which.limit)
    rows = await connection.fetch(query.text("timestamp, id", limit + 1), *query.parameters)
    return _cut(rows, limit, read, lambda row: Cursor(row["timestamp"], row["id"]))


def _cut(rows: list[Any], limit: int, read: Callable[[Row], T], place: Callable[[Row], Cursor]) -> Page[T]:
    kept = rows[:limit]
    more = len(rows) > limit and bool(kept)
    return Page(tuple(read(row) for row in kept), place(kept[-1]).encode() if more else None)


_SAMPLE = "timestamp, cpu_usage, memory_usage, processes, open_files, calls, errors, p50_ms, p95_ms, disk_mb"
_FOLDED = """
    date_bin({}, timestamp, 'epoch') AS timestamp, avg(cpu_usage) AS cpu_usage, max(memory_usage) AS memory_usage,
    max(processes) AS processes, max(open_files) AS open_files, sum(calls)::bigint AS calls,
    sum(errors)::bigint AS errors, max(p50_ms) AS p50_ms, max(p95_ms) AS p95_ms,
    max(disk_mb) AS disk_mb
"""


async def metrics(connection: Any, instance_id: UUID, which: MetricFilter) -> Page[Sample]:
    """A page of one instance's samples, as taken or folded into steps."""
    query = _Query(_SAMPLE, "mcp_instance_metrics")
    time, group = "timestamp", ""
    if which.step_s is not None:
        time, group = "1", "GROUP BY 1"
        query.columns = _FOLDED.format("$1::interval")
        query.parameters.append(_step(which.step_s))
    query.where("instance_id = {}", instance_id)
    query.between(which.since, which.until)
    if which.tail is not None:
        text = query.text(f"{time} DESC", _bounded(which.tail), group)
        rows = await connection.fetch(text, *query.parameters)
        return Page(tuple(sample_of(row) for row in reversed(rows)))
    if which.cursor is not None:
        _after(query, Cursor.decode(which.cursor), which.step_s)
    limit = _bounded(which.limit)
    rows = await connection.fetch(query.text(time, limit + 1, group), *query.parameters)
    return _cut(rows, limit, sample_of, lambda row: Cursor(row["timestamp"]))


def _after(query: _Query, last: Cursor, step_s: float | None) -> None:
    """Go on behind the last row: behind the whole step where samples are folded."""
    if step_s is None:
        query.where("timestamp > {}", last.at)
    else:
        query.where("timestamp >= {}", last.at + _step(step_s))


def _step(seconds: float) -> timedelta:
    return timedelta(seconds=min(max(seconds, STEP_MIN_S), STEP_MAX_S))


async def post_mortems(connection: Any, instance_id: UUID, limit: int) -> list[Evidence]:
    """The latest ones first."""
    rows = await connection.fetch(
        """
        SELECT post_mortem FROM mcp_incarnations
         WHERE instance_id = $1 AND post_mortem IS NOT NULL ORDER BY number DESC LIMIT $2
        """,
        instance_id,
        _bounded(limit),
    )
    return [evidence for row in rows if (evidence := evidence_of(row["post_mortem"])) is not None]


async def incarnations(connection: Any, instance_id: UUID, which: IncarnationFilter) -> Page[Incarnation]:
    """A page of one instance's processes, the latest ones first."""
    query = _Query(
        "instance_id, number, pid, started_at, ended_at, exit_code, signal, post_mortem, revision", "mcp_incarnations"
    )
    query.where("instance_id = {}", instance_id)
    if which.cursor is not None:
        query.where("number < {}::bigint", Cursor.decode(which.cursor).id)
    limit = _bounded(which.limit)
    rows = await connection.fetch(query.text("number DESC", limit + 1), *query.parameters)
    return _cut(rows, limit, incarnation_of, lambda row: Cursor(row["started_at"], row["number"]))
