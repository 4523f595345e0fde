"""A database of every earlier version, with rows in every table that it had, arrives whole at the present one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio

from controlplane.secretbox import SecretBox
from controlplane.store.migrate import Schema, bring_up, load_schema
from controlplane.store.postgres import open_store
from controlplane.store.rows_instances import env_aad
from tests.store.rows import SECRET_KEY, instance, on_connection
from tests.store.test_schema import FIRST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services import Postgres

LATEST = load_schema()
OLDER = range(1, LATEST.version)
MADE = instance()
BOX = SecretBox(SECRET_KEY)
ENV = BOX.encrypt(b'{"API_KEY": "planted-secret"}', env_aad("ada", MADE.id, 1)).hex()
DELETED = "00000000-0000-4000-8000-000000000001"
ROWS = {
    1: f"""
INSERT INTO mcp_users (name, role, disabled) VALUES ('ada', 'admin', false), ('bob', 'viewer', true);
INSERT INTO mcp_tokens (id, owner, name, role, digest, expires_at) VALUES
    (gen_random_uuid(), 'ada', 'ci', 'caller', decode(repeat('ab', 32), 'hex'), now() + interval '1 day'),
    (gen_random_uuid(), 'bob', 'ünï', 'viewer', decode(repeat('cd', 32), 'hex'), NULL);
INSERT INTO mcp_instances (id, owner, name, language, created_at, updated_at, desired, state, revision, ever_ran, labels)
    VALUES ('{MADE.id}', 'ada', 'memory', 'node', now(), now(), 'running', 'running', 1, true, '{{"team": "ö"}}');
INSERT INTO mcp_instances (id, owner, name, language, created_at, updated_at, desired, state, revision, deleted_at)
    VALUES ('{DELETED}', 'bob', 'gone', 'python', now(), now(), 'deleted', 'stopped', 1, now());
INSERT INTO mcp_specs (instance_id, revision, source_type, language, command, env, limits, restart, isolation, sessions)
    VALUES ('{MADE.id}', 1, 'mcp_config', 'node', '{json.dumps({"command": "npx", "args": ["-y", "x"], "cwd": None})}',
            '\\x{ENV}', '{{}}', '{{}}', 'auto', 'shared');
INSERT INTO mcp_incarnations (instance_id, number, pid, started_at, ended_at, exit_code, post_mortem)
    VALUES ('{MADE.id}', 1, 4711, now(), now(), 3, '{{"code": "crash", "reason": "ü"}}'), ('{MADE.id}', 2, 4712, now(), NULL, NULL, NULL);
INSERT INTO mcp_idempotency (owner, key, body_digest, instance_id, created_at)
    VALUES ('ada', 'key-1', '\\x00', '{MADE.id}', now());
INSERT INTO mcp_instance_logs (instance_id, log_level, message, timestamp, stream, incarnation)
    SELECT '{MADE.id}', 'info', 'line ' || n, now(), 'stderr', 1 FROM generate_series(1, 500) AS n;
INSERT INTO mcp_instance_metrics (instance_id, cpu_usage, memory_usage, timestamp, processes, calls, errors)
    SELECT '{MADE.id}', n, 64, now() - n * interval '1 s', 1, n, 0 FROM generate_series(1, 50) AS n;
INSERT INTO mcp_events (instance_id, owner, type, data, timestamp)
    SELECT '{MADE.id}', 'ada', 'status', jsonb_build_object('n', n), now() FROM generate_series(1, 50) AS n;
""",
    2: f"""
INSERT INTO mcp_catalogues (instance_id, section, items, digest, seen_at)
    VALUES ('{MADE.id}', 'tools', '[]', decode(repeat('00', 32), 'hex'), now());
""",
    6: f"""
INSERT INTO mcp_secrets (owner, name, box)
    VALUES ('ada', 'TOKEN', '\\x{BOX.encrypt(b"v", b"").hex()}');
""",
    7: """
INSERT INTO mcp_usage_days (owner, day, cpu_s, calls, errors, bytes_in, bytes_out, peak_memory_mb)
    VALUES ('ada', '2026-01-02', 1.5, 2, 1, 3, 4, 5.5);
""",
}
"""By the version that brought the table; with the columns that it had then."""


def at_version(number: int) -> Schema:
    """The schema as it was, reached from the first by the steps that there were."""
    return Schema(LATEST.sql, number, LATEST.migrations[: number - 1])


@pytest.fixture
def database(postgres_server: Postgres) -> Iterator[str]:
    name = postgres_server.new_database()
    yield name
    postgres_server.drop_database(name)


async def fill(postgres: Postgres, database: str, number: int) -> None:
    await on_connection(postgres.url(database), bring_up, FIRST)
    await on_connection(postgres.url(database), bring_up, at_version(number))
    for since, rows in ROWS.items():
        if since <= number:
            postgres.sql(database, rows)


def rows_of(postgres: Postgres, database: str) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table, but for the versions' own; partitions by what they are part of."""
    tables = postgres.sql(
        database,
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition AND relname LIKE 'mcp\\_%'"
        " AND relname <> 'mcp_schema' ORDER BY 1",
    ).split()
    return {
        table: [json.loads(line) for line in postgres.sql(database, _EVERY_ROW.format(table)).splitlines()]
        for table in tables
    }


_EVERY_ROW = "SELECT row_to_json(t) FROM {0} AS t ORDER BY row_to_json(t)::text"


def key(row: dict[str, Any], columns: set[str]) -> str:
    return json.dumps({name: row.get(name, "missing") for name in sorted(columns)})


def test_every_table_of_every_version_has_rows_here() -> None:
    made = {number: step.sql for number, step in enumerate(LATEST.migrations, 2)} | {1: FIRST.sql}
    for number in OLDER:
        tables = {word for word in made[number].split() if word.startswith("mcp_")}
        new = {table for table in tables if f"CREATE TABLE {table} (" in made[number]} - {"mcp_schema"}
        assert {table for table in new if f"INSERT INTO {table} (" not in ROWS.get(number, "")} == set()


@pytest.mark.parametrize("number", OLDER)
async def test_what_was_in_an_older_database_is_in_the_present_one(
    postgres_server: Postgres, database: str, number: int
) -> None:
    await fill(postgres_server, database, number)
    before = rows_of(postgres_server, database)
    assert all(before.values()), "a table is empty"

    async with open_store(postgres_server.url(database), BOX, wait_s=5) as store:
        await store.check_keys()
        (found,) = await store.instances()
        assert (found.name, found.labels, found.spec.env) == ("memory", {"team": "ö"}, {"API_KEY": "planted-secret"})
        assert {user.name for user in await store.users()} == {"ada", "bob"}

    after = rows_of(postgres_server, database)
    for table, rows in before.items():
        columns = set(rows[0])
        assert sorted(key(row, columns) for row in after[table]) == sorted(key(row, columns) for row in rows), table
    steps = "SELECT string_agg(version::text, ' ' ORDER BY version) FROM mcp_schema"
    assert postgres_server.sql(database, steps).strip() == " ".join(map(str, range(1, LATEST.version + 1)))


@pytest.mark.parametrize("number", [1, LATEST.version - 1])
async def test_control_planes_that_start_at_once_on_an_older_database_migrate_it_once_and_all_come_up(
    postgres_server: Postgres, database: str, number: int
) -> None:
    await fill(postgres_server, database, number)
    up: list[int] = []
    all_up = trio.Event()

    async def start() -> None:
        async with open_store(postgres_server.url(database), BOX, wait_s=20) as store:
            up.append(len(await store.instances()))
            if len(up) == 3:
                all_up.set()
            await all_up.wait()

    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(start)
    assert up == [1, 1, 1]
    assert postgres_server.sql(database, "SELECT count(*) FROM mcp_schema").strip() == str(LATEST.version)
