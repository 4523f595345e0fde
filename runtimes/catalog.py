"""Which languages there are, by name, by file suffix and by launcher, and whose a source is."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Protocol

from attrs import evolve

from runtimes import binary, bun, deno, dotnet, go, java, node, php, python, ruby, rust, typescript
from runtimes.recipe import CannotPlan, Recipe, UnknownLanguage, Wish

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runtimes.tree import SourceTree


class Runtime(Protocol):
    """What each language's module has."""

    NAMES: tuple[str, ...]
    """Its own name, then those that it also goes by; lower case."""
    SUFFIXES: tuple[str, ...]
    TOOLS: tuple[str, ...]
    """Programs that it may need, to build and to run."""
    FILE_NAME: str
    """What a single file is called that has no name."""

    def guess(self, tree: SourceTree, /) -> str | None:
        """Why a source is this language's, as the end of a sentence; None if it is not."""

    def plan(self, tree: SourceTree, wish: Wish, /) -> Recipe:
        """How it is built and run. Raises `CannotPlan`."""


RUNTIMES: tuple[Runtime, ...] = (
    python, node, typescript, go, rust, deno, bun, ruby, php, java, dotnet, binary,
)  # fmt: skip
"""In the order in which a suffix that several speak of is given to one."""
LANGUAGES = tuple(runtime.NAMES[0] for runtime in RUNTIMES)
MANIFESTS = (
    "pyproject.toml",
    "requirements.txt",
    "package.json",
    "tsconfig.json",
    "go.mod",
    "Cargo.toml",
    "deno.json",
    "Gemfile",
    "composer.json",
    "pom.xml",
)
PROJECT_SUFFIXES = (".csproj", ".fsproj")
MAX_NAMED = 6
"""Folders that a refusal lists."""

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
    "tsx": "typescript",
    "ts-node": "typescript",
    "go": "go",
    "cargo": "rust",
    "java": "java",
    "ruby": "ruby",
    "bundle": "ruby",
    "php": "php",
    "dotnet": "dotnet",
}


def normalize(language: str) -> str:
    """The runtime's own name for a language.

    Raises:
        UnknownLanguage: no runtime here knows it.
    """
    return _runtime(language).NAMES[0]


def of_file(name: str) -> str | None:
    """The language that a file's suffix speaks of."""
    return next(iter(_speak_of(name)), None)


def of_command(command: str) -> str:
    """What a launch command most likely runs; `binary` where its name says nothing."""
    name = PurePosixPath(command).name.lower()
    if name.startswith("python"):
        return "python"
    return _LAUNCHERS.get(name) or of_file(name) or "binary"


def file_name(language: str) -> str:
    """What a single file of a language is called, where its owner gives it no name.

    Raises:
        UnknownLanguage: no runtime here knows it.
    """
    return _runtime(language).FILE_NAME


def tools(language: str) -> tuple[str, ...]:
    """The programs that a language may need, to build and to run.

    Raises:
        UnknownLanguage: no runtime here knows it.
    """
    return _runtime(language).TOOLS


def plan(tree: SourceTree, wish: Wish) -> Recipe:
    """Work out how a source is built and run; its language is guessed where the owner names none.

    Raises:
        CannotPlan: nothing says what it is or which file to run, several things do, or a wish cannot be met.
    """
    if wish.language is None:
        runtime, why = _guess(tree, wish.entry_point)
        planned = runtime.plan(tree, wish)
        return evolve(planned, notes=(f"taken for {runtime.NAMES[0]}: {why}", *planned.notes))
    try:
        runtime = _runtime(wish.language)
    except UnknownLanguage as error:
        raise CannotPlan(str(error), field="language") from None
    return runtime.plan(tree, wish)


def _guess(tree: SourceTree, entry_point: str | None) -> tuple[Runtime, str]:
    """By manifests, then by the suffix of what runs. A named entry point decides between several."""
    if entry_point is not None and binary.is_program(tree, entry_point):
        return binary, f"{entry_point} is an executable"
    by_manifest = (runtime for runtime in RUNTIMES if runtime is not binary)
    guesses = [(runtime, why) for runtime in by_manifest if (why := runtime.guess(tree)) is not None]
    spoken = _speak_of(entry_point or "")
    if spoken:
        fitting = [(runtime, why) for runtime, why in guesses if runtime.NAMES[0] in spoken]
        guesses = fitting or [(_runtime(spoken[0]), f"the entry point is {entry_point}")]
    if len(guesses) == 1:
        return guesses[0]
    if guesses:
        whys = ", ".join(f"{runtime.NAMES[0]} ({why})" for runtime, why in guesses)
        raise _ambiguous(f"the source may be {whys}", [runtime.NAMES[0] for runtime, _ in guesses])
    return _by_suffix(tree)


def _by_suffix(tree: SourceTree) -> tuple[Runtime, str]:
    """By the files of the root, or else of `src`, where all that speak of a language speak of one."""
    for files in (list(tree.at_root()), [name for name in sorted(tree.files) if name.startswith("src/")]):
        spoken: dict[str, list[str]] = {}
        for name in files:
            if language := of_file(name):
                spoken.setdefault(language, []).append(name)
        if len(spoken) == 1:
            language, names = next(iter(spoken.items()))
            return _runtime(language), f"there is a {names[0]}"
        if spoken:
            shown = ", ".join(names[0] for names in spoken.values())
            raise _ambiguous(f"the source has files of several languages: {shown}", list(spoken))
    if (why := binary.guess(tree)) is not None:
        return binary, why
    raise _unknown(tree)


def _ambiguous(message: str, languages: Iterable[str]) -> CannotPlan:
    return CannotPlan(message, field="language", hint=f"say which language it is: {' or '.join(languages)}")


def _unknown(tree: SourceTree) -> CannotPlan:
    """That nothing says what it is; with the folders that would, if it is only that the wrong one was given."""
    message = "nothing in the source says which language it is"
    paths = [PurePosixPath(name) for name in tree.files]
    folders = {str(path.parent) for path in paths if path.name in MANIFESTS or path.suffix in PROJECT_SUFFIXES}
    folders.discard(".")
    if folders:
        nearest = sorted(folders, key=lambda name: (name.count("/"), name))[:MAX_NAMED]
        return CannotPlan(message, field="source_subdir", hint=f"it may be meant for: {', '.join(nearest)}")
    looked_for = ", ".join((*MANIFESTS, *(f"*{suffix}" for suffix in PROJECT_SUFFIXES)))
    return CannotPlan(
        message, field="language", hint=f"name it; looked for {looked_for}, or source files of one language"
    )


def _speak_of(name: str) -> list[str]:
    """The languages that a file's suffix speaks of."""
    suffix = PurePosixPath(name).suffix.lower()
    return [runtime.NAMES[0] for runtime in RUNTIMES if suffix in runtime.SUFFIXES] if suffix else []


def _runtime(language: str) -> Runtime:
    for runtime in RUNTIMES:
        if language.lower() in runtime.NAMES:
            return runtime
    raise UnknownLanguage(f"{language!r} cannot be run from source here; languages: {', '.join(LANGUAGES)}")
