"""What `corral up` says once it serves."""

from __future__ import annotations

from pathlib import Path


def banner(*, version: str, url: str, credentials: Path, started_s: float, services: tuple[str, ...]) -> str:
    """The first screen: where it is, where the token is, and three commands to try."""
    own = " and ".join(services)
    using = f"with its own {own}" if services else "with the Postgres and Redis you named"
    return f"""
  Corral {version} serves at {url}   ({started_s:.1f} s, {using})

  API reference   {url}/docs
  Admin token     {credentials}   (only you can read it)

  Try, in another terminal:
    ./corral deploy memory -- npx -y @modelcontextprotocol/server-memory
    ./corral tools memory
    ./corral call memory tools/call '{{"name": "read_graph", "arguments": {{}}}}'

  Ctrl-C stops everything that runs here.
"""
