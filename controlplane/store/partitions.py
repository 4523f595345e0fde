"""History by day: which partitions exist, which are needed, which may go (names and decisions are pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from attrs import frozen

LOGS, METRICS, EVENTS, AUDIT = "mcp_instance_logs", "mcp_instance_metrics", "mcp_events", "mcp_audit"
HISTORY = (LOGS, METRICS, EVENTS, AUDIT)
DAYS_AHEAD = 3
"""Partitions made before they are needed; a write makes a missing one itself."""
PARTITION_LOCK = 0x636F_7273
"""Advisory lock: two control planes must not make the same partition at once."""
DDL_LOCK_TIMEOUT = "1500ms"
"""A partition is made or dropped under a lock that stops every writer behind it: rather try again later."""

_NAME = re.compile(r"^(mcp_\w+)_(\d{4})(\d{2})(\d{2})$")


@frozen(order=True)
class Partition:
    """One day (UTC) of one table."""

    day: date
    table: str

    @property
    def name(self) -> str:
        return f"{self.table}_{self.day:%Y%m%d}"

    @classmethod
    def of(cls, table: str, at: datetime) -> Partition:
        return cls(at.astimezone(UTC).date(), table)

    @classmethod
    def named(cls, name: str) -> Partition | None:
        """Read a partition's name; None if it is not one of ours."""
        found = _NAME.match(name)
        if found is None or found[1] not in HISTORY:
            return None
        try:
            return cls(date(int(found[2]), int(found[3]), int(found[4])), found[1])
        except ValueError:
            return None


def ahead(now: datetime) -> list[Partition]:
    """What must exist by now: today and the next days, of each table."""
    today = now.astimezone(UTC).date()
    return [Partition(today + timedelta(days=n), table) for table in HISTORY for n in range(DAYS_AHEAD + 1)]


def outdated(partitions: Iterable[Partition], keep_days: dict[str, int], now: datetime) -> list[Partition]:
    """Those whose last row is older than `keep_days` of their table, in days."""
    today = now.astimezone(UTC).date()
    return sorted(p for p in partitions if p.day < today - timedelta(days=keep_days[p.table]))


def over_size(sizes: Sequence[tuple[Partition, int]], cap_bytes: int) -> list[Partition]:
    """The oldest partitions to drop until the rest fits `cap_bytes`; the newest always stays."""
    oldest_first = sorted(sizes)
    total = sum(size for _, size in oldest_first)
    dropped: list[Partition] = []
    for partition, size in oldest_first[:-1]:
        if total <= cap_bytes:
            break
        dropped.append(partition)
        total -= size
    return dropped


async def tables(connection: Any) -> set[str]:
    """The tables of history that the database has: one of an earlier version lacks the later ones."""
    rows = await connection.fetch(
        "SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(name) IS NOT NULL", list(HISTORY)
    )
    return {row["name"] for row in rows}


async def existing(connection: Any) -> set[Partition]:
    """The partitions that the database has."""
    rows = await connection.fetch(
        """
        SELECT child.relname FROM pg_inherits
          JOIN pg_class AS child ON child.oid = inhrelid
         WHERE inhparent IN (SELECT to_regclass(name) FROM unnest($1::text[]) AS name)
        """,
        list(HISTORY),
    )
    return {found for row in rows if (found := Partition.named(row["relname"])) is not None}


async def create(connection: Any, wanted: Iterable[Partition]) -> None:
    """Make partitions that do not exist yet, inside a transaction of its own."""
    async with connection.transaction():
        await connection.execute("SELECT set_config('lock_timeout', $1, true)", DDL_LOCK_TIMEOUT)
        await connection.execute("SELECT pg_advisory_xact_lock($1)", PARTITION_LOCK)
        for partition in sorted(wanted):
            await connection.execute(_create_statement(partition))


def _create_statement(partition: Partition) -> str:
    until = partition.day + timedelta(days=1)
    return (
        f"CREATE TABLE IF NOT EXISTS {partition.name} PARTITION OF {partition.table} "
        f"FOR VALUES FROM ('{partition.day} 00:00+00') TO ('{until} 00:00+00')"
    )


async def drop(connection: Any, partition: Partition) -> None:
    """Forget one day of one table, inside a transaction of its own."""
    async with connection.transaction():
        await connection.execute("SELECT set_config('lock_timeout', $1, true)", DDL_LOCK_TIMEOUT)
        await connection.execute(f"DROP TABLE IF EXISTS {partition.name}")
