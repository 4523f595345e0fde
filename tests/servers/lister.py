"""A legacy MCP server in plain Python that lists in pages, grows on request, says so, and counts how often it is asked."""

import collections
import json
import os
import pathlib
import signal
import sys
import time

PAGE = 2
HOLD = pathlib.Path.home() / "hold"
"""While this is there, a new process never gets to its handshake."""
LISTS = {
    "tools/list": ("tools", [{"name": name, "inputSchema": {"type": "object"}} for name in ("grow", "asked", "hold")]),
    "prompts/list": ("prompts", [{"name": "greet"}]),
    "resources/list": ("resources", [{"uri": f"file:///{name}", "name": name} for name in "abc"]),
    "resources/templates/list": ("resourceTemplates", [{"uriTemplate": "file:///{name}", "name": "any"}]),
}
asked = collections.Counter()


def send(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def page(member, items, params):
    start = int(params.get("cursor", 0))
    more = {"nextCursor": str(start + PAGE)} if start + PAGE < len(items) else {}
    return {member: items[start : start + PAGE], **more}


def call(name, arguments):
    if name == "grow":
        method = arguments.get("method", "tools/list")
        for number in range(arguments.get("n", 1)):
            LISTS[method][1].append({"name": f"new{number}", "uri": f"file:///new{number}", "inputSchema": {}})
            send({"method": f"notifications/{method.partition('/')[0]}/list_changed"})
    elif name == "hold":
        HOLD.touch()
    elif name == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return {"content": [{"type": "text", "text": json.dumps(asked)}]}


if HOLD.exists():
    time.sleep(600)
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    method, params = message["method"], message.get("params") or {}
    if method == "initialize":
        changes = {"listChanged": True}
        result = {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": changes, "prompts": changes, "resources": changes},
            "serverInfo": {"name": "lister", "version": "1"},
        }
    elif method in LISTS:
        asked[method] += "cursor" not in params
        result = page(*LISTS[method], params)
    elif method == "tools/call":
        result = call(params["name"], params.get("arguments") or {})
    else:
        send({"id": message["id"], "error": {"code": -32601, "message": "Method not found"}})
        continue
    send({"id": message["id"], "result": result})
