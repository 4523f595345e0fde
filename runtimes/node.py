"""A single Node.js file without dependencies."""

from __future__ import annotations

from runtimes.recipe import Recipe

NAMES = ("node", "nodejs", "javascript", "js")
SUFFIXES = (".js", ".mjs", ".cjs")


def recipe(entry_point: str) -> Recipe:
    """Run the file; module or script is decided by its suffix, as Node does."""
    return Recipe(language="node", argv=("node", entry_point), needs=("node",))
