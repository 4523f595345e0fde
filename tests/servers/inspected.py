"""A legacy MCP server in plain Python with something of everything that the dashboard's inspector shows."""

import base64
import json
import os
import struct
import sys
import threading
import zlib

ADDRESS = {
    "type": "object",
    "description": "where to",
    "properties": {"street": {"type": "string"}, "number": {"type": "integer", "minimum": 1}},
    "required": ["street"],
}
GREET = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "description": "whom to greet", "minLength": 2},
        "times": {"type": "integer", "minimum": 1, "maximum": 5, "default": 1},
        "tone": {"enum": ["warm", "cold"]},
        "address": {"$ref": "#/$defs/address"},
    },
    "required": ["name"],
    "$defs": {"address": ADDRESS},
}
SIZED = {"type": "object", "properties": {"size": {"type": "integer", "default": 1_000_000}}}
HOSTILE = {
    "type": "object",
    "properties": {
        "\x1b[31mred": {"type": ["nonsense", 5], "description": "\x1b]0;owned\x07"},
        "self": {"$ref": "#"},
        "lost": {"$ref": "#/$defs/nowhere"},
        **{f"p{n}": {"type": "string"} for n in range(1000)},
    },
    "required": "not a list",
}
NOTHING = {"type": "object", "properties": {}}
TOOLS = {
    "greet": (GREET, {"readOnlyHint": True}),
    "ask": (NOTHING, {}),
    "sample": (NOTHING, {}),
    "roots": (NOTHING, {}),
    "steps": (NOTHING, {}),
    "wait": (NOTHING, {"destructiveHint": True}),
    "big": (SIZED, {}),
    "picture": (NOTHING, {}),
    "page": (NOTHING, {}),
    "crash": (NOTHING, {}),
    "refuse": (NOTHING, {}),
    "fail": (NOTHING, {}),
    "escape": (NOTHING, {}),
    "hostile": (HOSTILE, {}),
    "login": ({"type": "object", "properties": {"user": {"type": "string"}, "password": {"type": "string"}}}, {}),
}
PAGE = "# A heading\n\n- one **bold** item\n- a [link](https://example.com/)\n"
FORM = {
    "type": "object",
    "properties": {"word": {"type": "string", "title": "Word"}, "sure": {"type": "boolean"}},
    "required": ["word"],
}
writing = threading.Lock()
waiting = {}
cancelled = {}
released = threading.Event()


def send(**message):
    with writing:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()


def text(value):
    return {"content": [{"type": "text", "text": str(value)}]}


def png(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\x7f" * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def ask(method, params):
    number = f"q{len(waiting)}"
    waiting[number] = [threading.Event(), None]
    send(id=number, method=method, params=params)
    waiting[number][0].wait(60)
    return waiting[number][1]


def call(raw_id, name, arguments, meta):
    if name == "ask":
        return text(json.dumps(ask("elicitation/create", {"message": "What is the word?", "requestedSchema": FORM})))
    if name == "sample":
        message = {"role": "user", "content": {"type": "text", "text": "How deep is the sea?"}}
        return text(json.dumps(ask("sampling/createMessage", {"messages": [message], "maxTokens": 50})))
    if name == "roots":
        return text(json.dumps(ask("roots/list", {})))
    if name in ("steps", "wait"):
        return steps(raw_id, name, meta)
    if name == "big":
        size = arguments.get("size", 1_000_000)
        return {**text("x" * size), "structuredContent": {"numbers": list(range(1000))}}
    if name == "picture":
        data = base64.b64encode(png(320, 200)).decode()
        return {"content": [{"type": "image", "data": data, "mimeType": "image/png"}]}
    if name == "crash":
        sys.stderr.write("the disk is full\n")
        sys.stderr.flush()
        os._exit(3)
    return {
        "greet": lambda: text(" ".join([f"hello {arguments.get('name')}"] * arguments.get("times", 1))),
        "page": lambda: text(PAGE),
        "fail": lambda: {**text("it did not work"), "isError": True},
        "escape": lambda: text("\x1b[2Jgone \u202eback"),
    }.get(name, lambda: text(json.dumps(arguments)))()


def steps(raw_id, name, meta):
    for step in (1, 2):
        send(
            method="notifications/progress",
            params={
                "progressToken": meta.get("progressToken"),
                "progress": step,
                "total": 4,
                "message": f"step {step}",
            },
        )
        send(method="notifications/message", params={"level": "warning", "data": f"log line {step}"})
    gone = cancelled.setdefault(raw_id, threading.Event())
    while not gone.wait(0.05):
        if name == "steps" and released.is_set():
            return text("all steps done")
    released.set()
    return text("was cancelled")


def serve(raw_id, params):
    name = params["name"]
    if name == "refuse":
        send(id=raw_id, error={"code": -32050, "message": "not on a Monday", "data": {"day": "Monday"}})
        return
    if name == "release":
        released.set()
    send(id=raw_id, result=call(raw_id, name, params.get("arguments") or {}, params.get("_meta") or {}))


def listed():
    return [
        {"name": name, "description": f"the {name} tool", "inputSchema": schema, "annotations": hints}
        for name, (schema, hints) in TOOLS.items()
    ]


def answer(method, params):
    if method == "initialize":
        info = {"name": "inspected", "version": "1"}
        capabilities = {"tools": {}, "prompts": {}, "resources": {}, "logging": {}}
        return {"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": info}
    if method == "tools/list":
        return {"tools": listed()}
    if method == "prompts/list":
        return {"prompts": [{"name": "poem", "arguments": [{"name": "topic", "required": True}]}]}
    if method == "prompts/get":
        said = f"A poem on {params['arguments']['topic']}"
        return {"messages": [{"role": "user", "content": {"type": "text", "text": said}}]}
    if method == "resources/list":
        return {"resources": [{"uri": "note://one", "name": "The note"}]}
    if method == "resources/templates/list":
        return {"resourceTemplates": [{"uriTemplate": "note://{name}", "name": "Any note"}]}
    if method == "resources/read":
        return {"contents": [{"uri": params["uri"], "text": f"content of {params['uri']}"}]}
    return {} if method in ("ping", "logging/setLevel") else None


for line in sys.stdin:
    message = json.loads(line)
    method, params = message.get("method"), message.get("params") or {}
    if method is None:
        if message["id"] in waiting:
            waiting[message["id"]][1] = message.get("result", message.get("error"))
            waiting[message["id"]][0].set()
    elif method == "notifications/cancelled":
        cancelled.setdefault(params.get("requestId"), threading.Event()).set()
    elif "id" not in message:
        continue
    elif method == "tools/call":
        threading.Thread(target=serve, args=(message["id"], params), daemon=True).start()
    elif (result := answer(method, params)) is not None:
        send(id=message["id"], result=result)
    else:
        send(id=message["id"], error={"code": -32601, "message": "Method not found"})
