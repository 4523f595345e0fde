"""An MCP server in plain Python that answers a tool call with the parameters it got; `ERA` says which era it speaks."""

import json
import os
import sys

MODERN = os.environ.get("ERA", "legacy") == "modern"
TOOLS = [{"name": "mirror", "inputSchema": {"type": "object"}}, {"name": "fail", "inputSchema": {"type": "object"}}]


def answer(method, params):
    if method == "initialize" and not MODERN:
        return {
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "mirror", "version": "1"},
        }
    if method == "server/discover" and MODERN:
        return {
            "resultType": "complete",
            "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "mirror", "version": "1"},
            "ttlMs": 0,
            "cacheScope": "private",
        }
    if method == "tools/list":
        return {"resultType": "complete", "tools": TOOLS, "ttlMs": 0, "cacheScope": "private"}
    if method == "tools/call":
        text = json.dumps(params, sort_keys=True)
        return {
            "resultType": "complete",
            "content": [{"type": "text", "text": text}],
            "isError": params.get("name") == "fail",
        }
    if method == "ping":
        return {}
    return None


for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    result = answer(message["method"], message.get("params"))
    outcome = {"error": {"code": -32601, "message": "Method not found"}} if result is None else {"result": result}
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], **outcome}) + "\n")
    sys.stdout.flush()
