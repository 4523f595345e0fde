"""Node.js sources: packages with a `package.json`, and single files.

What runs, by the first of these that there is (or that a build brings about):

1. the request's `entry_point`: a file, or one of the package's programs;
2. the package's `bin`: the only one, or the one called like the package, as npx has it;
3. `scripts.start`, if it does nothing but run one file with node: its flags, arguments and variables are kept;
4. `main`, then `exports`;
5. `server.js`, `index.js`, `main.js`, `app.js` (or `.mjs`, `.cjs`), the root's only script, then the same in `src`.

`npm ci` installs what a lock file has, else `npm install` what `package.json` names, and the request's `dependencies`
on top. The `build` script runs if the file that is to run is not there yet, or reaches into a folder that is not; a
`build_command` runs in its place, and always. Development packages are there for building only.

A single file that is written as an ES module gets a `package.json` that says so; older Nodes need it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from runtimes import javascript, npm, requirements, shell
from runtimes.recipe import Place, Recipe, Step, Wish

if TYPE_CHECKING:
    from runtimes.npm import Manifest, Start
    from runtimes.tree import SourceTree

NAMES: tuple[str, ...] = ("node", "nodejs", "javascript", "js", "node.js")
SUFFIXES: tuple[str, ...] = javascript.SCRIPTS
TOOLS: tuple[str, ...] = npm.NEEDS
FILE_NAME = "server.js"
LOOKED_FOR = (
    "bin, scripts.start, main and exports of package.json, server.js, index.js, main.js, app.js, an only script"
)


def guess(tree: SourceTree) -> str | None:
    """By a `package.json` that is nobody else's."""
    family = javascript.family_of(tree)
    return family[1] if family and family[0] == "node" else None


def plan(tree: SourceTree, wish: Wish) -> Recipe:
    """Plan a Node.js source.

    Raises:
        CannotPlan: there is nothing to run, or a wish cannot be met.
    """
    wanted = requirements.checked(wish.dependencies, requirements.NPM)
    manifest = npm.manifest_of(tree)
    builds = wish.build_command is not None or "build" in manifest.scripts or manifest.builds_when_installed
    start = _start(tree, manifest, wish.entry_point, builds=builds)
    steps = steps_for(tree, manifest, wanted, start.file, wish.build_command)
    return launch(tree, start, steps, files=manifest_for(tree, start.file, wanted))


def steps_for(
    tree: SourceTree, manifest: Manifest, wanted: tuple[str, ...], file: str, command: str | None
) -> tuple[Step, ...]:
    """Install, build if that is needed or asked for, and take away what only building needed."""
    own = (shell.own_build(command, npm.PROGRAMS, npm.ENV),) if command is not None else ()
    build = own or (npm.build(manifest) if javascript.needs_build(tree, file) else ())
    development = bool(build) or manifest.installs_itself
    install = npm.install(manifest, tree, wanted, development=development)
    return (*install, *build, *(npm.prune(manifest) if development and install else ()))


def manifest_for(tree: SourceTree, file: str, wanted: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """A `package.json`, where the source has none and Node.js or npm would miss it."""
    is_module = file.endswith(".js") and javascript.is_module(tree.text(file))
    if "package.json" in tree or not (wanted or is_module):
        return ()
    kind = {"type": "module"} if is_module else {}
    return (("package.json", json.dumps({"private": True, **kind}, indent=2) + "\n"),)


def launch(
    tree: SourceTree, start: Start, steps: tuple[Step, ...], *, files: tuple[tuple[str, str], ...] = ()
) -> Recipe:
    """Run a script; module or script is decided by its suffix and its `package.json`, as Node.js does."""
    has_modules = any(step.name == npm.INSTALL for step in steps)
    return Recipe(
        language="node",
        entry_point=start.file,
        files=files,
        steps=steps,
        argv=("node", *start.flags, start.file, *start.args),
        env=start.env,
        path=(Place("tree", npm.PROGRAMS),) if has_modules else (),
        needs=npm.NEEDS if has_modules else ("node",),
        installed=(npm.MODULES,) if has_modules else (),
        notes=npm.notes_on(tree),
    )


def _start(tree: SourceTree, manifest: Manifest, name: str | None, *, builds: bool) -> Start:
    """What runs; see the module's list."""
    if name is not None:
        return javascript.named(tree, manifest, name, builds=builds)
    start = javascript.starts_built(tree, manifest, builds=builds)
    if start is not None and start.runner == "node":
        return start
    if (file := javascript.well_known(tree, SUFFIXES)) is not None:
        return npm.Start(runner="node", file=file)
    raise javascript.nothing_to_run(tree, FILE_NAME, LOOKED_FOR)
