"""A single Python file without dependencies."""

from __future__ import annotations

from runtimes.recipe import Recipe

NAMES = ("python", "python3", "py")
SUFFIXES = (".py", ".pyw")


def recipe(entry_point: str) -> Recipe:
    """Run the file unbuffered: a block-buffered server would keep its answers to itself."""
    env = (("PYTHONUNBUFFERED", "1"), ("PYTHONDONTWRITEBYTECODE", "1"))
    return Recipe(language="python", argv=("python", entry_point), env=env, needs=("python",))
