"""The route table: every method of every path, served and documented from here.

The last group is served in front of Quart (`asgi_routes.py`, and plain ones by
the hot lane); it stands here so that the document names it.
"""

from __future__ import annotations

from controlplane.model import Role
from controlplane.web import (
    catalogue,
    deploys,
    docs,
    health,
    history,
    instances,
    logs,
    prometheus,
    stats,
    tokens,
    users,
)
from controlplane.web.route import Route
from controlplane.wire.answers import CallOut
from controlplane.wire.deploy import ExecuteIn

LAST_EVENT_ID = {
    "Last-Event-ID": {"description": "Go on after this event; what is gone by then is told as a `gap` event."}
}

FRONT_ROUTES = (
    Route(
        "POST",
        "/mcp/{id}/execute",
        None,
        operation="execute",
        summary="Call an MCP server",
        description=(
            "The JSON-RPC answer exactly as the server gave it, its `error` included. A server that is starting is waited"
            " for, within the call's own time. With `Accept: text/event-stream`, progress and log notifications come as"
            " events before the answer."
        ),
        tag="Calls",
        role=Role.CALLER,
        body=ExecuteIn,
        example={"method": "tools/list", "params": {}},
        answers={200: CallOut},
        problems=(
            "not_found",
            "not_acceptable",
            "not_running",
            "rate_limited",
            "instance_crashed",
            "bad_child_message",
            "instance_unavailable",
            "busy",
            "overloaded",
            "shutting_down",
            "call_timeout",
        ),
    ),
    Route(
        "GET",
        "/mcp/{id}/stream",
        None,
        operation="streamInstance",
        summary="Follow one instance's events",
        description=(
            "Server-sent events without `event:` names: `connected`, then `status`, `log`, `notification`, `call`, `sample`,"
            " `post_mortem`, `tools_changed`, and a `heartbeat` every 15 s. A reader that falls behind gets a last `lagged`."
        ),
        tag="Events",
        role=Role.VIEWER,
        answers={200: "text/event-stream"},
        problems=("not_found", "not_acceptable"),
        headers=LAST_EVENT_ID,
    ),
    Route(
        "GET",
        "/events",
        None,
        operation="streamFleet",
        summary="Follow everything the caller may see",
        description="As an instance's stream, for all of them, but without their log lines and notifications.",
        tag="Events",
        role=Role.VIEWER,
        answers={200: "text/event-stream"},
        problems=("not_acceptable",),
        headers=LAST_EVENT_ID,
    ),
)

ROUTES: tuple[Route, ...] = docs.with_documentation(
    *deploys.ROUTES,
    *instances.ROUTES,
    *catalogue.ROUTES,
    *FRONT_ROUTES,
    *logs.ROUTES,
    *history.ROUTES,
    *tokens.ROUTES,
    *users.ROUTES,
    *health.ROUTES,
    *stats.ROUTES,
    *prometheus.ROUTES,
)
