"""Writing history: a batch in one transaction, by COPY where rows are many (asyncio)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import asyncpg

from controlplane.store.partitions import AUDIT, EVENTS, LOGS, METRICS, Partition, create, existing
from controlplane.store.queries_catalogues import UPSERT_LISTING, listing_row
from controlplane.store.queries_quotas import add_usage
from controlplane.store.rows import evidence_json
from controlplane.store.rows_history import (
    AUDIT_COLUMNS,
    LOG_COLUMNS,
    METRIC_COLUMNS,
    audit_row,
    incarnation_row,
    log_row,
    sample_row,
)
from controlplane.store.text import clean_text

if TYPE_CHECKING:
    from controlplane.store.values import Batch, EventRow, Observation

EVENT_COLUMNS = ("instance_id", "owner", "type", "data", "timestamp")

UPDATE_OBSERVED = """
    UPDATE mcp_instances
       SET state = $2, phase = $3, restarts = $4, incarnation = $5, uid = $7, last_error = $8,
           ever_ran = CASE WHEN revision = $10 THEN $6 ELSE ever_ran END, updated_at = greatest(updated_at, $9)
     WHERE id = $1 AND epoch = $11
"""
"""What a node saw that holds the instance no more does not count: its epoch is past."""
UPDATE_RAN = """
    UPDATE mcp_specs SET ran_at = seen.at
      FROM unnest($1::uuid[], $2::integer[], $3::timestamptz[]) AS seen (instance_id, revision, at)
     WHERE mcp_specs.instance_id = seen.instance_id AND mcp_specs.revision = seen.revision AND ran_at IS NULL
"""
"""For all observations of a batch at once: a look at as many keys, and a row is written once in its life."""
UPSERT_INCARNATION = """
    INSERT INTO mcp_incarnations (instance_id, number, pid, started_at, ended_at, exit_code, signal, post_mortem, revision)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
    ON CONFLICT (instance_id, number) DO UPDATE
       SET pid = excluded.pid, started_at = excluded.started_at, ended_at = excluded.ended_at,
           exit_code = excluded.exit_code, signal = excluded.signal, post_mortem = excluded.post_mortem, revision = excluded.revision
"""


def partitions_of(batch: Batch) -> set[Partition]:
    """The partitions that a batch's rows belong to."""
    return {
        *(Partition.of(LOGS, line.at) for line in batch.logs),
        *(Partition.of(METRICS, sample.at) for _, sample in batch.samples),
        *(Partition.of(EVENTS, event.at) for event in batch.events),
        *(Partition.of(AUDIT, row.at) for row in batch.audit),
    }


async def write(connection: Any, batch: Batch, known: set[Partition]) -> None:
    """Write a batch; all of it or nothing.

    Args:
        known: Partitions that are known to exist; what is learnt is added.
    """
    await _ensure(connection, partitions_of(batch), known)
    try:
        await _write(connection, batch)
    except asyncpg.CheckViolationError:
        # Somebody dropped a partition that we knew: "no partition of relation found for row".
        known.clear()
        await _ensure(connection, partitions_of(batch), known)
        await _write(connection, batch)


async def _ensure(connection: Any, needed: set[Partition], known: set[Partition]) -> None:
    if needed <= known:
        return
    known |= await existing(connection)
    if missing := needed - known:
        await create(connection, missing)
        known |= missing


async def _write(connection: Any, batch: Batch) -> None:
    async with connection.transaction():
        await _copy(connection, LOGS, LOG_COLUMNS, map(log_row, batch.logs))
        await _copy(connection, METRICS, METRIC_COLUMNS, (sample_row(*pair) for pair in batch.samples))
        await _copy(connection, EVENTS, EVENT_COLUMNS, map(_event_row, batch.events))
        await _copy(connection, AUDIT, AUDIT_COLUMNS, map(audit_row, batch.audit))
        # In order of id: two writers of several rows must lock them in the same order.
        observations = sorted(batch.observations, key=lambda seen: seen.instance_id)
        if observations:
            await connection.executemany(UPDATE_OBSERVED, map(_observation_row, observations))
        if ran := [seen for seen in observations if seen.ever_ran]:
            columns = [seen.instance_id for seen in ran], [seen.revision for seen in ran], [seen.at for seen in ran]
            await connection.execute(UPDATE_RAN, *columns)
        if batch.incarnations:
            await connection.executemany(UPSERT_INCARNATION, map(incarnation_row, batch.incarnations))
        if batch.usage:
            await add_usage(connection, batch.usage)
        if batch.listings:
            await connection.executemany(UPSERT_LISTING, map(listing_row, batch.listings))


async def _copy(connection: Any, table: str, columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    records = list(rows)
    if records:
        await connection.copy_records_to_table(table, records=records, columns=columns)


def _event_row(event: EventRow) -> tuple[Any, ...]:
    return event.instance_id, event.owner, clean_text(event.type)[0], event.data, event.at


def _observation_row(seen: Observation) -> tuple[Any, ...]:
    return (
        seen.instance_id,
        seen.state.value,
        clean_text(seen.phase)[0],
        seen.restarts,
        seen.incarnation,
        seen.ever_ran,
        seen.uid,
        evidence_json(seen.last_error),
        seen.at,
        seen.revision,
        seen.epoch,
    )
