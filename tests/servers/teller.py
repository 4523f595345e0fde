"""A legacy MCP server that tells the secrets of its environment in every way there is.

TELL names its variables with secrets; REFUSE makes it refuse its handshake with them.
"""

import base64
import json
import os
import sys
import urllib.parse

SECRETS = [os.environ[name] for name in os.environ["TELL"].split(",")]
TOOLS = ("tell", "progress", "refuse", "die")
TYPES = {"type": "object", "properties": {}}


def send(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def forms():
    """Each secret as it is, as JSON, in a URL, and in base64 inside other text."""
    for secret in SECRETS:
        yield secret
        yield json.dumps({"password": secret})
        yield "https://example.com/?key=" + urllib.parse.quote(secret, safe="")
        yield "Authorization: Basic " + base64.b64encode(b"ada:" + secret.encode()).decode()


def print_all():
    for form in forms():
        print("error: cannot use", form, file=sys.stderr, flush=True)
        print("noise on stdout:", form, flush=True)
        send({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "error", "data": form}})
    send({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": {"all": SECRETS}}})


def call(name, meta):
    print_all()
    if name == "die":
        print("fatal:", *SECRETS, file=sys.stderr, flush=True)
        os._exit(3)
    if name == "refuse":
        return {"error": {"code": -32000, "message": " ".join(SECRETS), "data": {"env": SECRETS}}}
    if name == "progress":
        params = {"progressToken": meta.get("progressToken"), "progress": 1, "message": " ".join(SECRETS)}
        send({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
    return {"result": {"content": [{"type": "text", "text": json.dumps(SECRETS)}]}}


def answer(method, params):
    if method == "initialize" and os.environ.get("REFUSE"):
        return {"error": {"code": -32000, "message": "no: " + " ".join(SECRETS)}}
    if method == "initialize":
        return {
            "result": {
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}, "logging": {}},
                "serverInfo": {"name": "teller", "version": "1"},
            }
        }
    if method == "tools/list":
        return {"result": {"tools": [{"name": name, "inputSchema": TYPES} for name in TOOLS]}}
    if method == "tools/call":
        return call(params["name"], params.get("_meta") or {})
    if method == "ping":
        return {"result": {}}
    return {"error": {"code": -32601, "message": "no such method"}}


print_all()
for line in sys.stdin:
    message = json.loads(line)
    if "id" in message and "method" in message:
        send({"jsonrpc": "2.0", "id": message["id"], **answer(message["method"], message.get("params") or {})})
