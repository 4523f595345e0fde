"""Servers that people really deploy, from npm and PyPI, in both protocol eras, and the official clients with them."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import trio

from tests.e2e.plane import text_of
from tests.matrix.outcomes import VERSIONS
from tests.matrix.plan import OF_THE_SDK, Plan, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.plane import Plane

pytestmark = pytest.mark.network
START_S = 180
"""Most of it download, on a slow line."""


def deployed(plane: Plane, name: str, command: str, *args: str, **body: Any) -> dict[str, Any]:
    plane.deploy(name, wait=START_S, mcp_config={"command": command, "args": list(args)}, **body)
    return plane.instance(name)


@pytest.fixture(scope="module")
def memory(plane: Plane) -> dict[str, Any]:
    return deployed(plane, "memory", "npx", "-y", "@modelcontextprotocol/server-memory")


@pytest.fixture(scope="module")
def everything(plane: Plane) -> dict[str, Any]:
    return deployed(plane, "everything", "npx", "-y", "@modelcontextprotocol/server-everything")


@pytest.fixture(scope="module")
def shelf(plane: Plane) -> Path:
    """A folder that the instance's own user can read."""
    folder = plane.folder / "shelf"
    folder.mkdir(mode=0o755)
    (folder / "note.txt").write_text("read me")
    (folder / "note.txt").chmod(0o644)
    return folder


@pytest.fixture(scope="module")
def filesystem(plane: Plane, shelf: Path) -> dict[str, Any]:
    return deployed(plane, "filesystem", "npx", "-y", "@modelcontextprotocol/server-filesystem", str(shelf))


@pytest.fixture(scope="module")
def time(plane: Plane) -> dict[str, Any]:
    return deployed(plane, "time", "uvx", "mcp-server-time")


@pytest.fixture(scope="module")
def repository(plane: Plane) -> str:
    """A repository that the instance's own user can read."""
    folder = plane.folder / "repository"
    folder.mkdir(mode=0o755)
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run(["git", "init", "-q", folder], check=True)
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "first light"], cwd=folder, check=True)
    subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
    return str(folder)


@pytest.fixture(scope="module")
def git(plane: Plane, repository: str) -> dict[str, Any]:
    git_trusts = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    return deployed(plane, "git", "uvx", "mcp-server-git", "--repository", repository, environment_vars=git_trusts)


@pytest.mark.needs("node")
class TestNpm:
    """Legacy-era servers."""

    def test_memory_keeps_a_graph_across_calls(self, plane: Plane, memory: dict[str, Any]) -> None:
        entity = {"name": "Ada", "entityType": "person", "observations": ["wrote the first program"]}

        plane.tool("memory", "create_entities", entities=[entity])
        graph = json.loads(plane.tool("memory", "read_graph"))

        assert graph["entities"][0]["name"] == "Ada"
        assert memory["protocol"]["era"] == "legacy"

    @pytest.mark.usefixtures("everything")
    def test_everything_reports_progress_to_a_streaming_caller(self, plane: Plane) -> None:
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

    def test_time_converts_in_the_modern_era(self, plane: Plane, time: dict[str, Any]) -> None:
        answer = plane.execute(
            "time", "tools/call", {"name": "get_current_time", "arguments": {"timezone": "Europe/Berlin"}}
        )

        assert time["protocol"]["era"] == "modern"
        assert "Europe/Berlin" in text_of(answer)

    @pytest.mark.needs("git")
    @pytest.mark.usefixtures("git")
    def test_git_reads_a_log(self, plane: Plane, repository: str) -> None:
        assert "first light" in plane.tool("git", "git_log", repo_path=repository)


CLIENTS = ("python-legacy", "python-modern", "typescript-legacy", "typescript2-modern")


class TestOfficialClients:
    """Each lists the tools and calls one, through the MCP endpoint and in the era that it prefers."""

    pytestmark: ClassVar = [pytest.mark.needs("npm"), *OF_THE_SDK]

    async def call(self, plane: Plane, name: str, tool: str, **arguments: Any) -> dict[str, str]:
        """What a call comes to, by client; they come at the same time."""
        texts: dict[str, str] = {}

        async def call_by(client: str) -> None:
            features = ("introduction", "one_call")
            plan = Plan(client, f"{plane.url}/mcp/{name}", plane.token, features, tool=tool, arguments=arguments)
            outcomes = await run(plan)
            assert outcomes["introduction"]["version"] == VERSIONS[plan.era]
            assert tool in outcomes["one_call"]["tools"], outcomes
            texts[client] = outcomes["one_call"]["text"]

        async with trio.open_nursery() as nursery:
            for client in CLIENTS:
                nursery.start_soon(call_by, client)
        return texts

    @pytest.mark.usefixtures("memory")
    async def test_memory(self, plane: Plane) -> None:
        texts = await self.call(plane, "memory", "read_graph")

        assert {tuple(json.loads(text)) for text in texts.values()} == {("entities", "relations")}

    @pytest.mark.usefixtures("everything")
    async def test_everything(self, plane: Plane) -> None:
        texts = await self.call(plane, "everything", "echo", message="hello")

        assert set(texts.values()) == {"Echo: hello"}

    @pytest.mark.usefixtures("filesystem")
    async def test_filesystem(self, plane: Plane, shelf: Path) -> None:
        """It asks for the client's roots, outside of any call, and takes these for what it may read."""
        texts = await self.call(plane, "filesystem", "read_text_file", path=str(shelf / "note.txt"))

        assert set(texts.values()) == {"read me"}

    @pytest.mark.usefixtures("time")
    async def test_time(self, plane: Plane) -> None:
        texts = await self.call(plane, "time", "get_current_time", timezone="Europe/Berlin")

        assert {json.loads(text)["timezone"] for text in texts.values()} == {"Europe/Berlin"}

    @pytest.mark.needs("git")
    @pytest.mark.usefixtures("git")
    async def test_git(self, plane: Plane, repository: str) -> None:
        texts = await self.call(plane, "git", "git_log", repo_path=repository)

        assert all("first light" in text for text in texts.values())
