"""A legacy MCP server in plain Python whose tools look at where it is, and which says farewell when it is asked to go."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

LIFE_S = 300
"""No process of it outlives its test by more than this."""
TOOLS = ("read", "write", "listing", "connect", "pid", "exit", "kill", "fork")


def farewell(_number, _frame):
    sys.stderr.write("farewell\n")
    sys.stderr.flush()
    os._exit(0)


def attempt(work):
    try:
        return str(work())
    except OSError as error:
        return f"refused: {type(error).__name__}: {error.strerror or error}"


def connect(host, port):
    with socket.create_connection((host, port), timeout=10):
        return "connected"


def call(name, given):
    if name == "read":
        return attempt(Path(given["path"]).read_text)
    if name == "write":
        return attempt(lambda: Path(given["path"]).write_text(given["text"]))
    if name == "listing":
        return attempt(lambda: json.dumps(sorted(os.listdir(given["path"]))))
    if name == "connect":
        return attempt(lambda: connect(given["host"], given["port"]))
    if name == "pid":
        return str(os.getpid())
    if name == "exit":
        os._exit(given["status"])
    if name == "kill":
        os.kill(os.getpid(), given["signal"])
        time.sleep(LIFE_S)
    if name == "fork":
        children = [subprocess.Popen(["sleep", str(LIFE_S)], start_new_session=bool(i % 2)) for i in range(given["n"])]
        return str(len(children))
    return f"there is no tool {name}"


def answer(method, params):
    if method == "initialize":
        info = {"name": "inmate", "version": "1"}
        return {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
    if method == "tools/list":
        return {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]}
    if method == "tools/call":
        return {"content": [{"type": "text", "text": call(params["name"], params.get("arguments") or {})}]}
    return {}


def main():
    signal.signal(signal.SIGTERM, farewell)
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message:
            result = answer(message.get("method"), message.get("params") or {})
            sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}) + "\n")
            sys.stdout.flush()
    time.sleep(LIFE_S)  # the end of its input is not enough


main()
