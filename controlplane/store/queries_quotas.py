"""What owners may have, held against what they have, and what they have used by day: units of work (asyncio).

Whatever may come to need more of an owner's memory holds the owner's lock from the look to the commit, and takes
it before any row: two that fit alone are not both let through.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from attrs import frozen

from controlplane.core.lifecycle import Desired
from controlplane.core.quotas import UNLIMITED, memory_exceeded, refusal_of_instances, refusal_of_memory
from controlplane.model import UsageDay
from controlplane.store.values import USAGE_DAYS_KEPT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controlplane.model import Instance

OWNER_LOCK = 0x636F_7272
"""First key of the advisory lock that serialises what one owner may have of; the second is the owner's hash."""

SUM_MEMORY = """
    SELECT coalesce(sum((spec.limits ->> 'memory_mb')::int) FILTER (WHERE instance.id <> $2), 0) AS others,
           coalesce(sum((spec.limits ->> 'memory_mb')::int) FILTER (WHERE instance.id = $2), 0) AS own
      FROM mcp_instances AS instance
      JOIN mcp_specs AS spec ON spec.instance_id = instance.id AND spec.revision = instance.revision
     WHERE instance.owner = $1 AND instance.deleted_at IS NULL AND instance.desired = 'running'
"""
SELECT_STARTING = """
    SELECT instance.owner, (spec.limits ->> 'memory_mb')::int AS memory_mb
      FROM mcp_instances AS instance
      JOIN mcp_specs AS spec ON spec.instance_id = instance.id AND spec.revision = instance.revision
     WHERE instance.id = $1 AND instance.deleted_at IS NULL
"""
ADD_USAGE = """
    INSERT INTO mcp_usage_days AS kept (owner, day, cpu_s, calls, errors, bytes_in, bytes_out, peak_memory_mb)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (owner, day) DO UPDATE
       SET cpu_s = kept.cpu_s + excluded.cpu_s, calls = kept.calls + excluded.calls, errors = kept.errors + excluded.errors,
           bytes_in = kept.bytes_in + excluded.bytes_in, bytes_out = kept.bytes_out + excluded.bytes_out,
           peak_memory_mb = greatest(kept.peak_memory_mb, excluded.peak_memory_mb)
"""
"""Every control plane adds what it has seen."""
SELECT_USAGE = """
    SELECT owner, day, cpu_s, calls, errors, bytes_in, bytes_out, peak_memory_mb FROM mcp_usage_days
     WHERE day >= $1 AND owner = coalesce($2, owner) ORDER BY day DESC, owner
"""


@frozen
class Room:
    """How many instances an owner may have, and how much memory those that run may be allowed together, MiB (0: any)."""

    instances: int
    memory_mb: int = UNLIMITED


async def lock_owner(connection: Any, owner: str) -> None:
    """Let nobody else change how much this owner has, until the transaction ends."""
    await connection.execute("SELECT pg_advisory_xact_lock($1, hashtext($2))", OWNER_LOCK, owner)


async def refuse_over_instances(connection: Any, owner: str, quota: int) -> None:
    """Raises QuotaExceeded when there are as many as may be; the caller holds the owner's lock."""
    count = await connection.fetchval(
        "SELECT count(*) FROM mcp_instances WHERE owner = $1 AND deleted_at IS NULL", owner
    )
    if count >= quota:
        raise refusal_of_instances(count, quota)


async def refuse_over_memory(connection: Any, instance: Instance, quota_mb: int) -> None:
    """Raises QuotaExceeded when an instance with these limits is too much to run; takes the owner's lock."""
    if quota_mb != UNLIMITED and instance.desired is Desired.RUNNING:
        await _refuse(connection, instance.owner, instance.id, instance.spec.limits.memory_mb, quota_mb)


async def refuse_start_over_memory(connection: Any, instance_id: UUID, quota_mb: int) -> None:
    """As `refuse_over_memory`, for an instance as it stands in the database; nothing if it is gone."""
    row = None if quota_mb == UNLIMITED else await connection.fetchrow(SELECT_STARTING, instance_id)
    if row is not None:
        await _refuse(connection, row["owner"], instance_id, row["memory_mb"], quota_mb)


async def _refuse(connection: Any, owner: str, instance_id: UUID, wanted_mb: int, quota_mb: int) -> None:
    await lock_owner(connection, owner)
    row = await connection.fetchrow(SUM_MEMORY, owner, instance_id)
    exceeded = memory_exceeded(quota_mb, others_mb=row["others"], before_mb=row["own"], wanted_mb=wanted_mb)
    if exceeded is not None:
        raise refusal_of_memory(exceeded, wanted_mb)


async def usage_days(connection: Any, since: date, owner: str | None) -> list[UsageDay]:
    """What was used on each day from `since` on, newest first; None: of everybody."""
    rows = await connection.fetch(SELECT_USAGE, since, owner)
    return [UsageDay(**dict(row)) for row in rows]


async def add_usage(connection: Any, days: Sequence[UsageDay]) -> None:
    """Add what was used; in order, as two writers of several rows must lock them in the same."""
    rows = sorted(days, key=lambda row: (row.owner, row.day))
    await connection.executemany(ADD_USAGE, [_usage_row(row) for row in rows])


async def forget_usage(connection: Any, now: datetime) -> None:
    """Delete days that are past their time."""
    await connection.execute("DELETE FROM mcp_usage_days WHERE day < $1", now.date() - timedelta(days=USAGE_DAYS_KEPT))


def _usage_row(row: UsageDay) -> tuple[Any, ...]:
    return (
        row.owner,
        row.day,
        row.cpu_s,
        row.calls,
        row.errors,
        row.bytes_in,
        row.bytes_out,
        row.peak_memory_mb,
    )
