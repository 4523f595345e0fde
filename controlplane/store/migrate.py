"""Bring a database to the schema this program knows, or refuse it; plain asyncio.

`schema.sql` is the whole schema and stamps its version. An empty database gets it
in one transaction; an older one gets the migrations in between, each in its own
transaction, in order. All of it happens under an advisory lock, so any number of
control planes may start at once, and a crash leaves a whole version behind. There
is no way back: a database of a newer version is refused, never touched.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
from attrs import frozen

from controlplane.store import partitions

log = logging.getLogger(__name__)

SCHEMA_LOCK = 0x636F_7274
"""Advisory lock of whoever changes the schema."""
MIGRATIONS = Path(__file__).parent / "migrations"

_FILE = re.compile(r"^(\d{4})_([a-z0-9_]+)\.sql$")
_STAMP = re.compile(r"INSERT INTO mcp_schema \(version, name\) VALUES \((\d+), 'schema'\)")


class SchemaRefused(Exception):
    """The database cannot be used as it is; the message says what to do. A reason not to start."""


@frozen
class Migration:
    """One step: it brings a database of `version - 1` to `version`."""

    version: int
    name: str
    sql: str


@frozen
class Schema:
    """The schema's text, its version, and the steps that led to it, in order."""

    sql: str
    version: int
    migrations: tuple[Migration, ...] = ()


def schema_path() -> Path:
    """`schema.sql`: at the root of a checkout, inside the package where it was installed."""
    packaged = Path(__file__).parent / "schema.sql"
    return packaged if packaged.exists() else Path(__file__).parents[2] / "schema.sql"


def load_schema(path: Path | None = None, migrations: Path = MIGRATIONS) -> Schema:
    """Read the schema and its migrations.

    Raises:
        ValueError: the files contradict each other: a bug of ours.
    """
    sql = (path or schema_path()).read_text(encoding="utf-8")
    stamp = _STAMP.search(sql)
    if stamp is None:
        raise ValueError("schema.sql stamps no version")
    steps = tuple(sorted((_read(file) for file in migrations.glob("*.sql")), key=lambda step: step.version))
    version = int(stamp[1])
    if [step.version for step in steps] != list(range(2, version + 1)):
        raise ValueError(f"schema.sql is version {version}: migrations must be numbered 0002 to {version:04}")
    return Schema(sql, version, steps)


def _read(file: Path) -> Migration:
    found = _FILE.match(file.name)
    if found is None:
        raise ValueError(f"a migration is named NNNN_words.sql, not {file.name}")
    return Migration(int(found[1]), found[2], file.read_text(encoding="utf-8"))


def plan(present: int | None, schema: Schema) -> Sequence[Migration]:
    """Decide what a database of version `present` (None: empty) still needs.

    Raises:
        SchemaRefused: it is of a newer version.
    """
    if present is None:
        return (Migration(schema.version, "schema", schema.sql),)
    if present > schema.version:
        raise SchemaRefused(
            f"the database has schema version {present}, and this Corral knows versions up to {schema.version}: "
            "start the newer Corral that wrote it, or use another DATABASE_URL"
        )
    return tuple(step for step in schema.migrations if step.version > present)


async def bring_up(connection: Any, schema: Schema | None = None, *, now: datetime | None = None) -> int:
    """Bring the database up to date and make the partitions of the days to come.

    Returns:
        The version it came from; 0 if it was empty.

    Raises:
        SchemaRefused: a newer version, tables that are not ours, missing rights, a too old Postgres.
    """
    schema = schema or load_schema()
    refuse_old_server(connection)
    await connection.execute("SELECT pg_advisory_lock($1)", SCHEMA_LOCK)
    try:
        present = await present_version(connection)
        for step in plan(present, schema):
            await _apply(connection, step, stamped=step.name == "schema")
        tables = await partitions.tables(connection)
        wanted = {partition for partition in partitions.ahead(now or datetime.now(UTC)) if partition.table in tables}
        if missing := wanted - await partitions.existing(connection):
            await partitions.create(connection, missing)
        return present or 0
    finally:
        if not connection.is_closed():
            await connection.execute("SELECT pg_advisory_unlock($1)", SCHEMA_LOCK)


OLDEST_POSTGRES = 14
"""`date_bin` and ranges of ctid came with it; older ones get no fixes any more."""


def refuse_old_server(connection: Any) -> None:
    """Raises SchemaRefused: the server is of an older line than Corral needs."""
    major = connection.get_server_version().major
    if major < OLDEST_POSTGRES:
        raise SchemaRefused(f"this is Postgres {major}; Corral needs {OLDEST_POSTGRES} or later")


async def present_version(connection: Any) -> int | None:
    """The schema's version that a database has; None: it has no table of ours.

    Raises:
        SchemaRefused: it has tables that look like ours, and no version.
    """
    if await connection.fetchval("SELECT to_regclass('mcp_schema')") is not None:
        version: int | None = await connection.fetchval("SELECT max(version) FROM mcp_schema")
        if version is None:
            raise SchemaRefused("the table mcp_schema is empty: restore the database from a backup, or use another one")
        return version
    foreign = await connection.fetchval(
        """
        SELECT min(relname) FROM pg_class
         WHERE relname LIKE 'mcp\\_%' AND relkind IN ('r', 'p', 'v') AND relnamespace = current_schema()::regnamespace
        """
    )
    if foreign is not None:
        raise SchemaRefused(
            f"the database has a table {foreign} and no schema version: it is not Corral's. "
            "Use an empty database: CREATE DATABASE corral"
        )
    return None


async def _apply(connection: Any, step: Migration, *, stamped: bool) -> None:
    log.info("database: applying schema version %d (%s)", step.version, step.name)
    try:
        async with connection.transaction():
            await connection.execute(step.sql)
            if not stamped:
                await connection.execute(
                    "INSERT INTO mcp_schema (version, name) VALUES ($1, $2)", step.version, step.name
                )
    except asyncpg.InsufficientPrivilegeError as error:
        raise SchemaRefused(
            f"the database's user may not create tables ({error}): make it the owner of the database"
        ) from None
