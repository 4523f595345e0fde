"""What changes while the server runs, who has asked to hear of it, and how they are told in their era."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mcp_types as types
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    PromptsListChanged,
    ResourceUpdated,
    ServerEvent,
    ToolsListChanged,
)

if TYPE_CHECKING:
    from asking import Call
    from mcp.server import ServerRequestContext

LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
"""From the least severe on (RFC 5424)."""

BUS = InMemorySubscriptionBus()
"""Carries events to the `subscriptions/listen` requests of the modern era."""

_added: set[str] = set()
_watched: set[str] = set()
_level = LEVELS[0]


def toggle(kind: str) -> None:
    """Add what comes and goes to the tools or prompts, or take it away."""
    _added.symmetric_difference_update({kind})


def is_added(kind: str) -> bool:
    return kind in _added


async def tell(call: Call, event: ServerEvent) -> None:
    """Tell whoever listens: by the bus in the modern era, by a plain notification in the legacy one."""
    if call.is_modern:
        await BUS.publish(event)
        return
    session = call.ctx.session
    if isinstance(event, ToolsListChanged):
        await session.send_tool_list_changed()
    elif isinstance(event, PromptsListChanged):
        await session.send_prompt_list_changed()
    elif isinstance(event, ResourceUpdated) and event.uri in _watched:
        await session.send_resource_updated(event.uri)


async def log(ctx: ServerRequestContext, level: Any, text: str) -> None:
    """Write a log message to the client of this request, unless it wants only more severe ones."""
    if LEVELS.index(level) >= LEVELS.index(_level):
        await ctx.session.send_log_message(level, text, related_request_id=ctx.request_id)


async def set_level(ctx: ServerRequestContext, params: types.SetLevelRequestParams) -> types.EmptyResult:
    global _level
    _level = params.level
    return types.EmptyResult()


async def subscribe(ctx: ServerRequestContext, params: types.SubscribeRequestParams) -> types.EmptyResult:
    _watched.add(params.uri)
    return types.EmptyResult()


async def unsubscribe(ctx: ServerRequestContext, params: types.UnsubscribeRequestParams) -> types.EmptyResult:
    _watched.discard(params.uri)
    return types.EmptyResult()
