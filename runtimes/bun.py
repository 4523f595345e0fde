"""Bun sources: packages with Bun's lock file, and single files.

What runs, by the first of these that there is (or that a build brings about):

1. the request's `entry_point`: a file, or one of the package's programs;
2. what `package.json` starts: `bin`, `scripts.start`, `main`, `exports` (see `node`);
3. `server.ts`, `index.ts`, `main.ts`, `app.ts` (or `.tsx`, `.mts`, `.js`, `.mjs`), the root's only one, then the same in
   `src`.

`bun install` brings what `package.json` names, exactly as `bun.lock` has it where there is one, and the request's
`dependencies` on top. Bun runs TypeScript as it is, so the `build` script runs only if the file that is to run is not
there yet; a `build_command` runs in its place, and always. Once it runs, Bun installs nothing by itself.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from runtimes import javascript, npm, requirements, shell
from runtimes.npm import Manifest, Start
from runtimes.recipe import Env, Place, Recipe, Step, Wish

if TYPE_CHECKING:
    from runtimes.tree import SourceTree

NAMES: tuple[str, ...] = ("bun",)
SUFFIXES: tuple[str, ...] = (".ts", ".mts", ".cts", ".tsx", ".js", ".mjs", ".cjs")
TOOLS: tuple[str, ...] = ("bun",)
FILE_NAME = "server.ts"

LOCKS = ("bun.lock", "bun.lockb")
# By copies: what is kept must not share its bytes with a folder that builds may write.
_INSTALL = ("bun", "install", "--backend=copyfile")
_ENV: Env = (("BUN_INSTALL_CACHE_DIR", Place("cache", "bun")), ("DO_NOT_TRACK", "1"), ("HUSKY", "0"))


def guess(tree: SourceTree) -> str | None:
    """By Bun's lock file or settings, where no other tool has a lock."""
    family = javascript.family_of(tree)
    return family[1] if family and family[0] == "bun" else None


def plan(tree: SourceTree, wish: Wish) -> Recipe:
    """Plan a Bun source.

    Raises:
        CannotPlan: there is nothing to run, or a wish cannot be met.
    """
    wanted = requirements.checked(wish.dependencies, requirements.NPM)
    manifest = npm.manifest_of(tree)
    builds = wish.build_command is not None or "build" in manifest.scripts
    start = _start(tree, manifest, wish.entry_point, builds=builds)
    build = _build(manifest, wish.build_command, needed=start.file not in tree)
    steps = _install(tree, manifest, wanted, development=bool(build) or manifest.installs_itself)
    writes = bool(wanted) and not manifest.exists
    return Recipe(
        language=NAMES[0],
        entry_point=start.file,
        files=(("package.json", json.dumps({"private": True}) + "\n"),) if writes else (),
        steps=(*steps, *build),
        argv=("bun", "--no-install", start.file, *start.args),
        env=start.env,
        path=(Place("tree", npm.PROGRAMS),) if steps else (),
        needs=TOOLS,
        installed=(npm.MODULES,) if steps else (),
    )


def _start(tree: SourceTree, manifest: Manifest, name: str | None, *, builds: bool) -> Start:
    if name is not None:
        return javascript.named(tree, manifest, name, builds=builds)
    start = javascript.starts_built(tree, manifest, builds=builds)
    if start is not None:
        return start
    if (file := javascript.well_known(tree, SUFFIXES)) is not None:
        return Start(runner="bun", file=file)
    raise javascript.nothing_to_run(
        tree, FILE_NAME, "what package.json starts, server.ts, index.ts, main.ts, app.ts, an only script"
    )


def _build(manifest: Manifest, command: str | None, *, needed: bool) -> tuple[Step, ...]:
    if command is not None:
        return (shell.own_build(command, npm.PROGRAMS, _ENV),)
    if needed and "build" in manifest.scripts:
        return (Step(name="build", argv=("bun", "run", "build"), env=_ENV),)
    return ()


def _install(tree: SourceTree, manifest: Manifest, wanted: tuple[str, ...], *, development: bool) -> tuple[Step, ...]:
    """Install; development packages stay where a build had them: Bun has nothing that takes them away."""
    omit = () if development else ("--production",)
    frozen = ("--frozen-lockfile",) if tree.first(*LOCKS) else ()
    steps = []
    if manifest.packages or manifest.has_workspaces or manifest.installs_itself:
        steps.append(Step(name="install dependencies", argv=(*_INSTALL, *omit, *frozen), env=_ENV))
    if wanted:
        steps.append(Step(name="install dependencies", argv=("bun", "add", "--backend=copyfile", *wanted), env=_ENV))
    return tuple(steps)
