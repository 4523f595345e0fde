"""Go sources: modules, and single files.

What is built, by the first of these that there is:

1. the request's `entry_point`: a package (`./cmd/server`), or a file of it;
2. the root, if it is a `main` package;
3. the only `main` package; of several, the one called like the module, `server`, or the only one with `mcp` in it.

A source without `go.mod` becomes a module of its own: `go mod init`, the request's `dependencies`, `go mod tidy`. One
with it is built as it is; `go.sum` is filled in only where there is none, or where `dependencies` were added.

A `build_command` takes the place of `go build`: it makes the program that `entry_point` names, or else
`.corral/bin/server`.

The Go that is there is the one that is used: it fetches no other. Whether C is linked is for Go to say: it is, where
the host has a C compiler.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from runtimes import compiled, entry, requirements
from runtimes.recipe import CannotPlan, Env, Place, Recipe, Step, Wish

if TYPE_CHECKING:
    from runtimes.tree import SourceTree

NAMES: tuple[str, ...] = ("go", "golang")
SUFFIXES: tuple[str, ...] = (".go",)
TOOLS: tuple[str, ...] = ("go",)
FILE_NAME = "main.go"

MODULE = "corral.local/server"
"""What a source is called that does not say; `.local` is nobody's domain."""
MAX_READ = 400
"""Files that are looked into for a `main` package; nearest the root first."""
_WRITABLE_MODULES = "-modcacherw"
"""Go makes its module cache read-only, folders too, and then a plain user cannot remove it."""
_MAIN = re.compile(r"^package main\b", re.MULTILINE)
_IGNORED = re.compile(r"^//go:build ignore\b", re.MULTILINE)
_MODULE_LINE = re.compile(r'^module\s+"?([^\s"]+)', re.MULTILINE)
_SKIPPED = frozenset({"vendor", "testdata", "examples", "example", "internal"})


def guess(tree: SourceTree) -> str | None:
    """By a `go.mod`."""
    return "there is a go.mod" if "go.mod" in tree else None


def plan(tree: SourceTree, wish: Wish) -> Recipe:
    """Plan a Go source.

    Raises:
        CannotPlan: there is nothing to build, or a wish cannot be met.
    """
    wanted = requirements.checked(wish.dependencies, requirements.GO)
    env = _env(tree, added=bool(wanted))
    modules = _modules(tree, wanted, env)
    if wish.build_command is not None:
        return compiled.built_by_owner(wish, language=NAMES[0], suffixes=SUFFIXES, before=modules, env=env, needs=TOOLS)
    package = _named(tree, wish.entry_point) if wish.entry_point is not None else _main_package(tree)
    argv = ("go", "build", "-trimpath", "-buildvcs=false", "-o", compiled.SERVER, package)
    return Recipe(
        language=NAMES[0],
        entry_point=wish.entry_point or (None if package == "." else package),
        steps=(*modules, Step(name="build", argv=argv, env=env)),
        argv=(compiled.SERVER,),
        needs=TOOLS,
        installed=(compiled.FOLDER,),
    )


def _env(tree: SourceTree, *, added: bool) -> Env:
    has_sums = tree.first("go.sum", "vendor/modules.txt") is not None
    flags = _WRITABLE_MODULES if has_sums and not added else f"{_WRITABLE_MODULES} -mod=mod"
    return (
        ("GOCACHE", Place("cache", "go-build")),
        ("GOMODCACHE", Place("cache", "go-mod")),
        ("GOTOOLCHAIN", "local"),
        ("GOFLAGS", flags),
    )


def _modules(tree: SourceTree, wanted: tuple[str, ...], env: Env) -> tuple[Step, ...]:
    """Make a module of what is none, and add what is wanted."""
    get = (Step(name="install dependencies", argv=("go", "get", *wanted), env=env),) if wanted else ()
    if "go.mod" in tree:
        return get
    init = Step(name="make a module", argv=("go", "mod", "init", MODULE), env=env)
    return (init, *get, Step(name="install dependencies", argv=("go", "mod", "tidy"), env=env))


def _named(tree: SourceTree, name: str) -> str:
    """The package that the owner named, as Go takes it."""
    if name.strip() in (".", "./"):
        return "."
    path = entry.path_of(name)
    if path.endswith(".go"):
        if path not in tree:
            raise entry.missing(path, tree)
        path = str(PurePosixPath(path).parent)
    elif not any(str(PurePosixPath(file).parent) == path and file.endswith(".go") for file in tree.files):
        raise _not_a_package(path, tree)
    return "." if path == "." else f"./{path}"


def _main_package(tree: SourceTree) -> str:
    found = _main_packages(tree)
    if not found:
        files = ", ".join(entry.nearest(FILE_NAME, tree)) or "no file at all"
        raise entry.refusal(
            f"no package main in the source; there is: {files}",
            hint="name an entry_point: the folder of the package to build, such as ./cmd/server",
        )
    if "." in found or len(found) == 1:
        return "." if "." in found else f"./{found[0]}"
    module = _MODULE_LINE.search(tree.text("go.mod") or "")
    own_name = module[1].rpartition("/")[2] if module else ""
    called = {name: [path for path in found if path.rpartition("/")[2] == name] for name in (own_name, "server")}
    of_mcp = [path for path in found if "mcp" in path.rpartition("/")[2]]
    for paths in (*called.values(), of_mcp):
        if len(paths) == 1:
            return f"./{paths[0]}"
    raise entry.refusal("the source has several main packages", hint=f"name one as entry_point: {_listed(found)}")


def _main_packages(tree: SourceTree) -> list[str]:
    """The folders whose files say `package main`, nearest the root first."""
    paths = sorted((PurePosixPath(name) for name in tree.files), key=lambda path: (len(path.parts), str(path)))
    sources = [
        path
        for path in paths
        if path.suffix == ".go" and not path.name.endswith("_test.go") and not _SKIPPED & set(path.parts[:-1])
    ]
    found: dict[str, None] = {}
    for path in sources[:MAX_READ]:
        folder = str(path.parent)
        text = "" if folder in found else tree.text(str(path)) or ""
        if _MAIN.search(text) and not _IGNORED.search(text):
            found[folder] = None
    return list(found)


def _not_a_package(path: str, tree: SourceTree) -> CannotPlan:
    packages = _main_packages(tree)
    there = _listed(packages) or ", ".join(entry.nearest(FILE_NAME, tree)) or "no Go file"
    return entry.refusal(f"there is no Go package {path} in the source; there is: {there}")


def _listed(folders: list[str]) -> str:
    return ", ".join(f"./{folder}" for folder in folders[: entry.MAX_NAMED])
