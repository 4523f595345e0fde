"""The route table: every method of every path, served and documented from here.

The last group is served in front of Quart (`asgi_routes.py`, and plain ones by
the hot lane); it stands here so that the document names it.
"""

from __future__ import annotations

from controlplane.model import Role
from controlplane.web import (
    audit,
    catalogue,
    deploys,
    docs,
    fleet_history,
    health,
    history,
    incarnations,
    installs,
    instances,
    isolation,
    logs,
    nodes,
    prometheus,
    resource,
    revisions,
    runtimes,
    secrets,
    stats,
    tokens,
    usage,
    users,
    wiretap,
)
from controlplane.web.asgi_mcp import MessagesQuery
from controlplane.web.route import Route
from controlplane.wire.answers import CallOut
from controlplane.wire.deploy import ExecuteIn
from controlplane.wire.mcp import McpMessageIn, McpMessageOut

LAST_EVENT_ID = {
    "Last-Event-ID": {"description": "Go on after this event; what is gone by then is told as a `gap` event."}
}

INITIALIZE = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "curl", "version": "8"}}
VERSION = {"MCP-Protocol-Version": {"description": "The version that the client speaks; absent: 2025-03-26."}}
SESSION = {"Mcp-Session-Id": {"description": "From the answer to `initialize`, in versions that have sessions."}}
RESUME = {"Last-Event-ID": {"description": "Go on after this event, of whichever of the session's streams it was."}}
MIRRORED = {
    "Mcp-Method": {"description": "As in the body, from 2026-07-28 on."},
    "Mcp-Name": {"description": "The tool, prompt or resource that the body names, from 2026-07-28 on."},
}
ENDPOINT_PROBLEMS = ("not_found", "not_acceptable", "rate_limited", "overloaded", "shutting_down")

FRONT_ROUTES = (
    Route(
        "POST",
        "/mcp/{id}",
        None,
        operation="postMcpMessage",
        summary="Speak MCP to an instance",
        description=(
            "The standard MCP endpoint (Streamable HTTP, every version from 2024-11-05 to 2026-07-28): give this URL and a"
            " token to any MCP client, whatever version the server behind it speaks. A request is answered as JSON, or as"
            " an event stream when there is more to say than its result; a notification or an answer with 202. A message"
            " that cannot be answered gets a JSON-RPC error, whose code is the status of the problem where it is Corral"
            " that failed; a request that is not let in (host, token, role, size, name) gets the problem itself. After an owner's name, `execute`,"
            " `stream`, `sse` and `messages` are routes: an instance that is called so is named by its id there."
        ),
        tag="Calls",
        role=Role.CALLER,
        body=McpMessageIn,
        example={"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": INITIALIZE},
        answers={
            200: (McpMessageOut, "text/event-stream"),
            202: None,
            400: McpMessageOut,
            404: McpMessageOut,
            406: McpMessageOut,
        },
        problems=ENDPOINT_PROBLEMS,
        headers={**VERSION, **SESSION, **MIRRORED},
    ),
    Route(
        "GET",
        "/mcp/{id}",
        None,
        operation="openMcpStream",
        summary="Open a session's own event stream, or go on with one that broke off",
        description="For clients of versions with sessions (2025-03-26 to 2025-11-25); for others it is a 405.",
        tag="Calls",
        role=Role.CALLER,
        answers={
            200: "text/event-stream",
            400: McpMessageOut,
            404: McpMessageOut,
            405: McpMessageOut,
            406: McpMessageOut,
            409: McpMessageOut,
        },
        problems=(*ENDPOINT_PROBLEMS, "method_not_allowed"),
        headers={**VERSION, **SESSION, **RESUME},
    ),
    Route(
        "GET",
        "/mcp/{id}/sse",
        None,
        operation="openMcpSse",
        summary="Speak MCP the way of 2024-11-05 (deprecated)",
        description=(
            "HTTP+SSE: the first event, `endpoint`, says where to post messages; everything the server says comes as"
            " `message` events here. Newer clients use `/mcp/{id}`."
        ),
        tag="Calls",
        role=Role.CALLER,
        answers={200: "text/event-stream"},
        problems=ENDPOINT_PROBLEMS,
    ),
    Route(
        "POST",
        "/mcp/{id}/messages",
        None,
        operation="postMcpSseMessage",
        summary="Post a message of a 2024-11-05 session (deprecated)",
        description="Where it is comes with the first event of `/mcp/{id}/sse`, and so does the answer.",
        tag="Calls",
        role=Role.CALLER,
        query=MessagesQuery,
        body=McpMessageIn,
        example={"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
        answers={202: None, 400: McpMessageOut, 404: McpMessageOut},
        problems=("not_found", "rate_limited", "overloaded", "shutting_down"),
    ),
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
            "quota_exceeded",
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
            " `changed`, `post_mortem`, `tools_changed`, and a `heartbeat` every 15 s. A reader that falls behind gets a last `lagged`."
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
        description=(
            "As an instance's stream, for all of them, but without their log lines and notifications. `deployed`, `changed`,"
            " `status`, `sample` and `deleted` keep a table of instances true without asking again. Administrators get"
            " `services` too, when what Corral needs goes away or comes back."
        ),
        tag="Events",
        open_to_limited=True,
        role=Role.VIEWER,
        answers={200: "text/event-stream"},
        problems=("not_acceptable",),
        headers=LAST_EVENT_ID,
    ),
)

ROUTES: tuple[Route, ...] = docs.with_documentation(
    *deploys.ROUTES,
    *instances.ROUTES,
    *revisions.ROUTES,
    *catalogue.ROUTES,
    *FRONT_ROUTES,
    *logs.ROUTES,
    *wiretap.ROUTES,
    *history.ROUTES,
    *incarnations.ROUTES,
    *fleet_history.ROUTES,
    *tokens.ROUTES,
    *secrets.ROUTES,
    *users.ROUTES,
    *resource.ROUTES,
    *audit.ROUTES,
    *health.ROUTES,
    *nodes.ROUTES,
    *stats.ROUTES,
    *usage.ROUTES,
    *runtimes.ROUTES,
    *isolation.ROUTES,
    *prometheus.ROUTES,
    *installs.ROUTES,
)
