"""Calls of the tool `add`, which every server has that is deployed for its language, by a client of either era."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import trio

from tests.e2e.http1 import connected
from tests.e2e.mcp_clients import CAME_S, LEGACY, LegacyClient, ModernClient, said, tool_call

if TYPE_CHECKING:
    from tests.e2e.mcp_clients import Client
    from tests.e2e.plane import Plane


async def assert_adds(plane: Plane, name: str) -> None:
    """A client of each era finds the tool and has two numbers added."""
    async with connected(plane) as http:
        modern, legacy = ModernClient(http, f"/mcp/{name}"), LegacyClient(http, f"/mcp/{name}")
        with trio.fail_after(CAME_S):
            initialized = await legacy.initialize()
            assert initialized["result"]["protocolVersion"] == LEGACY
            clients: tuple[Client, ...] = (modern, legacy)
            for number, client in enumerate(clients, 2):
                assert await _tools(client) == ["add"]
                assert await _sum(client, number, 40) == number + 40
            assert await legacy.delete() in (200, 204)


async def _request(client: Client, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    assert isinstance(client, ModernClient | LegacyClient)
    return await client.request(method, params)


async def _tools(client: Client) -> list[str]:
    response = await _request(client, "tools/list")
    assert "result" in response, response
    return [tool["name"] for tool in response["result"]["tools"]]


async def _sum(client: Client, a: int, b: int) -> int:
    """What it answers is the number, or an object that has it."""
    answer = json.loads(said(await _request(client, "tools/call", tool_call("add", a=a, b=b))))
    value: int = answer["sum"] if isinstance(answer, dict) else answer
    return value
