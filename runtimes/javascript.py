"""What Node.js, TypeScript, Deno and Bun sources have in common: whose a folder is, and which file of it runs. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from runtimes import entry, npm
from runtimes.npm import Manifest, Start

if TYPE_CHECKING:
    from runtimes.tree import SourceTree

Family = Literal["node", "typescript", "deno", "bun"]

MAIN_NAMES = ("server", "index", "main", "app")
SCRIPTS = (".js", ".mjs", ".cjs")
TYPED = (".ts", ".mts", ".cts")
_BUILT = re.compile(r"""['"](?:\.{1,2}/)+(dist|build|lib|out)/""")
_NOT_SERVERS = re.compile(r".*\.(?:config|test|spec|d)\.[cm]?[jt]s|\..*")
_MODULE_SYNTAX = re.compile(r"^\s*(?:import\s*[\w{*'\"]|export\s)|^await\s|\bimport\.meta\b", re.MULTILINE)


def family_of(tree: SourceTree) -> tuple[Family, str] | None:
    """Who runs this folder, and what says so; None if it is nobody's of these."""
    has_package = "package.json" in tree
    bun = tree.first("bun.lock", "bun.lockb", "bunfig.toml")
    if bun and not tree.first(*npm.LOCKS, "pnpm-lock.yaml", "yarn.lock"):
        return "bun", f"there is a {bun}"
    deno = tree.first("deno.json", "deno.jsonc", "deno.lock")
    if deno and not has_package:
        return "deno", f"there is a {deno}"
    if "tsconfig.json" in tree:
        return "typescript", "there is a tsconfig.json"
    if not has_package:
        return None
    typed = npm.manifest_of(tree).packages & {"typescript", "tsx", "ts-node"}
    if typed:
        return "typescript", f"package.json names {min(typed)}"
    return "node", "there is a package.json"


def is_module(text: str | None) -> bool:
    """Whether it is written as an ES module."""
    return _MODULE_SYNTAX.search(text or "") is not None


def starts_built(tree: SourceTree, manifest: Manifest, *, builds: bool) -> Start | None:
    """The first start of `package.json` whose file there is, or which a build could bring about."""
    for start in manifest.starts():
        if (file := npm.module_file(tree, start.file)) is not None:
            return at(start, file)
        if builds and start.file.endswith((*SCRIPTS, *TYPED)):
            return start
    return None


def well_known(tree: SourceTree, suffixes: tuple[str, ...]) -> str | None:
    """`server.js`, `index.js` … of the root, its only file, then those of `src`."""
    for folder in ("", "src/"):
        if found := tree.first(*(f"{folder}{name}{suffix}" for name in MAIN_NAMES for suffix in suffixes)):
            return found
        if not folder and (only := _only(tree, suffixes)):
            return only
    return None


def named(tree: SourceTree, manifest: Manifest, name: str, *, builds: bool) -> Start:
    """The entry point that the owner named: a file, a program of the package, or what a build brings about.

    Raises:
        CannotPlan: it is none of these.
    """
    path = entry.path_of(name)
    if path in tree:
        return Start(runner="node", file=path)
    if path in manifest.bins:
        return Start(runner="node", file=manifest.bins[path])
    if builds and path.endswith(SCRIPTS):
        return Start(runner="node", file=path)
    raise entry.missing(path, tree, also=manifest.bins)


def needs_build(tree: SourceTree, file: str) -> bool:
    """Whether the file, or a folder that it reaches into, is not there yet."""
    if file not in tree:
        return True
    folders = _BUILT.findall(tree.text(file) or "")
    return any(not any(name.startswith(f"{folder}/") for name in tree.files) for folder in folders)


def nothing_to_run(tree: SourceTree, default: str, looked_for: str) -> Exception:
    """That no file is the obvious one."""
    there = ", ".join(entry.nearest(default, tree)) or "no file at all"
    return entry.refusal(
        f"nothing says which file to run; there is: {there}", hint=f"name an entry_point; looked for: {looked_for}"
    )


def _only(tree: SourceTree, suffixes: tuple[str, ...]) -> str | None:
    found = [name for name in tree.at_root() if name.endswith(suffixes) and not _NOT_SERVERS.fullmatch(name)]
    return found[0] if len(found) == 1 else None


def at(start: Start, file: str) -> Start:
    """The same start of another file."""
    return Start(runner=start.runner, flags=start.flags, file=file, args=start.args, env=start.env)
