"""Deno sources: with a `deno.json`, or single files.

What runs, by the first of these that there is:

1. the request's `entry_point`, a file;
2. of `deno.json`: `exports`, then the file of the task `start`, if that is a plain `deno run`;
3. `server.ts`, `index.ts`, `main.ts`, `app.ts`, `mod.ts` (or `.mts`, `.tsx`, `.js`, `.mjs`), the root's only one, then
   the same in `src`.

All that it imports is fetched before it starts, into a folder of the tree; it runs with that and fetches nothing. The
request's `dependencies` are `jsr:` and `npm:` requirements, which `deno add` writes into `deno.json`. A `deno.lock` is
kept to, unless something was added. It runs with all of Deno's permissions: what an instance may do is not for Deno to
say here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from runtimes import entry, javascript, jsonc, npm, requirements, shell
from runtimes.recipe import Env, Place, Recipe, Step, Wish

if TYPE_CHECKING:
    from runtimes.tree import SourceTree

NAMES: tuple[str, ...] = ("deno",)
SUFFIXES: tuple[str, ...] = (".ts", ".mts", ".tsx", ".js", ".mjs")
TOOLS: tuple[str, ...] = ("deno",)
FILE_NAME = "server.ts"

FOLDER = ".corral/deno"
_MANIFESTS = ("deno.json", "deno.jsonc")
_IMPORTS = re.compile(r"""(?:from|import)\s*\(?\s*["'](?:npm:|jsr:|https://(?:deno\.land|jsr\.io)/)""")
_SHEBANG = re.compile(r"#!.*\bdeno\b")
_TASK = re.compile(r"deno run(?: -[^ ]+)* (?P<file>[\w./-]+)")
_ENV: Env = (("DENO_DIR", Place("tree", FOLDER)), ("DENO_NO_UPDATE_CHECK", "1"))
_BUILD_ENV: Env = (*_ENV, ("DENO_TLS_CA_STORE", "system,mozilla"))


def guess(tree: SourceTree) -> str | None:
    """By its manifest, or by imports that only Deno knows in the file that would run."""
    family = javascript.family_of(tree)
    if family is not None:
        return family[1] if family[0] == "deno" else None
    text = tree.text(javascript.well_known(tree, SUFFIXES) or "") or ""
    return "its imports are Deno's" if _SHEBANG.match(text) or _IMPORTS.search(text) else None


def plan(tree: SourceTree, wish: Wish) -> Recipe:
    """Plan a Deno source.

    Raises:
        CannotPlan: there is nothing to run, or a wish cannot be met.
    """
    wanted = requirements.checked(wish.dependencies, requirements.DENO)
    makes = wish.build_command is not None
    file = _named(tree, wish.entry_point, makes=makes) if wish.entry_point is not None else _main(tree)
    frozen = ("--frozen",) if "deno.lock" in tree and not wanted else ()
    steps = [_step("install dependencies", "add", "--quiet", *wanted)] if wanted else []
    has_package = "package.json" in tree
    if has_package:
        steps.append(_step("install dependencies", "install", *frozen))
    if wish.build_command is not None:
        steps.append(shell.own_build(wish.build_command, env=_BUILD_ENV))
    steps.append(_step("fetch imports", "cache", *frozen, file))
    return Recipe(
        language=NAMES[0],
        entry_point=file,
        steps=tuple(steps),
        argv=("deno", "run", "--allow-all", "--cached-only", "--no-prompt", "--quiet", file),
        env=_ENV,
        needs=TOOLS,
        installed=(FOLDER, *((npm.MODULES,) if has_package else ())),
    )


def _step(name: str, *words: str) -> Step:
    return Step(name=name, argv=("deno", *words), env=_BUILD_ENV)


def _named(tree: SourceTree, name: str, *, makes: bool) -> str:
    return entry.path_of(name) if makes else entry.named_file(name, tree)


def _main(tree: SourceTree) -> str:
    data = jsonc.loads(tree.text(tree.first(*_MANIFESTS) or "") or "")
    for file in (_exported(data), _started(data)):
        if file is not None and file.removeprefix("./") in tree:
            return file.removeprefix("./")
    found = javascript.well_known(tree, SUFFIXES) or tree.first("mod.ts", "src/mod.ts")
    if found is None:
        raise javascript.nothing_to_run(
            tree, FILE_NAME, "exports and the task start of deno.json, server.ts, index.ts, main.ts, app.ts, mod.ts"
        )
    return found


def _exported(data: dict[str, Any]) -> str | None:
    exports = data.get("exports")
    if isinstance(exports, dict):
        exports = exports.get(".")
    return exports if isinstance(exports, str) else None


def _started(data: dict[str, Any]) -> str | None:
    tasks = data.get("tasks")
    start = tasks.get("start") if isinstance(tasks, dict) else None
    command = start.get("command") if isinstance(start, dict) else start
    match = _TASK.fullmatch(command) if isinstance(command, str) else None
    return match["file"] if match else None
