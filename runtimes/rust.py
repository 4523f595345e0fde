"""Rust sources: packages, workspaces, and single files.

What is built, by the first of these that there is:

1. the request's `entry_point`: a program by its name, its package, its package's folder, or its main file;
2. of the root's own package, or else of a workspace's: the only program, the package's `default-run`, the one called
   like its package, the only one with `mcp` in its name.

A source without `Cargo.toml` gets one, with the request's `dependencies` in it (`name@1.2`, `name[feature,…]@1.2`);
into another they are added by `cargo add`. `Cargo.lock` is kept to, where there is one and nothing was added.

It is built by `cargo install --path`, which is `cargo build --release` and puts the program where it is told to: the
folder of intermediate results can stay in the owner's cache, where the next build finds the dependencies compiled.
A `build_command` takes its place: it makes the program that `entry_point` names, or else `.corral/bin/server`.
"""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from attrs import evolve

from runtimes import compiled, entry, requirements
from runtimes.cargo import MANIFEST, Program, programs_of
from runtimes.recipe import CannotPlan, Env, Place, Recipe, Step, Wish, Word

if TYPE_CHECKING:
    from runtimes.tree import SourceTree

NAMES: tuple[str, ...] = ("rust", "rs")
SUFFIXES: tuple[str, ...] = (".rs",)
TOOLS: tuple[str, ...] = ("cargo", "rustc", "cc")
"""The C compiler is what links."""
FILE_NAME = "main.rs"

EDITION = "2021"
"""Of a single file: the newest that every compiler of the past years knows."""
_MAIN_FILES = ("main.rs", "server.rs", "src/main.rs")
_ENV: Env = (
    ("CARGO_HOME", Place("cache", "cargo")),
    ("CARGO_TARGET_DIR", Place("cache", "cargo-target")),
    ("CARGO_INCREMENTAL", "0"),  # its results are bound to a folder that no build has twice
    ("CARGO_TERM_COLOR", "never"),
)


def guess(tree: SourceTree) -> str | None:
    """By a `Cargo.toml`; but a Python project may have one for its own extension."""
    if MANIFEST not in tree or "maturin" in (tree.text("pyproject.toml") or ""):
        return None
    return f"there is a {MANIFEST}"


def plan(tree: SourceTree, wish: Wish) -> Recipe:
    """Plan a Rust source.

    Raises:
        CannotPlan: there is nothing to build, or a wish cannot be met.
    """
    wanted = requirements.checked(wish.dependencies, requirements.CRATES)
    if wish.build_command is not None:
        before = _added(wanted, ".") if MANIFEST in tree else ()
        recipe = compiled.built_by_owner(
            wish, language=NAMES[0], suffixes=SUFFIXES, before=before, env=_ENV, needs=TOOLS
        )
        file = tree.first(wish.entry_point or "", *_MAIN_FILES)
        if MANIFEST in tree or file is None:
            return recipe
        return evolve(recipe, files=((MANIFEST, _manifest(file, wanted)),))
    if MANIFEST not in tree:
        return _single(tree, wish, wanted)
    programs = programs_of(tree)
    program = _named(tree, wish.entry_point, programs) if wish.entry_point is not None else _main_program(programs)
    locked = ("--locked",) if "Cargo.lock" in tree and not wanted else ()
    shown = wish.entry_point or (program.name if len(programs) > 1 else None)
    return _built(program, shown, before=_added(wanted, program.folder), locked=locked)


def _built(
    program: Program,
    shown: str | None,
    *,
    before: tuple[Step, ...] = (),
    locked: tuple[str, ...] = (),
    files: tuple[tuple[str, str], ...] = (),
) -> Recipe:
    argv: tuple[Word, ...] = (
        "cargo", "install", "--path", program.folder, "--bin", program.name, "--root", Place("tree", compiled.FOLDER),
        "--no-track", "--force", *locked,
    )  # fmt: skip
    return Recipe(
        language=NAMES[0],
        entry_point=shown,
        files=files,
        steps=(*before, Step(name="build", argv=argv, env=_ENV)),
        argv=(Place("tree", f"{compiled.PROGRAMS}/{program.name}"),),
        needs=TOOLS,
        installed=(compiled.FOLDER,),
    )


def _single(tree: SourceTree, wish: Wish, wanted: tuple[str, ...]) -> Recipe:
    """A package around one file."""
    if wish.entry_point is not None:
        file = entry.named_file(wish.entry_point, tree)
    else:
        file = tree.first(*_MAIN_FILES) or tree.only_file(*SUFFIXES) or ""
    if not file.endswith(SUFFIXES):
        raise entry.refusal(
            f"nothing says which file to build; there is: {', '.join(entry.nearest(FILE_NAME, tree)) or 'no file at all'}",
            hint="name an entry_point; looked for: Cargo.toml, main.rs, server.rs, src/main.rs, an only .rs file",
        )
    program = Program(name="server", folder=".", package="server", file=file)
    return _built(program, file, files=((MANIFEST, _manifest(file, wanted)),))


def _manifest(file: str, wanted: tuple[str, ...]) -> str:
    """JSON's strings are TOML's, and what requirements may hold needs no more."""
    lines = [
        "[package]", 'name = "server"', 'version = "0.0.0"', f'edition = "{EDITION}"', "autobins = false",
        "", "[[bin]]", 'name = "server"', f"path = {json.dumps(file)}", "", "[dependencies]",
    ]  # fmt: skip
    for text in wanted:
        name, features, version = _parts(text)
        lines.append(f"{name} = {{ version = {json.dumps(version or '*')}, features = {json.dumps(features)} }}")
    return "\n".join([*lines, ""])


def _added(wanted: tuple[str, ...], folder: str) -> tuple[Step, ...]:
    """Cargo adds features to what it adds, so each requirement is a step of its own."""
    steps = []
    for text in wanted:
        name, features, version = _parts(text)
        chosen = ("--features", ",".join(features)) if features else ()
        manifest = str(PurePosixPath(folder, MANIFEST))
        argv = ("cargo", "add", "--manifest-path", manifest, f"{name}@{version}" if version else name, *chosen)
        steps.append(Step(name="add a dependency", argv=argv, env=_ENV))
    return tuple(steps)


def _parts(requirement: str) -> tuple[str, list[str], str | None]:
    """Name, features and version of a requirement that was checked."""
    match = requirements.CRATES.pattern.fullmatch(requirement)
    assert match is not None, "it was checked"
    features = [feature.strip() for feature in (match["features"] or "").split(",")]
    return match["name"], [feature for feature in features if feature], match["version"]


def _named(tree: SourceTree, name: str, programs: list[Program]) -> Program:
    path = entry.path_of(name)
    for program in programs:
        if path in (program.name, program.file):
            return program
    of_package = [program for program in programs if path in (program.package, program.folder)]
    if of_package:
        return _main_program(of_package)
    raise entry.missing(path, tree, also=dict.fromkeys(program.name for program in programs))


def _main_program(programs: list[Program]) -> Program:
    """The obvious one; see the module's list."""
    root = [program for program in programs if program.folder == "."]
    found = root or programs
    if not found:
        raise CannotPlan("Cargo.toml describes a library: no program is built", hint="add src/main.rs, or a [[bin]]")
    choices = (
        found,
        [program for program in found if program.is_default],
        [program for program in found if program.name == program.package],
        [program for program in found if "mcp" in program.name],
    )
    for programs_left in choices:
        if len(programs_left) == 1:
            return programs_left[0]
    names = ", ".join([program.name for program in found][: entry.MAX_NAMED])
    raise entry.refusal("the source builds several programs", hint=f"name one as entry_point: {names}")
