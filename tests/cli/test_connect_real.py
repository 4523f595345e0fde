"""What `corral connect` writes lets the official client in, over HTTP and as a command."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import trio
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from tests.cli.terminal import COMMAND, ROOT
from tests.e2e.plane import plane

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.plane import Plane

__all__ = ["plane"]

LIMIT_S = 30


@pytest.fixture(scope="module")
def echo(plane: Plane) -> Iterator[str]:
    plane.deploy("echo")
    yield "echo"
    plane.corral("rm", "echo")


def entry_of(plane: Plane, *arguments: str, **variables: str) -> dict[str, Any]:
    """Run `corral connect … --write --json`, and return what it wrote."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(plane.folder), "PYTHONPATH": str(ROOT), **variables}
    command = [*COMMAND, "connect", "echo", "--write", "--json", "--client", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    written = json.loads(done.stdout)
    document = json.loads((plane.folder / written["file"]).read_text())
    assert document["mcpServers"]["echo"] == written["entry"]
    entry: dict[str, Any] = written["entry"]
    return entry


async def said_over_http(entry: dict[str, Any]) -> str:
    async with (
        httpx2.AsyncClient(headers=entry["headers"]) as http,
        Client(streamable_http_client(entry["url"], http_client=http)) as client,
    ):
        answer = await client.call_tool("echo", {"text": "hello"})
        text: str = answer.content[0].text
        return text


async def said_by_command(entry: dict[str, Any]) -> str:
    """As a client starts it: with this environment, and nothing of the test's."""
    words = entry["args"][entry["args"].index("proxy") :]  # `./corral` may install something first
    command, *arguments = [*COMMAND, *words]
    variables = entry.get("env", {}) | {"PYTHONPATH": str(ROOT)}
    async with Client(StdioServerParameters(command=command, args=arguments, env=variables)) as client:
        answer = await client.call_tool("echo", {"text": "hello"})
        text: str = answer.content[0].text
        return text


async def test_a_token_made_for_a_client_lets_it_in_until_it_is_removed(plane, echo):
    entry = entry_of(plane, "cursor", "--new-token", CORRAL_URL=plane.url, CORRAL_TOKEN=plane.token)
    with trio.fail_after(LIMIT_S):
        assert await said_over_http(entry) == "hello"
        assert plane.corral("token", "rm", "cursor: echo").returncode == 0
        with pytest.raises(Exception):  # noqa: B017, PT011  (a group, of whatever the SDK makes of a 401)
            await said_over_http(entry)


async def test_a_command_with_a_token_of_its_own_lets_a_client_in(plane, echo):
    entry = entry_of(plane, "claude-desktop", CORRAL_URL=plane.url, CORRAL_TOKEN=plane.token)
    assert entry["env"]["CORRAL_TOKEN"] != plane.token
    with trio.fail_after(LIMIT_S):
        assert await said_by_command(entry) == "hello"


async def test_a_command_that_finds_the_credentials_needs_no_token(plane, echo):
    entry = entry_of(plane, "cline", CORRAL_HOME=str(plane.home))
    assert entry["env"] == {"CORRAL_HOME": str(plane.home)}
    with trio.fail_after(LIMIT_S):
        assert await said_by_command(entry) == "hello"
