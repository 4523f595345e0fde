"""How paths below `/mcp/` are read: which instance they name, and what of it is meant."""

from __future__ import annotations

import re

# What may stand below an endpoint is never read as the name in `owner/name`: `/mcp/a/sse` is the route `sse` of `a`.
# An instance that is called so is named by its id, as everywhere (`app.RefConverter`); `hot_head` reads it alike.
MCP_PATH = re.compile(
    r"/mcp/([^/]+(?:/(?!(?:execute|stream|sse|messages)\Z)[^/]+)?)(?:/(execute|stream|sse|messages))?"
)
"""The groups are the instance and, if there is one, the route below its endpoint."""


def ref_of(path: str) -> str | None:
    """The instance that a path below `/mcp/` names; None: it is no such path."""
    found = MCP_PATH.fullmatch(path)
    return found[1] if found else None
