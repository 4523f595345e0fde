"""`native/echo.c` in plain Python, for `--child python`: what a server costs that is not written in C.

Standard library only, and run by whatever Python the gateway finds. With the argument `modern` it is a server of
MCP 2026-07-28, which takes no handshake.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("echo", "burst")]
UNKNOWN_METHOD = -32601
MODERN_VERSION = "2026-07-28"
is_modern = sys.argv[1:] == ["modern"]


def send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0"} | message, separators=(",", ":")) + "\n")


def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    if name == "burst":
        for number in range(1, arguments["n"] + 1):
            uri = f"burst {number} {time.monotonic_ns()}"
            send({"method": "notifications/resources/updated", "params": {"uri": uri}})
        return {"content": [{"type": "text", "text": "done"}]}
    return {"content": [{"type": "text", "text": arguments.get("text", "")}]}


def result_of(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    match method:
        case "tools/call":
            return call(params["name"], params.get("arguments", {}))
        case "tools/list":
            return {"tools": TOOLS}
        case "ping" | "logging/setLevel":
            return {}
        case "server/discover" if is_modern:
            return {"supportedVersions": [MODERN_VERSION], "capabilities": {"tools": {}}}
        case "initialize" if not is_modern:
            info = {"name": "bench-echo", "version": "1"}
            version = params.get("protocolVersion", "2025-06-18")
            return {
                "protocolVersion": version,
                "capabilities": {"tools": {}, "resources": {"subscribe": True}},
                "serverInfo": info,
            }
    return None


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message or "method" not in message:
            continue
        result = result_of(message["method"], message.get("params") or {})
        if is_modern and result is not None:
            result["resultType"] = "complete"
        unknown = {"error": {"code": UNKNOWN_METHOD, "message": "Method not found"}}
        send({"id": message["id"], **(unknown if result is None else {"result": result})})
        sys.stdout.flush()


if __name__ == "__main__":
    main()
