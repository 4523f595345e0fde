"""An MCP server that puts what it was told by `SPITE` (JSON: a text) wherever a server can put a text."""

import json
import os
import sys

SPITE = json.loads(os.environ["SPITE"])
FLOOD_LINES = 10_000


def send(message):
    sys.stdout.write(json.dumps(message, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def write_log():
    """On stderr, and on stdout where only messages belong."""
    sys.stderr.write(f"log {SPITE} end\n")
    sys.stderr.flush()
    sys.stdout.write(f"noise {SPITE.replace(chr(10), ' ')} end\n")
    sys.stdout.flush()


def tools():
    spiteful = {
        "type": "object",
        "title": SPITE,
        "properties": {
            f"p{SPITE}": {"type": "string", "title": SPITE, "description": SPITE, "default": SPITE},
            "choice": {"type": "string", "enum": [SPITE, "b"], "description": f"choose {SPITE}"},
        },
    }
    yield {"name": f"t{SPITE}", "title": f"title {SPITE}", "description": f"does {SPITE}", "inputSchema": spiteful}
    for name in ("spite", "ask", "fail", "deep", "wide", "long", "flood"):
        yield {"name": name, "description": f"{name} {SPITE}", "inputSchema": {"type": "object"}}


def ask(call):
    """Ask the client something, and answer with what it said."""
    schema = {"type": "object", "properties": {f"q{SPITE}": {"type": "string", "title": SPITE, "default": SPITE}}}
    params = {"mode": "form", "message": f"asks {SPITE}", "requestedSchema": schema}
    send({"jsonrpc": "2.0", "id": "mine", "method": "elicitation/create", "params": params})
    for line in sys.stdin:
        message = json.loads(line)
        if message.get("id") == "mine":
            return {"content": [{"type": "text", "text": json.dumps(message.get("result"))}]}
    return {}


def call(name, message):
    if name == "ask":
        return {"result": ask(message)}
    if name == "fail":
        return {"error": {"code": -32000, "message": f"failed {SPITE}", "data": {SPITE: [SPITE]}}}
    if name == "flood":
        for number in range(FLOOD_LINES):
            sys.stderr.write(f"line {number} of the flood\n")
        sys.stderr.flush()
        return {"result": {"content": [{"type": "text", "text": "flooded"}]}}
    if name == "long":
        return {"result": {"content": [{"type": "text", "text": "word " * 200_000}]}}
    if name == "wide":
        return {"result": {"content": [], "structuredContent": {"rows": [{"n": n} for n in range(100_000)]}}}
    token = ((message.get("params") or {}).get("_meta") or {}).get("progressToken")
    progress = {"progressToken": token, "progress": 1, "total": 2, "message": f"progress {SPITE}"}
    send({"jsonrpc": "2.0", "method": "notifications/progress", "params": progress})
    said = {"level": "error", "logger": SPITE, "data": f"said {SPITE}"}
    send({"jsonrpc": "2.0", "method": "notifications/message", "params": said})
    text = {"type": "text", "text": f"result {SPITE}"}
    link = {"type": "resource_link", "uri": f"x://{SPITE}", "name": SPITE}
    return {"result": {"content": [text, link], "structuredContent": {SPITE: {SPITE: SPITE}}, SPITE: SPITE}}


def main():
    write_log()
    for line in sys.stdin:
        message = json.loads(line)
        method = message.get("method")
        if "id" not in message:
            continue
        if method == "initialize":
            about = {"name": f"server {SPITE}", "version": f"v{SPITE}", "title": SPITE}
            result = {
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}, "prompts": {}, "resources": {}, "logging": {}},
                "serverInfo": about,
                "instructions": f"instructions {SPITE}",
            }
        elif method == "tools/list":
            result = {"tools": list(tools())}
        elif method == "prompts/list":
            result = {"prompts": [{"name": f"p{SPITE}", "description": SPITE, "arguments": [{"name": SPITE}]}]}
        elif method == "resources/list":
            result = {"resources": [{"uri": f"x://{SPITE}", "name": SPITE, "description": SPITE}]}
        elif method == "tools/call":
            name = message["params"]["name"]
            if name == "deep":
                body = "[" * 5_000 + "]" * 5_000
                head = f'{{"jsonrpc": "2.0", "id": {json.dumps(message["id"])}, "result": '
                sys.stdout.write(head + f'{{"content": [], "structuredContent": {{"deep": {body}}}}}}}\n')
                sys.stdout.flush()
                continue
            write_log()
            send({"jsonrpc": "2.0", "id": message["id"], **call(name, message)})
            continue
        else:
            result = {}
        send({"jsonrpc": "2.0", "id": message["id"], "result": result})


main()
