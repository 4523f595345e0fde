"""A whole MCP server in one file, without any dependency: one tool, progress, and a log line.

./corral deploy -f examples/greeter.json
./corral call greeter tools/call '{"name": "greet", "arguments": {"name": "Ada"}}'
"""

import json
import sys

GREET = {
    "name": "greet",
    "description": "Say hello to somebody",
    "inputSchema": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
}


def send(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def greet(params):
    token = params.get("_meta", {}).get("progressToken")
    if token is not None:
        send({"method": "notifications/progress", "params": {"progressToken": token, "progress": 1, "total": 1}})
    name = params["arguments"]["name"]
    print(f"greeting {name}", file=sys.stderr)
    return {"content": [{"type": "text", "text": f"Hello, {name}!"}]}


def answer(method, params):
    if method == "initialize":
        info = {"name": "greeter", "version": "1.0.0"}
        return {"result": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}}
    if method == "tools/list":
        return {"result": {"tools": [GREET]}}
    if method == "tools/call" and params["name"] == "greet":
        return {"result": greet(params)}
    return {"error": {"code": -32601, "message": f"unknown: {method}"}}


for line in sys.stdin:
    request = json.loads(line)
    if "id" in request:
        send({"id": request["id"], **answer(request["method"], request.get("params") or {})})
