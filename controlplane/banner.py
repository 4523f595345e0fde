"""What `corral up` says once it serves, and how the control plane's own log is written."""

from __future__ import annotations

import logging
import logging.handlers
import sys
from pathlib import Path

LOG_FILE_BYTES = 10 * 2**20
LOG_FILES = 5


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


def open_log(level: str, folder: Path | None) -> None:
    """Log to standard error, and to `corral.log` in `folder` where one is named."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        handlers.append(
            logging.handlers.RotatingFileHandler(
                folder / "corral.log", maxBytes=LOG_FILE_BYTES, backupCount=LOG_FILES, encoding="utf-8"
            )
        )
    logging.basicConfig(
        level=level, handlers=handlers, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", force=True
    )
    # asyncpg's own word on a lost connection; the store says it better.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
