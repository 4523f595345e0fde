"""What instances offer: their tools, asked anew while they run and remembered for when they do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from controlplane.core.lifecycle import State
from controlplane.errors import CorralError
from controlplane.model import Role
from controlplane.web.call import Call, Reply, json_reply
from controlplane.web.route import Route
from controlplane.wire.answers import ToolsOut

if TYPE_CHECKING:
    from controlplane.supervise.runner import Runner
    from controlplane.web.services import Services

LIST_WAIT_S = 10.0
"""For a running server to list its tools; after that the catalogue answers."""
KEPT_S = 24 * 3600.0
"""How long a catalogue outlives the control plane, in the cache."""


async def get_tools(call: Call) -> Reply:
    """The server's own list, or the catalogue, marked stale, when it cannot be asked."""
    runner = call.find_runner()
    if runner.state is State.RUNNING:
        tools = await _listed(call.services, runner)
        if tools is not None:
            return json_reply(ToolsOut(tools=tools))
    return json_reply(ToolsOut(tools=await catalogue(call.services, runner), stale=True))


async def catalogue(services: Services, runner: Runner) -> list[dict[str, Any]]:
    """The tools as last seen, in this life or an earlier one; empty when nobody ever asked."""
    if runner.tools is not None:
        return runner.tools
    return await services.cache.get_tools(runner.instance.id) or []


async def _listed(services: Services, runner: Runner) -> list[dict[str, Any]] | None:
    """Ask the server. None when it is away or does not say in time."""
    with trio.move_on_after(LIST_WAIT_S):
        try:
            tools = await runner.list_tools()
        except CorralError:
            return None
        await services.cache.put_tools(runner.instance.id, tools, KEPT_S)
        return tools
    return None


ROUTES = (
    Route(
        "GET",
        "/instances/{id}/tools",
        get_tools,
        operation="listTools",
        summary="List an instance's tools",
        description="Asked anew while it runs. While it is stopped or restarting: as last seen, with `stale` set.",
        tag="Instances",
        role=Role.VIEWER,
        answers={200: ToolsOut},
        problems=("not_found",),
    ),
)
