"""TypeScript sources for Node.js: projects that build themselves, projects that are compiled, single files.

What runs, by the first of these that there is:

1. the request's `entry_point`: a file, one of the package's programs, or what the build makes;
2. what `package.json` starts (`bin`, `scripts.start`, `main`, `exports`; see `node`): JavaScript that the build makes,
   or a TypeScript file that `tsx` or `ts-node` would run;
3. `server.ts`, `index.ts`, `main.ts`, `app.ts`, the root's only TypeScript file, then the same in `src`.

How it becomes JavaScript:

- the request's `build_command`, if there is one: of an entry point `x.ts`, it makes `x.js`;
- the project's `build` script;
- `tsc`, if what is to run lies in the `outDir` of `tsconfig.json`: the project's own, or else a pinned one;
- for a TypeScript file, esbuild (pinned): its local imports go into one file beside it, packages stay outside. As with
  `tsx`, types are not checked. It becomes an ES module, unless it has what only CommonJS has and nothing of the other.
"""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from attrs import evolve

from runtimes import javascript, jsonc, node, npm, requirements
from runtimes.npm import Manifest, Start
from runtimes.recipe import Recipe, Step, Wish

if TYPE_CHECKING:
    from runtimes.tree import SourceTree

NAMES: tuple[str, ...] = ("typescript", "ts")
SUFFIXES: tuple[str, ...] = javascript.TYPED
TOOLS: tuple[str, ...] = npm.NEEDS
FILE_NAME = "server.ts"

ESBUILD = ("esbuild", "0.28.2")
TYPESCRIPT = ("typescript", "5.9.3")
"""For projects that name none: the last line that takes every `tsconfig.json` of the past years."""
NODE_TARGET = "node20"
"""The oldest Node.js that the MCP SDK still runs on."""
TOOLS_FOLDER = ".corral/tools"
"""A compiler is installed here, with a manifest of its own: the source's packages stay what they are.

In this folder and not by npm's `--prefix`, which would have npm pass over the host's own `npmrc`.
"""

_ONLY_COMMONJS = re.compile(
    r"\brequire\s*\(|\b__dirname\b|\b__filename\b|\bmodule\.exports\b|^\s*export\s*=", re.MULTILINE
)
_ONLY_MODULE = re.compile(r"\bimport\.meta\b|^await\s|\bcreateRequire\b", re.MULTILINE)
_INSTALL_TOOL = Step(
    name="install the compiler",
    argv=("npm", "install", "--ignore-scripts", *npm.QUIET),
    env=npm.ENV,
    cwd=TOOLS_FOLDER,
)
_LOOKED_FOR = "what package.json starts, server.ts, index.ts, main.ts, app.ts, an only .ts file"


def guess(tree: SourceTree) -> str | None:
    """By a `tsconfig.json`, or a `package.json` that names TypeScript."""
    family = javascript.family_of(tree)
    return family[1] if family and family[0] == "typescript" else None


def plan(tree: SourceTree, wish: Wish) -> Recipe:
    """Plan a TypeScript source.

    Raises:
        CannotPlan: there is nothing to run, or a wish cannot be met.
    """
    wanted = requirements.checked(wish.dependencies, requirements.NPM)
    manifest = npm.manifest_of(tree)
    out = _out_folder(tree)
    start = _start(tree, manifest, wish, out)
    if wish.build_command is not None and start.file.endswith(SUFFIXES):
        made = start.file[: -len("ts")] + "js"
        start = javascript.at(start, made)
    if start.file.endswith(SUFFIXES):
        return _bundled(tree, manifest, wanted, start)
    builds_itself = wish.build_command is not None or _builds(manifest)
    if builds_itself or not javascript.needs_build(tree, start.file):
        steps = node.steps_for(tree, manifest, wanted, start.file, wish.build_command)
        return _run(tree, start, steps, wanted)
    own = "typescript" in manifest.packages
    folder = npm.MODULES if own else f"{TOOLS_FOLDER}/{npm.MODULES}"
    compiling = Step(name="compile", argv=("node", f"{folder}/typescript/bin/tsc", "-p", "tsconfig.json"))
    install = npm.install(manifest, tree, wanted, development=True)
    steps = (*install, *(() if own else (_INSTALL_TOOL,)), compiling, *npm.prune(manifest))
    return _run(tree, start, steps, wanted, tool=None if own else TYPESCRIPT)


def _run(
    tree: SourceTree,
    start: Start,
    steps: tuple[Step, ...],
    wanted: tuple[str, ...],
    *,
    tool: tuple[str, str] | None = None,
) -> Recipe:
    """Run what is JavaScript by then; `tool` is what compiled it, and goes away."""
    recipe = node.launch(tree, start, steps, files=node.manifest_for(tree, start.file, wanted))
    recipe = evolve(recipe, language=NAMES[0])
    if tool is None:
        return recipe
    manifest = json.dumps({"private": True, "dependencies": dict([tool])}, indent=2) + "\n"
    files = (*recipe.files, (f"{TOOLS_FOLDER}/package.json", manifest))
    return evolve(recipe, files=files, needs=npm.NEEDS, discarded=(TOOLS_FOLDER,))


def _start(tree: SourceTree, manifest: Manifest, wish: Wish, out: str | None) -> Start:
    """What runs; see the module's list."""
    makes = wish.build_command is not None or _builds(manifest) or out is not None
    if wish.entry_point is not None:
        return javascript.named(tree, manifest, wish.entry_point, builds=makes)
    for start in manifest.starts():
        found = npm.module_file(tree, start.file)
        if found is not None:
            return javascript.at(start, found)
        if makes and start.file.endswith(javascript.SCRIPTS) and _is_made(manifest, wish, start.file, out):
            return start
    file = javascript.well_known(tree, SUFFIXES) or javascript.well_known(tree, javascript.SCRIPTS)
    if file is not None:
        return Start(runner="node", file=file)
    raise javascript.nothing_to_run(tree, FILE_NAME, _LOOKED_FOR)


def _is_made(manifest: Manifest, wish: Wish, file: str, out: str | None) -> bool:
    """Whether the build makes this file. `tsc` writes to its `outDir` only, whatever `npm init` put into `main`."""
    uses_tsc = not _builds(manifest) or re.search(r"\btsc\b", " ".join(manifest.scripts.values())) is not None
    if wish.build_command is not None or not uses_tsc or out is None:
        return True
    return file.startswith(f"{out}/")


def _builds(manifest: Manifest) -> bool:
    return "build" in manifest.scripts or manifest.builds_when_installed


def _out_folder(tree: SourceTree) -> str | None:
    """Where `tsc` writes, if that is a folder of its own."""
    options = jsonc.loads(tree.text("tsconfig.json") or "").get("compilerOptions")
    named = options.get("outDir") if isinstance(options, dict) else None
    if not isinstance(named, str) or named.startswith(("/", "$")):
        return None
    path = PurePosixPath(named)
    return None if ".." in path.parts or str(path) == "." else str(path)


def _bundled(tree: SourceTree, manifest: Manifest, wanted: tuple[str, ...], start: Start) -> Recipe:
    """Compile one file, with what it imports from beside it, and run the result."""
    kind = _module_kind(start.file, tree.text(start.file) or "")
    made = _beside(tree, start.file, ".mjs" if kind == "esm" else ".cjs")
    argv = (
        "node", f"{TOOLS_FOLDER}/{npm.MODULES}/esbuild/bin/esbuild", start.file, "--bundle", "--packages=external",
        "--platform=node", f"--target={NODE_TARGET}", f"--format={kind}", f"--outfile={made}", "--log-level=warning",
    )  # fmt: skip
    install = npm.install(manifest, tree, wanted, development=manifest.installs_itself)
    steps = (*install, _INSTALL_TOOL, Step(name="compile", argv=argv))
    runs = Start(runner="node", file=made, args=start.args, env=start.env)
    return evolve(_run(tree, runs, steps, wanted, tool=ESBUILD), entry_point=start.file)


def _module_kind(file: str, text: str) -> str:
    if file.endswith((".mts", ".cts")):
        return "esm" if file.endswith(".mts") else "cjs"
    return "cjs" if _ONLY_COMMONJS.search(text) and not _ONLY_MODULE.search(text) else "esm"


def _beside(tree: SourceTree, file: str, suffix: str) -> str:
    """A file beside it, so that it finds what it reads by its own place; none of the source is overwritten."""
    stem = file.rpartition(".")[0]
    return f"{stem}{suffix}" if f"{stem}{suffix}" not in tree else f"{stem}.corral{suffix}"
