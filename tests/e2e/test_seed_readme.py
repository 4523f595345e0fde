"""Every request of the founding README, as it is printed there; only the repository is another."""

from __future__ import annotations

import base64
import json
import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import pytest

from tests.e2e.plane import STRONGEST, is_alive, open_plane, text_of
from tests.e2e.sources import in_base64, zip_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.plane import Plane
    from tests.e2e.sources import Origin

EXAMPLES = Path(__file__).parents[2] / "examples"
FIELDS = ("instance_id", "name", "language", "status", "created_at", "sse_endpoint", "api_endpoint")


@pytest.fixture(scope="module")
def plane(origin: Origin) -> Iterator[Plane]:
    with open_plane(**STRONGEST, **origin.settings) as opened:
        yield opened.start()


def deploy(plane: Plane, path: str, body: dict[str, Any]) -> httpx.Response:
    return plane.request("POST", f"{path}?wait=120", json=body)


def direct(name: str, file: str, language: str, entry_point: str) -> dict[str, Any]:
    return {
        "name": name,
        "source_type": "direct",
        "source_data": base64.b64encode((EXAMPLES / file).read_bytes()).decode(),
        "language": language,
        "entry_point": entry_point,
        "dependencies": [],
    }


def test_the_python_sample_deploys_and_answers_in_order_without_ids(plane: Plane) -> None:
    answer = deploy(plane, "/deploy", direct("calculator-server", "calculator.py", "python", "server.py"))

    assert answer.status_code == 201, answer.text
    for _ in range(5):
        listed = plane.execute("calculator-server", "tools/list", {}).json()["result"]["tools"]
        assert [(tool["name"], tool["description"]) for tool in listed] == [("calculator", "Basic calculator")]
    unknown = plane.execute("calculator-server", "no/such/method")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (200, -32601)


@pytest.mark.needs("node")
def test_the_node_sample_deploys_and_answers(plane: Plane) -> None:
    answer = deploy(plane, "/deploy", direct("timestamp-server", "timestamp.js", "javascript", "server.js"))

    assert answer.status_code == 201, answer.text
    assert answer.json()["language"] == "node"
    listed = plane.execute("timestamp-server", "tools/list", {}).json()["result"]["tools"]
    assert [tool["name"] for tool in listed] == ["timestamp"]


@pytest.mark.needs("npm")
def test_the_node_sample_as_an_archive_is_found_by_its_package_json(plane: Plane) -> None:
    manifest = b'{"name": "mcp-node-server", "version": "1.0.0", "main": "server.js", "dependencies": {}}'
    archive = zip_of({"package.json": manifest, "server.js": (EXAMPLES / "timestamp.js").read_bytes()})
    body = {"name": "zipped-server", "source_type": "zip", "source_data": in_base64(archive)}

    answer = deploy(plane, "/api/v2/deploy", body)

    assert answer.status_code == 201, answer.text
    assert (answer.json()["language"], answer.json()["entry_point"]) == ("node", "server.js")
    listed = plane.execute("zipped-server", "tools/list", {}).json()["result"]["tools"]
    assert [tool["name"] for tool in listed] == ["timestamp"]


USES_BOTH = b"""
import os

import aiofiles
import requests

assert requests.get and aiofiles.open and os.environ["API_KEY"] == "secret"
"""


@pytest.mark.needs("git")
@pytest.mark.network
def test_the_traditional_upload_builds_a_repository_with_its_dependencies(plane: Plane, origin: Origin) -> None:
    """The server of the README, made to need what the request has."""
    server = USES_BOTH + (EXAMPLES / "calculator.py").read_bytes()
    body = {
        "name": "my-mcp-server",
        "source_type": "git",
        "source_url": origin.publish("mcp-server", {"server.py": server}),
        "language": "python",
        "entry_point": "server.py",
        "dependencies": ["requests", "aiofiles"],
        "environment_vars": {"API_KEY": "secret"},
    }

    answer = deploy(plane, "/api/v2/deploy", body)

    assert answer.status_code == 201, answer.text
    document = answer.json()
    assert (document["language"], document["status"]) == ("python", "running")
    assert document["resolved"]["commit"] == origin.commit_of("mcp-server", "main")
    listed = plane.execute("my-mcp-server", "tools/list", {}).json()["result"]["tools"]
    assert [tool["name"] for tool in listed] == ["calculator"]


@pytest.mark.needs("node")
@pytest.mark.network
def test_the_recommended_deploy_answers_with_the_documented_fields(plane: Plane) -> None:
    body = {
        "name": "memory-server",
        "source_type": "mcp_config",
        "mcp_config": {
            "command": "npx",
            "args": ["-y", "@modelcontextprotocol/server-memory"],
            "env": {"NODE_ENV": "production"},
        },
        "environment_vars": {"MEMORY_SIZE": "1GB"},
    }

    answer = deploy(plane, "/api/v2/deploy", body)

    assert answer.status_code == 201, answer.text
    document = answer.json()
    assert set(FIELDS) <= set(document)
    assert str(UUID(document["instance_id"])) == document["instance_id"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", document["created_at"])
    assert datetime.fromisoformat(document["created_at"]).tzinfo is not None
    assert document["sse_endpoint"] == f"/mcp/{document['instance_id']}/stream"
    assert document["api_endpoint"] == f"/mcp/{document['instance_id']}/execute"
    assert (document["status"], document["language"]) == ("running", "node")
    detail = plane.instance("memory-server")
    assert sorted(detail["environment_vars"]) == ["MEMORY_SIZE", "NODE_ENV"]
    assert "1GB" not in json.dumps(detail)


@pytest.mark.needs("node")
@pytest.mark.network
def test_the_filesystem_example_works_in_a_tmp_of_its_own(plane: Plane) -> None:
    body = {
        "name": "filesystem-server",
        "source_type": "mcp_config",
        "mcp_config": {
            "command": "npx",
            "args": ["-y", "@modelcontextprotocol/server-filesystem", "/tmp/allowed"],
            "cwd": "/tmp",
        },
    }
    assert deploy(plane, "/api/v2/deploy", body).status_code == 201

    file = {"path": "/tmp/allowed/note.txt", "content": "kept in"}
    written = plane.execute("filesystem-server", "tools/call", {"name": "write_file", "arguments": file})
    read = plane.execute(
        "filesystem-server", "tools/call", {"name": "read_text_file", "arguments": {"path": file["path"]}}
    )

    assert "Successfully" in text_of(written)
    assert text_of(read) == "kept in"


@pytest.mark.needs("node")
@pytest.mark.network
def test_the_postgres_example_fails_with_a_hint_at_the_working_form(plane: Plane) -> None:
    body = {
        "name": "postgres-server",
        "source_type": "mcp_config",
        "mcp_config": {
            "command": "npx",
            "args": ["-y", "@modelcontextprotocol/server-postgres"],
            "env": {"POSTGRES_CONNECTION_STRING": "postgresql://user:pass@localhost/dbname"},
        },
    }

    answer = deploy(plane, "/api/v2/deploy", body)

    document = answer.json()
    assert (answer.status_code, document["code"], document["exit_code"]) == (422, "deploy_failed", 1)
    assert "last argument" in document["hint"]
    assert "Please provide a database URL" in document["stderr_tail"][-1]
    assert plane.instance("postgres-server")["status"] == "failed"


def test_the_stream_begins_with_connected_as_documented(plane: Plane) -> None:
    instance = plane.deploy("streamed")

    with plane.client() as client, client.stream("GET", instance["sse_endpoint"]) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        line = next(line for line in answer.iter_lines() if line.startswith("data:"))

    event = json.loads(line.removeprefix("data:"))
    assert (event["type"], event["instance_id"]) == ("connected", instance["instance_id"])


def test_delete_stops_removes_and_is_harmless_twice(plane: Plane) -> None:
    instance = plane.deploy("short-lived")
    pid = instance["pid"]

    first = plane.request("DELETE", f"/mcp/{instance['instance_id']}")
    second = plane.request("DELETE", f"/mcp/{instance['instance_id']}")

    assert first.status_code == 200
    assert first.json()["status"] == "stopped"
    assert not is_alive(pid)
    assert second.status_code == 404
    assert all(row["name"] != "short-lived" for row in plane.instances())


def test_health_and_statistics_answer_as_documented(plane: Plane) -> None:
    with httpx.Client(base_url=plane.url, trust_env=False) as anonymous:
        health = anonymous.get("/health").json()

    assert health["status"] == "healthy"
    assert health["services"]["redis"] == "connected"
    assert health["services"]["mcp_manager"] == "healthy"
    assert isinstance(health["active_instances"], int)
    assert plane.get("/stats")["orphans"] == 0
