"""Small MCP servers for tests, each a plain script. `path(name)` finds one."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent


def source(name: str) -> bytes:
    """The script itself, for `source_type: direct`."""
    return (HERE / name).read_bytes()
