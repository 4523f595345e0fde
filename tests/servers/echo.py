"""A legacy MCP server in plain Python whose tools misbehave on request."""

import json
import os
import signal
import subprocess
import sys
import time

TOOLS = (
    "echo",
    "pid",
    "env",
    "exit",
    "kill",
    "sleep",
    "spam",
    "noise",
    "burst",
    "progress",
    "fork",
    "daemon",
    "half",
    "big",
)


def send(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def text(value):
    return {"content": [{"type": "text", "text": str(value)}]}


def notify(method, params):
    send({"jsonrpc": "2.0", "method": method, "params": params})


def call(name, arguments, meta):
    if name == "echo":
        return text(arguments.get("text", ""))
    if name == "pid":
        return text(os.getpid())
    if name == "env":
        return text(json.dumps(dict(os.environ)))
    if name == "exit":
        sys.stderr.write(arguments.get("last_words", "") + "\n")
        sys.stderr.flush()
        os._exit(arguments.get("status", 3))
    if name == "kill":
        os.kill(os.getpid(), arguments.get("signal", signal.SIGKILL))
    if name == "sleep":
        time.sleep(arguments["seconds"])
        return text("slept")
    if name == "spam":
        for number in range(arguments["lines"]):
            sys.stderr.write(f"line {number} {arguments.get('word', '')}\n")
        sys.stderr.flush()
        return text("spammed")
    if name == "noise":
        sys.stdout.write("this is not JSON\n{]\n")
        return text("noisy")
    if name == "burst":
        for number in range(arguments["n"]):
            notify("notifications/message", {"level": "info", "data": f"burst {number}"})
        return text("done")
    if name == "progress":
        for step in range(1, arguments["steps"] + 1):
            notify("notifications/progress", {"progressToken": meta.get("progressToken"), "progress": step})
        return text("finished")
    if name == "fork":
        children = [subprocess.Popen(["sleep", "300"], start_new_session=bool(i % 2)) for i in range(arguments["n"])]
        return text(json.dumps([child.pid for child in children]))
    if name == "daemon":
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.write(writer, str(os.getpid()).encode())
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                os.execve("/bin/sleep", ["sleep", "300"], {})
            os._exit(0)
        os.wait()
        return text(os.read(reader, 32).decode())
    if name == "half":
        sys.stdout.write('{"jsonrpc": "2.0", "id"')
        sys.stdout.flush()
        os._exit(1)
    if name == "big":
        return text("x" * arguments["size"])
    return {"isError": True, **text("no such tool")}


def main():
    for line in sys.stdin:
        message = json.loads(line)
        method, params = message.get("method"), message.get("params") or {}
        if "id" not in message:
            continue
        if method == "initialize":
            result = {
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "echo", "version": "1"},
            }
        elif method == "tools/list":
            result = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]}
        elif method == "tools/call":
            result = call(params["name"], params.get("arguments") or {}, params.get("_meta") or {})
        else:
            send({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "Method not found"}})
            continue
        send({"jsonrpc": "2.0", "id": message["id"], "result": result})


main()
