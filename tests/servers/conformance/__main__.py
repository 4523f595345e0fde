"""The server that the official conformance suite and the bridge tests talk to: `python …/tests/servers/conformance`.

It speaks MCP over stdio by the official SDK, in one of three ways: `dual` (both eras, the first request decides),
`legacy` (what was written before 2026) and `modern` (what was written after). Its tools ask the client in the way of
the era in which they are called, so that a bridge has something to translate in both directions.

`--http PORT` serves both eras over the SDK's own HTTP transport instead: what the suite says then is about this server
alone, with no Corral in between.
"""

from __future__ import annotations

import argparse
import warnings

import anyio
import uvicorn
from gate import ERAS, only
from mcp.server import NotificationOptions
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPDeprecationWarning
from offers import make_server


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("era", choices=ERAS, nargs="?", default="dual")
    parser.add_argument("--http", type=int, metavar="PORT", help="both eras on 127.0.0.1:PORT/mcp")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", MCPDeprecationWarning)  # to serve what is deprecated is the point
    if arguments.http is not None:
        uvicorn.run(make_server().streamable_http_app(), host="127.0.0.1", port=arguments.http, log_level="warning")
    else:
        anyio.run(serve, arguments.era)


async def serve(era: str) -> None:
    server = make_server()
    changes = NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)
    async with stdio_server() as (reads, writes), only(era, reads, writes) as admitted:
        await server.run(admitted, writes, server.create_initialization_options(changes))


if __name__ == "__main__":
    main()
