"""The server: its tools, prompts and resources, put behind the methods of the protocol."""

from __future__ import annotations

from typing import Any

import changes
import mcp_types as types
import prompts
import resources
import rounds  # noqa: F401  # its tools, after those of `tools`
import tools
import waiting  # noqa: F401  # likewise
from asking import Call, InputRequired
from mcp.server import Server
from mcp.server.subscriptions import ListenHandler
from mcp.shared.exceptions import MCPError


def make_server() -> Server[Any]:
    return Server(
        "corral-conformance",
        version="1.0.0",
        instructions="Every tool does what its description says, for the test that calls it.",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_completion=prompts.complete,
        on_list_resources=resources.list_resources,
        on_list_resource_templates=resources.list_templates,
        on_read_resource=resources.read,
        on_subscribe_resource=changes.subscribe,
        on_unsubscribe_resource=changes.unsubscribe,
        on_set_logging_level=changes.set_level,
        on_subscriptions_listen=ListenHandler(changes.BUS),
    )


def offered_tools() -> dict[str, tools.Offer]:
    return tools.TOOLS | ({"not_always_there": tools.ADDED} if changes.is_added("tools") else {})


def offered_prompts() -> dict[str, prompts.Offer]:
    return prompts.PROMPTS | ({"not_always_there": prompts.ADDED} if changes.is_added("prompts") else {})


async def list_tools(ctx: Any, params: Any) -> types.ListToolsResult:
    return types.ListToolsResult(tools=[offer.listed(name) for name, offer in offered_tools().items()])


async def list_prompts(ctx: Any, params: Any) -> types.ListPromptsResult:
    return types.ListPromptsResult(prompts=[offer.listed(name) for name, offer in offered_prompts().items()])


async def call_tool(ctx: Any, params: types.CallToolRequestParams) -> types.CallToolResult | types.InputRequiredResult:
    offer = offered_tools().get(params.name)
    if offer is None:
        raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name}")
    try:
        content = await offer.run(Call(ctx, params))
    except InputRequired as needed:
        return needed.result
    except tools.ToolFailed as failed:
        return types.CallToolResult(content=[types.TextContent(text=str(failed))], is_error=True)
    return types.CallToolResult(content=[types.TextContent(text=content)] if isinstance(content, str) else content)


async def get_prompt(
    ctx: Any, params: types.GetPromptRequestParams
) -> types.GetPromptResult | types.InputRequiredResult:
    offer = offered_prompts().get(params.name)
    if offer is None:
        raise MCPError(types.INVALID_PARAMS, f"Unknown prompt: {params.name}")
    try:
        content = await offer.fill(Call(ctx, params))
    except InputRequired as needed:
        return needed.result
    return types.GetPromptResult(description=offer.description, messages=[prompts.message(part) for part in content])
