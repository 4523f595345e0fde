"""Servers that people really deploy, from npm and PyPI, in both protocol eras."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.plane import text_of

if TYPE_CHECKING:
    from tests.e2e.plane import Plane

pytestmark = pytest.mark.network
START_S = 180
"""Most of it download, on a slow line."""


def deployed(plane: Plane, name: str, command: str, *args: str, **body: Any) -> dict[str, Any]:
    plane.deploy(name, wait=START_S, mcp_config={"command": command, "args": list(args)}, **body)
    return plane.instance(name)


@pytest.mark.needs("node")
class TestNpm:
    """Legacy-era servers."""

    def test_memory_keeps_a_graph_across_calls(self, plane: Plane) -> None:
        instance = deployed(plane, "memory", "npx", "-y", "@modelcontextprotocol/server-memory")
        entity = {"name": "Ada", "entityType": "person", "observations": ["wrote the first program"]}

        plane.tool("memory", "create_entities", entities=[entity])
        graph = json.loads(plane.tool("memory", "read_graph"))

        assert graph["entities"][0]["name"] == "Ada"
        assert instance["protocol"]["era"] == "legacy"

    def test_everything_reports_progress_to_a_streaming_caller(self, plane: Plane) -> None:
        deployed(plane, "everything", "npx", "-y", "@modelcontextprotocol/server-everything")
        names = [tool["name"] for tool in plane.get("/instances/everything/tools")["tools"]]
        long_running = next(name for name in names if "long" in name.lower() and "running" in name.lower())
        call = {"name": long_running, "arguments": {"duration": 1, "steps": 3}}

        with (
            plane.client() as client,
            client.stream(
                "POST",
                "/mcp/everything/execute",
                json={"method": "tools/call", "params": call},
                headers={"Accept": "text/event-stream"},
            ) as answer,
        ):
            lines = [line for line in answer.iter_lines() if line.startswith("data:")]

        messages = [json.loads(line.removeprefix("data:")) for line in lines]
        progress = [m["params"]["progress"] for m in messages if m.get("method") == "notifications/progress"]
        assert progress == [1, 2, 3]
        assert "result" in messages[-1]

    def test_github_of_the_oldest_protocol_lists_its_tools_without_a_token(self, plane: Plane) -> None:
        instance = deployed(plane, "github", "npx", "-y", "@modelcontextprotocol/server-github")

        listed = plane.get("/instances/github/tools")["tools"]

        assert instance["protocol"]["version"] == "2024-11-05"
        assert "search_repositories" in {tool["name"] for tool in listed}


class TestPyPI:
    """Dual-era servers: they are talked to in the modern one."""

    def test_time_converts_in_the_modern_era(self, plane: Plane) -> None:
        instance = deployed(plane, "time", "uvx", "mcp-server-time")

        answer = plane.execute(
            "time", "tools/call", {"name": "get_current_time", "arguments": {"timezone": "Europe/Berlin"}}
        )

        assert instance["protocol"]["era"] == "modern"
        assert "Europe/Berlin" in text_of(answer)

    @pytest.fixture
    def repository(self, plane: Plane) -> str:
        """A repository that the instance's own user can read."""
        folder = plane.folder / "repository"
        folder.mkdir(mode=0o755)
        identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        subprocess.run(["git", "init", "-q", folder], check=True)
        subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "first light"], cwd=folder, check=True)
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
        return str(folder)

    @pytest.mark.needs("git")
    def test_git_reads_a_log(self, plane: Plane, repository: str) -> None:
        git_trusts = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
        deployed(plane, "git", "uvx", "mcp-server-git", "--repository", repository, environment_vars=git_trusts)

        assert "first light" in plane.tool("git", "git_log", repo_path=repository)
