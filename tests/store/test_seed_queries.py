"""The three queries that the documentation shows work as written there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest

from controlplane.core.lifecycle import PUBLIC_STATUS, State
from controlplane.model import Resolved
from controlplane.store.values import Batch, observation
from tests.store.rows import ago, instance, line, sample, spec

if TYPE_CHECKING:
    from controlplane.store.postgres import PostgresStore
    from tests.services import Postgres

INSTANCES = """
-- List all instances
SELECT name, language, status, created_at FROM mcp_instances;
"""
LOGS = """
-- Get instance logs
SELECT log_level, message, timestamp
FROM mcp_instance_logs
WHERE instance_id = 'your-uuid'
ORDER BY timestamp DESC;
"""
METRICS = """
-- Instance metrics
SELECT cpu_usage, memory_usage, timestamp
FROM mcp_instance_metrics
WHERE instance_id = 'your-uuid'
ORDER BY timestamp DESC LIMIT 10;
"""


@pytest.fixture
def database(database_url: str) -> str:
    return database_url.split("/")[3].split("?")[0]


async def test_instances_are_listed(store: PostgresStore, postgres_server: Postgres, database: str) -> None:
    await store.add_instance(instance("memory"), quota=10)
    name, language, status, created_at = postgres_server.sql(database, INSTANCES).strip().split("|")
    assert (name, language, status) == ("memory", "node", "pending")
    assert created_at.startswith("20")


async def test_a_language_that_was_found_in_the_source_is_listed(
    store: PostgresStore, postgres_server: Postgres, database: str
) -> None:
    made = instance("found", spec=spec(language=""))
    await store.add_instance(made, quota=10)
    assert postgres_server.sql(database, INSTANCES).split("|")[:3] == ["found", "", "pending"]
    await store.set_resolved(made.id, 1, Resolved(language="go"))
    assert postgres_server.sql(database, INSTANCES).split("|")[:3] == ["found", "go", "pending"]


async def test_the_status_column_speaks_the_words_of_the_api(
    store: PostgresStore, postgres_server: Postgres, database: str
) -> None:
    words = {}
    for state in State:
        made = instance(state.value)
        await store.add_instance(made, quota=20)
        await store.write(Batch(observations=(observation(attrs.evolve(made, state=state), phase=""),)))
        words[state.value] = PUBLIC_STATUS[state]
    gone = instance("gone")
    await store.add_instance(gone, quota=20)
    await store.delete_instance(gone.id)
    words["gone"] = "deleted"

    rows = [row.split("|") for row in postgres_server.sql(database, INSTANCES).split("\n") if row]
    assert {row[0]: row[2] for row in rows} == words


async def test_logs_of_an_instance_come_newest_first(
    store: PostgresStore, postgres_server: Postgres, database: str
) -> None:
    made = instance()
    lines = (line(made.id, "first", at=ago(days=1)), line(made.id, "second", level="error"), line(instance().id, "x"))
    await store.write(Batch(logs=lines))

    rows = postgres_server.sql(database, LOGS.replace("your-uuid", str(made.id))).strip().split("\n")
    assert [row.split("|")[:2] for row in rows] == [["error", "second"], ["info", "first"]]


async def test_the_latest_ten_metrics_of_an_instance_come_newest_first(
    store: PostgresStore, postgres_server: Postgres, database: str
) -> None:
    made = instance()
    samples = tuple(
        (made.id, sample(cpu_percent=float(n), memory_mb=n + 0.5, at=ago(seconds=60 - n))) for n in range(12)
    )
    await store.write(Batch(samples=samples))

    rows = postgres_server.sql(database, METRICS.replace("your-uuid", str(made.id))).strip().split("\n")
    assert [row.split("|")[:2] for row in rows] == [[str(n), f"{n}.5"] for n in range(11, 1, -1)]
