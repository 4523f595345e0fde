"""Forgetting: partitions past their days, logs and the audit log past their size, records of what is gone (asyncio).

Runs on a connection of its own, in small transactions: cut at any point it leaves
nothing half done, and it never holds a lock that writers wait for longer than a moment.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from controlplane.store import partitions, queries_quotas
from controlplane.store.partitions import AUDIT, EVENTS, LOGS, METRICS, Partition
from controlplane.store.values import IDEMPOTENCY_VALID_S, Retention, RetentionReport

log = logging.getLogger(__name__)

RETAIN_LOCK = 0x636F_7275
"""Advisory lock: of several control planes, one forgets."""
RETAIN_S = 60.0
"""One round, at most; what is left is done in the next."""
DELETE_BLOCKS = 512
"""Blocks (8 KiB) of one DELETE: 4 MiB, milliseconds."""
ROW_BYTES = {LOGS: "pg_column_size(message) + 130", AUDIT: "pg_column_size(kept.*) + 90"}
"""What a row takes, as SQL: of a log its message and 130 bytes for header, other columns and index entry; of the audit log
the columns, and 90 for what the two index entries add to them."""
SLACK = 0.9
"""What is over its cap is cut to this part of it, so that the next row does not exceed it again."""


async def retain(connection: Any, retention: Retention, now: datetime | None = None) -> RetentionReport:
    """One round of forgetting; does nothing while another control plane is at it."""
    now = now or datetime.now(UTC)
    if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", RETAIN_LOCK):
        return RetentionReport()
    present = await partitions.existing(connection)
    missing = [partition for partition in partitions.ahead(now) if partition not in present]
    if missing:
        await partitions.create(connection, missing)
    days = {
        LOGS: retention.log_days,
        METRICS: retention.metric_days,
        EVENTS: retention.event_days,
        AUDIT: retention.audit_days,
    }
    dropped = await _drop(connection, partitions.outdated(present, days, now))
    left = present - set(dropped)
    large_logs, logs_deleted = await _cap(connection, left, LOGS, retention.log_max_bytes, now)
    large_audits, audit_deleted = await _cap(connection, left, AUDIT, retention.audit_max_bytes, now)
    return RetentionReport(
        created=tuple(partition.name for partition in missing),
        dropped=tuple(partition.name for partition in (*dropped, *large_logs, *large_audits)),
        logs_deleted=logs_deleted,
        audit_deleted=audit_deleted,
        instances_purged=await _purge(connection, retention, now),
    )


async def _drop(connection: Any, candidates: Sequence[Partition]) -> list[Partition]:
    """Drop partitions; one that is being read stays for the next round."""
    dropped = []
    for partition in candidates:
        try:
            await partitions.drop(connection, partition)
        except asyncpg.LockNotAvailableError:
            log.info("database: %s is in use and is dropped later", partition.name)
        else:
            dropped.append(partition)
    return dropped


async def _cap(
    connection: Any, present: set[Partition], table: str, cap_bytes: int, now: datetime
) -> tuple[list[Partition], int]:
    """Have a table fit its cap: the oldest days go, then the oldest rows of today; says which, and how many."""
    today = Partition.of(table, now)
    days = sorted(p for p in present if p.table == table and p.day <= today.day)
    sizes = [(p, await _size(connection, p)) for p in days]
    dropped = await _drop(connection, partitions.over_size(sizes, cap_bytes))
    if not sizes or sizes[-1][1] <= cap_bytes:
        return dropped, 0
    return dropped, await _cut_partition(connection, sizes[-1][0], cap_bytes)


async def _size(connection: Any, partition: Partition) -> int:
    size: int = await connection.fetchval("SELECT coalesce(pg_total_relation_size(to_regclass($1)), 0)", partition.name)
    return size


async def _cut_partition(connection: Any, partition: Partition, cap_bytes: int) -> int:
    """Delete a partition's oldest rows until the rest fits, block range by block range; returns how many.

    A file does not shrink when rows are deleted, so what counts is the size of live rows.
    """
    until = await _cut_point(connection, partition, cap_bytes)
    if until is None:
        return 0
    blocks = await connection.fetchval(
        "SELECT pg_relation_size($1::text::regclass) / current_setting('block_size')::int", partition.name
    )
    deleted = 0
    for block in range(0, blocks + 1, DELETE_BLOCKS):
        status = await connection.execute(
            f"DELETE FROM {partition.name} WHERE ctid >= $1::tid AND ctid < $2::tid AND timestamp < $3",  # noqa: S608
            (block, 0),
            (block + DELETE_BLOCKS, 0),
            until,
        )
        deleted += int(status.rpartition(" ")[2])
    await connection.execute(f"VACUUM {partition.name}")  # lets new rows take the space
    return deleted


async def _cut_point(connection: Any, partition: Partition, cap_bytes: int) -> datetime | None:
    """The time before which rows must go; None if the live rows fit."""
    row = await connection.fetchrow(
        f"""
        WITH second AS (
            SELECT date_trunc('second', timestamp) AS at, sum({ROW_BYTES[partition.table]}) AS bytes
              FROM {partition.name} AS kept GROUP BY 1
        ), newer AS (
            SELECT at, sum(bytes) OVER (ORDER BY at DESC) AS bytes FROM second
        )
        SELECT max(bytes) AS total, max(at) FILTER (WHERE bytes > $1::bigint) AS last FROM newer
        """,  # noqa: S608 -- the name is made of a constant and a date
        int(cap_bytes * SLACK),
    )
    if row["total"] is None or row["total"] <= cap_bytes:
        return None
    last: datetime = row["last"]
    return last + timedelta(seconds=1)


async def _purge(connection: Any, retention: Retention, now: datetime) -> int:
    """Forget expired idempotency keys, old incarnations, catalogues, days of use and records of deleted instances without history."""
    history = timedelta(days=max(retention.log_days, retention.event_days))
    await connection.execute(
        "DELETE FROM mcp_idempotency WHERE created_at < $1", now - timedelta(seconds=IDEMPOTENCY_VALID_S)
    )
    await connection.execute(
        """
        DELETE FROM mcp_incarnations USING mcp_instances
         WHERE mcp_instances.id = instance_id AND number < mcp_instances.incarnation
           AND coalesce(ended_at, started_at) < $1
        """,
        now - history,
    )
    await queries_quotas.forget_usage(connection, now)
    # One may have been written while its instance was being deleted.
    await connection.execute(
        "DELETE FROM mcp_catalogues USING mcp_instances WHERE id = instance_id AND deleted_at IS NOT NULL"
    )
    status = await connection.execute("DELETE FROM mcp_instances WHERE deleted_at < $1", now - history)
    return int(status.rpartition(" ")[2])
