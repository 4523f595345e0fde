"""What instances offer: asked anew while they run, and remembered for when they do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from controlplane.core.lifecycle import State
from controlplane.errors import CorralError, StorageUnavailable
from controlplane.model import Role, Section
from controlplane.web.call import Call, Reply, json_reply
from controlplane.web.route import Route
from controlplane.wire.answers import PromptsOut, ResourcesOut, ToolsOut

if TYPE_CHECKING:
    from controlplane.supervise.runner import Runner
    from controlplane.web.services import Services

LIST_WAIT_S = 10.0
"""For a running server to list what it offers; after that the catalogue answers."""
WHEN = "Asked anew while it runs. While it is stopped or restarting: as last seen, with `stale` set."


async def get_tools(call: Call) -> Reply:
    """The server's own list, or the catalogue, marked stale, when it cannot be asked."""
    (tools,), stale = await _offered(call, Section.TOOLS)
    return json_reply(ToolsOut(tools=tools, stale=stale))


async def get_prompts(call: Call) -> Reply:
    """As `get_tools`."""
    (prompts,), stale = await _offered(call, Section.PROMPTS)
    return json_reply(PromptsOut(prompts=prompts, stale=stale))


async def get_resources(call: Call) -> Reply:
    """As `get_tools`: what can be read, and the patterns of what else can be."""
    (resources, templates), stale = await _offered(call, Section.RESOURCES, Section.RESOURCE_TEMPLATES)
    return json_reply(ResourcesOut(resources=resources, resource_templates=templates, stale=stale))


async def _offered(call: Call, *sections: Section) -> tuple[list[list[dict[str, Any]]], bool]:
    """The sections' items, and whether they are stale."""
    runner = call.find_runner()
    stale = not await _relisted(runner, *sections)
    return [await catalogue(call.services, runner, section) for section in sections], stale


async def catalogue(services: Services, runner: Runner, section: Section = Section.TOOLS) -> list[dict[str, Any]]:
    """A section as last seen, in this life or an earlier one; empty when nobody ever asked."""
    known = runner.catalogue
    if known.values(section) is None and not known.restored:
        await _recall(services, runner, section)
    return known.values(section) or []


async def _recall(services: Services, runner: Runner, section: Section) -> None:
    """Find what an earlier life saw and the start had no room to read."""
    listing = await services.cache.get_listing(runner.instance.id, section)
    if listing is not None:
        runner.catalogue.restore([listing], all_there_are=False)
        return
    try:
        listings = await services.store.listings_of(runner.instance.id)
    except StorageUnavailable:
        return
    runner.catalogue.restore(listings)


async def _relisted(runner: Runner, *sections: Section) -> bool:
    """Ask the server. False when it is away, or does not say in time."""
    if runner.state is not State.RUNNING:
        return False
    with trio.move_on_after(LIST_WAIT_S):
        try:
            for section in sections:
                await runner.relist(section)
        except CorralError:
            return False
        return True
    return False


ROUTES = (
    Route(
        "GET",
        "/instances/{id}/tools",
        get_tools,
        operation="listTools",
        summary="List an instance's tools",
        description=WHEN,
        tag="Instances",
        role=Role.VIEWER,
        answers={200: ToolsOut},
        problems=("not_found",),
    ),
    Route(
        "GET",
        "/instances/{id}/prompts",
        get_prompts,
        operation="listPrompts",
        summary="List an instance's prompts",
        description=WHEN,
        tag="Instances",
        role=Role.VIEWER,
        answers={200: PromptsOut},
        problems=("not_found",),
    ),
    Route(
        "GET",
        "/instances/{id}/resources",
        get_resources,
        operation="listResources",
        summary="List an instance's resources and resource templates",
        description=WHEN,
        tag="Instances",
        role=Role.VIEWER,
        answers={200: ResourcesOut},
        problems=("not_found",),
    ),
)
