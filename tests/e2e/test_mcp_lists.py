"""What MCP clients list while the server cannot be asked, or need not be."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests import servers
from tests.e2e.http1 import connected
from tests.e2e.mcp_clients import CAME_S, LegacyClient, ModernClient, said, tool_call
from tests.e2e.plane import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.e2e.mcp_clients import Client, Message
    from tests.e2e.plane import Plane

KNOWN_S = 20.0
in_thread = trio.to_thread.run_sync


@asynccontextmanager
async def clients(
    plane: Plane, name: str, era: str, **environment: str
) -> AsyncIterator[tuple[ModernClient, LegacyClient]]:
    """A client of each era, for an instance that goes with the block."""
    source = servers.source("eras.py")
    await in_thread(
        lambda: plane.deploy(name, source, environment_vars={"ERA": era, **environment}, restart={"max_delay_s": 30})
    )
    try:
        async with connected(plane) as http:
            with trio.fail_after(CAME_S):
                yield ModernClient(http, f"/mcp/{name}"), LegacyClient(http, f"/mcp/{name}")
    finally:
        plane.request("DELETE", f"/instances/{name}")


async def tools(client: ModernClient) -> list[str]:
    return names(await client.request("tools/list"))


def names(response: Message) -> list[str]:
    assert "result" in response, response
    return [tool["name"] for tool in response["result"]["tools"]]


async def call(client: Client, tool: str, **arguments: Any) -> str:
    assert isinstance(client, ModernClient)
    return said(await client.request("tools/call", tool_call(tool, **arguments)))


async def times_asked(client: ModernClient) -> int:
    """How often the server was asked for its tools."""
    times: int = json.loads(await call(client, "asked")).get("tools/list", 0)
    return times


def kept(plane: Plane, name: str) -> list[str]:
    """The tools that the catalogue has."""
    return [tool["name"] for tool in plane.instance(name)["tools"]]


async def down(plane: Plane, client: ModernClient, name: str, fault: str, status: str) -> None:
    """Kill the server, and let the next one never come to serve."""
    await call(client, "fault", fault=f"all {fault}")
    assert "error" in await client.request("tools/call", tool_call("die"))
    await in_thread(plane.wait_status, name, status)


@pytest.mark.parametrize(("fault", "status"), [("hangs", "starting"), ("dies", "restarting")])
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_lists_are_answered_while_the_server_restarts(plane: Plane, era: str, fault: str, status: str) -> None:
    async with clients(plane, f"{era}-{fault}", era) as (modern, _):
        before = await tools(modern)
        await in_thread(wait_until, lambda: kept(plane, f"{era}-{fault}") == before, KNOWN_S, "the tools")
        await down(plane, modern, f"{era}-{fault}", fault, status)

        response = await modern.request("tools/list")
        assert names(response) == before
        result = response["result"]
        assert (result["resultType"], result["ttlMs"], result["cacheScope"]) == ("complete", 0, "private")
        assert (await modern.request("resources/list"))["result"]["resources"]


async def test_a_stopped_instance_lists_nothing(plane: Plane) -> None:
    async with clients(plane, "stopped", "modern") as (modern, _):
        await tools(modern)
        await in_thread(plane.request, "POST", "/instances/stopped/stop?wait=30")

        response = await modern.request("tools/list")

        assert response["error"]["data"]["code"] == "not_running"


async def test_a_list_that_the_server_lets_be_cached_is_not_asked_for_again_until_it_changes(plane: Plane) -> None:
    async with clients(plane, "cached", "modern", TTL_MS="3600000") as (modern, _):
        asked = -1
        with trio.fail_after(KNOWN_S):
            while asked != await times_asked(modern):  # Corral asks as well, until it knows that it hears of changes
                asked = await times_asked(modern)
                first, second = await modern.request("tools/list"), await modern.request("tools/list")
        assert names(first) == names(second)
        assert 0 < second["result"]["ttlMs"] <= first["result"]["ttlMs"] <= 3600000
        assert second["result"]["cacheScope"] == "public"
        await call(modern, "grow", name="new")
        with trio.fail_after(KNOWN_S):
            while "new" not in await tools(modern):
                await trio.sleep(0.05)


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_what_clients_list_is_known_from_then_on(plane: Plane, era: str) -> None:
    name = f"folded-{era}"
    async with clients(plane, name, era) as (modern, legacy):
        await in_thread(wait_until, lambda: kept(plane, name), KNOWN_S, "the tools")
        await call(modern, "grow", name="one", quiet=True)
        assert "one" in await tools(modern)
        assert "one" in kept(plane, name)

        await call(modern, "grow", name="two", quiet=True)
        await legacy.initialize()
        assert "two" in names(await legacy.request("tools/list"))
        assert "two" in kept(plane, name)
