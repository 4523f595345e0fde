"""The schema and how a database gets to it, on a real Postgres."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from controlplane.model import Role, User
from controlplane.secretbox import SecretBox
from controlplane.store import migrate
from controlplane.store.migrate import Schema, SchemaRefused, bring_up, load_schema, plan, schema_path
from controlplane.store.postgres import open_store
from controlplane.store.rows_instances import env_aad
from tests.store.rows import SECRET_KEY, instance, on_connection, spec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services import Postgres

FIRST_SCHEMA = Path(__file__).parent / "schema_0001.sql"
"""`schema.sql` as it stood before the first migration."""
FIRST = Schema(FIRST_SCHEMA.read_text(), 1)


@pytest.fixture
def databases(postgres_server: Postgres) -> Iterator[tuple[str, str]]:
    names = postgres_server.new_database(), postgres_server.new_database()
    yield names
    for name in names:
        postgres_server.drop_database(name)


def shape(postgres: Postgres, database: str) -> list[list[str]]:
    """A database's schema, statement by statement, in no matter which order its columns stand; without partitions."""
    dump = postgres.dump(database, "--schema-only", "--no-owner", "--no-privileges")
    statements = [line for line in dump.splitlines() if line and not line.startswith(("--", "\\", "SET ", "SELECT "))]
    blocks: list[list[str]] = [[]]
    for line in statements:
        blocks[-1].append(line.strip().rstrip(","))
        if line.endswith(";"):
            blocks.append([])
    kept = [[block[0], *sorted(block[1:])] for block in blocks if block and not re.search(r"_\d{8}\b", " ".join(block))]
    return sorted(kept)


def columns(sql: str) -> list[tuple[str, str]]:
    """Every column of every table: its line, and the table."""
    found = []
    for table, body in re.findall(r"CREATE TABLE (\w+) \((.*?)^\)", sql, re.DOTALL | re.MULTILINE):
        lines = [line for line in body.splitlines() if re.match(r"    [a-z]\w+ +\S", line)]
        found += [(table, line.strip()) for line in lines]
    return found


def test_every_table_and_column_says_what_it_is_and_what_null_means() -> None:
    sql = schema_path().read_text()
    tables = re.findall(r"CREATE TABLE (\w+)", sql)
    assert {"mcp_instances", "mcp_instance_logs", "mcp_instance_metrics", "mcp_users", "mcp_tokens"} <= set(tables)
    assert [table for table in tables if f"COMMENT ON TABLE {table} IS" not in sql] == []

    found = columns(sql)
    assert len(found) > 70
    nullable = [(t, line) for t, line in found if "NOT NULL" not in line and "PRIMARY KEY" not in line]
    assert len(nullable) > 12
    assert [(t, line) for t, line in nullable if "NULL:" not in line] == []
    assert [(t, line) for t, line in found if not re.search(r"-- \S+ \S+", line)] == []


def test_every_check_has_a_name_and_every_time_a_zone() -> None:
    sql = re.sub(r"--.*", "", schema_path().read_text())
    assert len(re.findall(r"\bCHECK \(", sql)) == len(re.findall(r"CONSTRAINT \w+ CHECK \(", sql)) > 5
    assert "timestamp without" not in sql
    assert re.findall(r"^\s+\w+\s+timestamp\s+(?!timestamptz)", sql, re.MULTILINE) == []


def test_the_schema_is_found_in_a_checkout_and_inside_an_installed_package(tmp_path: Path) -> None:
    root = Path(migrate.__file__).parents[2]
    assert schema_path() == root / "schema.sql"
    pyproject = (root / "pyproject.toml").read_text()
    assert '"schema.sql" = "controlplane/store/schema.sql"' in pyproject
    assert (Path(migrate.__file__).parent / "migrations").is_dir()


async def test_an_empty_database_gets_the_whole_schema_and_partitions(
    postgres_server: Postgres, databases: tuple[str, str]
) -> None:
    url = postgres_server.url(databases[0])
    at = datetime(2026, 11, 22, 23, 30, tzinfo=UTC)
    assert await on_connection(url, bring_up, now=at) == 0
    assert await on_connection(url, bring_up, now=at) == load_schema().version

    tables = postgres_server.sql(databases[0], "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p')").split()
    assert {"mcp_users", "mcp_instance_logs", "mcp_instance_logs_20261122", "mcp_events_20261125"} <= set(tables)


async def test_the_schema_equals_the_first_schema_and_all_migrations(
    postgres_server: Postgres, databases: tuple[str, str]
) -> None:
    schema = load_schema()
    direct, stepwise = databases
    await on_connection(postgres_server.url(direct), bring_up, schema)
    await on_connection(postgres_server.url(stepwise), bring_up, FIRST)
    await on_connection(postgres_server.url(stepwise), bring_up, schema)

    assert len(shape(postgres_server, direct)) > 40
    assert shape(postgres_server, stepwise) == shape(postgres_server, direct)


async def test_revisions_of_version_2_come_along(postgres_server: Postgres, databases: tuple[str, str]) -> None:
    """Two revisions, of which the second came of a patch and runs."""
    schema, box, made = load_schema(), SecretBox(SECRET_KEY), instance(spec=spec(revision=2, cause="patch"))
    url, database = postgres_server.url(databases[0]), databases[0]
    await on_connection(url, bring_up, FIRST)
    await on_connection(url, bring_up, Schema(schema.sql, 2, schema.migrations[:1]))
    postgres_server.sql(
        database,
        f"""
        INSERT INTO mcp_users (name, role) VALUES ('ada', 'admin');
        INSERT INTO mcp_instances (id, owner, name, language, created_at, updated_at, desired, state, revision, ever_ran)
        VALUES ('{made.id}', 'ada', 'memory', 'node', now(), now(), 'running', 'running', 2, true);
        """,
    )
    for number in (1, 2):
        sealed = box.encrypt(b'{"API_KEY": "planted-secret"}', env_aad("ada", made.id, number))
        postgres_server.sql(
            database,
            f"""
            INSERT INTO mcp_specs (instance_id, revision, source_type, language, command, env, limits, restart,
                                   isolation, sessions)
            VALUES ('{made.id}', {number}, 'mcp_config', 'node',
                    '{json.dumps(attrs.asdict(made.spec.command))}', '\\x{sealed.hex()}', '{{}}', '{{}}',
                    'auto', 'shared');
            """,
        )
    assert await on_connection(url, bring_up, schema) == 2

    async with open_store(url, box, wait_s=5) as store:
        (found,) = await store.instances()
        second, first = await store.revisions(made.id)
        assert (found.spec, found.ever_ran) == (made.spec, True)
        assert (second.spec, first.spec) == (made.spec, spec())
        assert (second.ran_at, first.ran_at) == (found.updated_at, None)
        assert await store.add_revision(found) == 3


ADDED = "    quota       integer,"
STEPS = {
    "0002_quota.sql": "ALTER TABLE mcp_users ADD COLUMN quota integer;",
    "0003_note.sql": "CREATE TABLE mcp_notes (id integer PRIMARY KEY); INSERT INTO mcp_notes VALUES (7);",
}


@pytest.fixture
def later(tmp_path: Path) -> Schema:
    """A later schema, with the two migrations that lead to it."""
    folder = tmp_path / "migrations"
    folder.mkdir()
    for name, sql in STEPS.items():
        (folder / name).write_text(sql)
    (folder / "README.md").write_text("not a migration")
    sql = FIRST.sql.replace("VALUES (1, 'schema')", "VALUES (3, 'schema')")
    # Written before the other columns: where a column stands makes no difference to the comparison.
    sql = sql.replace("CREATE TABLE mcp_users (\n", f"CREATE TABLE mcp_users (\n{ADDED}\n")
    sql += "\nCREATE TABLE mcp_notes (id integer PRIMARY KEY); INSERT INTO mcp_notes VALUES (7);\n"
    (tmp_path / "schema.sql").write_text(sql)
    return load_schema(tmp_path / "schema.sql", folder)


async def test_an_older_database_takes_the_steps_in_order_and_arrives_at_the_same_schema(
    postgres_server: Postgres, databases: tuple[str, str], later: Schema
) -> None:
    direct, stepwise = databases
    await on_connection(postgres_server.url(direct), bring_up, later)
    await on_connection(postgres_server.url(stepwise), bring_up, FIRST)
    assert await on_connection(postgres_server.url(stepwise), bring_up, later) == 1

    assert ADDED.split()[0] in str(shape(postgres_server, direct))
    assert shape(postgres_server, stepwise) == shape(postgres_server, direct)
    versions = "SELECT version || ' ' || name FROM mcp_schema ORDER BY version"
    assert postgres_server.sql(stepwise, versions).splitlines() == ["1 schema", "2 quota", "3 note"]


async def test_the_comparison_sees_a_migration_that_forgot_something(
    postgres_server: Postgres, databases: tuple[str, str], later: Schema
) -> None:
    direct, stepwise = databases
    await on_connection(postgres_server.url(direct), bring_up, later)
    await on_connection(postgres_server.url(stepwise), bring_up, FIRST)
    assert shape(postgres_server, stepwise) != shape(postgres_server, direct)


async def test_a_failing_step_leaves_the_version_before_it_and_can_be_repeated(
    postgres_server: Postgres, databases: tuple[str, str], later: Schema
) -> None:
    database = databases[0]
    url = postgres_server.url(database)
    await on_connection(url, bring_up, FIRST)
    postgres_server.sql(database, "CREATE TABLE mcp_notes (wrong text)")  # the second step stumbles over it
    with pytest.raises(Exception, match="mcp_notes"):
        await on_connection(url, bring_up, later)
    assert postgres_server.sql(database, "SELECT max(version) FROM mcp_schema").strip() == "2"

    postgres_server.sql(database, "DROP TABLE mcp_notes")
    assert await on_connection(url, bring_up, later) == 2
    assert postgres_server.sql(database, "SELECT id FROM mcp_notes").strip() == "7"


async def test_a_schema_that_breaks_off_leaves_an_empty_database(
    postgres_server: Postgres, databases: tuple[str, str]
) -> None:
    url = postgres_server.url(databases[0])
    broken = Schema(load_schema().sql + "\nSELECT 1 / 0;", 1)
    with pytest.raises(Exception, match="division by zero"):
        await on_connection(url, bring_up, broken)
    assert postgres_server.sql(databases[0], "SELECT count(*) FROM pg_class WHERE relname LIKE 'mcp%'").strip() == "0"
    await on_connection(url, bring_up)


async def test_a_newer_database_is_refused_and_left_alone(database_url: str, postgres_server: Postgres) -> None:
    box = SecretBox("k" * 32)
    async with open_store(database_url, box, wait_s=5) as store:
        await store.add_user(User(name="ada", role=Role.ADMIN))
    database = database_url.split("/")[3].split("?")[0]
    newer = load_schema().version + 1
    postgres_server.sql(database, f"INSERT INTO mcp_schema (version, name) VALUES ({newer}, 'later')")
    before = postgres_server.dump(database)

    with trio.fail_after(10), pytest.raises(SchemaRefused, match=rf"schema version {newer}.*up to {newer - 1}"):
        async with open_store(database_url, box, wait_s=60):
            pass
    without_nonce = re.compile(r"^\\(un)?restrict .*$", re.MULTILINE)
    assert without_nonce.sub("", postgres_server.dump(database)) == without_nonce.sub("", before)


async def test_a_database_with_tables_of_somebody_else_under_our_names_is_refused(
    database_url: str, postgres_server: Postgres
) -> None:
    postgres_server.sql(database_url.split("/")[3].split("?")[0], "CREATE TABLE mcp_instances (id integer)")
    with pytest.raises(SchemaRefused, match=r"mcp_instances.*not Corral's"):
        async with open_store(database_url, SecretBox("k" * 32), wait_s=5):
            pass


async def test_a_schema_that_was_damaged_is_refused_with_the_reason(
    database_url: str, postgres_server: Postgres
) -> None:
    postgres_server.sql(database_url.split("/")[3].split("?")[0], "CREATE TABLE mcp_schema (wrong integer)")
    with trio.fail_after(10), pytest.raises(SchemaRefused, match=r'column "version" does not exist'):
        async with open_store(database_url, SecretBox("k" * 32), wait_s=60):
            pass


async def test_a_user_who_may_not_create_tables_is_told_so(database_url: str, postgres_server: Postgres) -> None:
    database = database_url.split("/")[3].split("?")[0]
    postgres_server.sql(database, "DROP ROLE IF EXISTS guest; CREATE ROLE guest LOGIN")
    with pytest.raises(SchemaRefused, match="may not create tables"):
        async with open_store(database_url.replace("corral@", "guest@"), SecretBox("k" * 32), wait_s=5):
            pass


async def test_control_planes_that_start_at_once_apply_the_schema_once(database_url: str) -> None:
    box = SecretBox("k" * 32)
    users: list[list[User]] = []

    async def start(number: int) -> None:
        async with open_store(database_url, box, wait_s=20) as store:
            await store.add_user(User(name=f"user{number}", role=Role.VIEWER))
            users.append(await store.users())

    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(start, number)
    assert max(len(known) for known in users) == 4


async def test_the_schema_is_applied_under_a_lock(database_url: str, postgres_server: Postgres) -> None:
    database = database_url.split("/")[3].split("?")[0]

    async def hold(connection: Any, held: trio.Event, release: trio.Event) -> None:
        await connection.execute("SELECT pg_advisory_lock($1)", migrate.SCHEMA_LOCK)
        held.set()
        while not release.is_set():
            await asyncio.sleep(0.01)

    def waiting() -> bool:
        return postgres_server.sql(database, "SELECT count(*) FROM pg_locks WHERE NOT granted").strip() == "1"

    held, release = trio.Event(), trio.Event()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(on_connection, database_url, hold, held, release)
            await held.wait()
            nursery.start_soon(on_connection, database_url, bring_up)
            while not waiting():
                await trio.sleep(0.01)
            assert postgres_server.sql(database, "SELECT to_regclass('mcp_schema')").strip() == ""
            release.set()
    assert postgres_server.sql(database, "SELECT max(version) FROM mcp_schema").strip() == str(load_schema().version)


@pytest.mark.parametrize(
    ("present", "version", "steps", "needed"),
    [(None, 3, (2, 3), [3]), (1, 3, (2, 3), [2, 3]), (2, 3, (2, 3), [3]), (3, 3, (2, 3), []), (1, 1, (), [])],
)
def test_the_plan_names_what_is_missing(present: int | None, version: int, steps: Any, needed: list[int]) -> None:
    schema = Schema("", version, tuple(migrate.Migration(step, "x", "") for step in steps))
    assert [step.version for step in plan(present, schema)] == needed


def test_migrations_with_a_hole_or_an_odd_name_are_refused(tmp_path: Path) -> None:
    schema = shutil.copy(schema_path(), tmp_path / "schema.sql")
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0003_late.sql").write_text("")
    with pytest.raises(ValueError, match="numbered 0002"):
        load_schema(Path(schema), folder)
    (folder / "0003_late.sql").rename(folder / "third.sql")
    with pytest.raises(ValueError, match="NNNN_words"):
        load_schema(Path(schema), folder)
