"""Which languages there are, by name, by file suffix and by launcher."""

from __future__ import annotations

from pathlib import PurePosixPath
from types import ModuleType

from runtimes import node, python
from runtimes.recipe import Recipe, UnknownLanguage

RUNTIMES: tuple[ModuleType, ...] = (python, node)
LANGUAGES = tuple(runtime.NAMES[0] for runtime in RUNTIMES)

_LAUNCHERS = {
    "npx": "node",
    "npm": "node",
    "node": "node",
    "bunx": "bun",
    "bun": "bun",
    "deno": "deno",
    "uvx": "python",
    "uv": "python",
    "pipx": "python",
    "go": "go",
    "cargo": "rust",
    "java": "java",
    "ruby": "ruby",
    "php": "php",
    "dotnet": "dotnet",
}


def normalize(language: str) -> str:
    """The runtime's own name for a language.

    Raises:
        UnknownLanguage: no runtime here knows it.
    """
    for runtime in RUNTIMES:
        if language.lower() in runtime.NAMES:
            return str(runtime.NAMES[0])
    raise UnknownLanguage(f"{language!r} cannot be run from source here; languages: {', '.join(LANGUAGES)}")


def of_file(name: str) -> str | None:
    """The language that a file's suffix speaks of."""
    suffix = PurePosixPath(name).suffix.lower()
    return next((runtime.NAMES[0] for runtime in RUNTIMES if suffix in runtime.SUFFIXES), None)


def of_command(command: str) -> str:
    """What a launch command most likely runs; `binary` where its name says nothing."""
    name = PurePosixPath(command).name.lower()
    if name.startswith("python"):
        return "python"
    return _LAUNCHERS.get(name) or of_file(name) or "binary"


def recipe(language: str, entry_point: str) -> Recipe:
    """Plan one source file.

    Raises:
        UnknownLanguage: no runtime here knows the language.
    """
    name = normalize(language)
    runtime = next(runtime for runtime in RUNTIMES if runtime.NAMES[0] == name)
    planned: Recipe = runtime.recipe(entry_point)
    return planned
