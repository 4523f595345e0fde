"""What a JavaScript source says of itself in `package.json`, and the npm commands that follow from it. Pure."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from runtimes.recipe import CannotPlan, Env, Place, Step

if TYPE_CHECKING:
    from runtimes.tree import SourceTree

MODULES = "node_modules"
PROGRAMS = f"{MODULES}/.bin"
NEEDS = ("node", "npm")
ENV: Env = (
    ("npm_config_cache", Place("cache", "npm")),
    ("npm_config_update_notifier", "false"),
    ("HUSKY", "0"),  # Git hooks, which a `prepare` script would set up
)
QUIET = ("--no-audit", "--no-fund")
INSTALL = "install dependencies"
"""The name of a step that fills `node_modules`."""
LOCKS = ("npm-shrinkwrap.json", "package-lock.json")
_FOREIGN_LOCKS = ("pnpm-lock.yaml", "yarn.lock", "bun.lock", "bun.lockb")
_OWN_INSTALL_SCRIPTS = ("preinstall", "install", "postinstall", "prepublish", "preprepare", "prepare", "postprepare")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_SHELL = re.compile(r"[|&;<>()$`\n*?#]")
_RUNNERS = ("node", "tsx", "ts-node", "bun")


@frozen(kw_only=True)
class Start:
    """`scripts.start`, where it does nothing but run one file: `NODE_ENV=production node --flag dist/index.js arg`."""

    runner: str
    flags: tuple[str, ...] = ()
    file: str
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()


@frozen(kw_only=True)
class Manifest:
    """A `package.json`, as far as running it goes; all empty if there is none."""

    exists: bool = False
    name: str = ""
    bins: Mapping[str, str] = field(factory=dict)
    main: str | None = None
    exported: str | None = None
    scripts: Mapping[str, str] = field(factory=dict)
    runtime_packages: frozenset[str] = frozenset()
    development_packages: frozenset[str] = frozenset()
    has_workspaces: bool = False

    @property
    def packages(self) -> frozenset[str]:
        return self.runtime_packages | self.development_packages

    @property
    def installs_itself(self) -> bool:
        """npm runs a script of its own when it is installed; such scripts use development tools."""
        return any(name in self.scripts for name in _OWN_INSTALL_SCRIPTS)

    @property
    def builds_when_installed(self) -> bool:
        """Such a script already is the build."""
        return any(re.search(r"\bbuild\b|\btsc\b", self.scripts.get(name, "")) for name in _OWN_INSTALL_SCRIPTS)

    @property
    def start(self) -> Start | None:
        return parse_start(self.scripts.get("start", ""))

    def starts(self) -> Iterator[Start]:
        """What may be the server, likeliest first: its program, what it says it starts with, its main module."""
        if (program := main_bin(self.name, self.bins)) is not None:
            yield Start(runner="node", file=self.bins[program])
        if self.start is not None:
            yield self.start
        for file in (self.main, self.exported):
            if file is not None:
                yield Start(runner="node", file=file)


def manifest_of(tree: SourceTree) -> Manifest:
    """Read the tree's `package.json`.

    Raises:
        CannotPlan: it is no JSON object.
    """
    text = tree.text("package.json")
    if text is None:
        return Manifest()
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CannotPlan(f"package.json cannot be read: {error}") from None
    if not isinstance(data, dict):
        raise CannotPlan("package.json is no object")
    name = data.get("name")
    name = name if isinstance(name, str) else ""
    runtime = (*_table(data, "dependencies"), *_table(data, "optionalDependencies"), *_table(data, "peerDependencies"))
    return Manifest(
        exists=True,
        name=name,
        bins=bins_of(name, data),
        main=_path(data.get("main")),
        exported=_path(_exported(data.get("exports"))),
        scripts={key: text for key, text in _table(data, "scripts").items() if isinstance(text, str)},
        runtime_packages=frozenset(runtime),
        development_packages=frozenset(_table(data, "devDependencies")),
        has_workspaces=bool(data.get("workspaces")),
    )


def bins_of(name: str, data: Mapping[str, Any]) -> dict[str, str]:
    """The programs of a package, by name, as npm links them; what leads out of the package is passed over."""
    bins = data.get("bin")
    named = {unscoped(name): bins} if isinstance(bins, str) else bins if isinstance(bins, dict) else {}
    paths = ((key, _path(file)) for key, file in named.items())
    return {key.rpartition("/")[2]: path for key, path in paths if path is not None}


def main_bin(name: str, bins: Mapping[str, str]) -> str | None:
    """The program that npx runs: the only one, or the one called like the package."""
    if len(set(bins.values())) == 1:
        return next(iter(bins))
    return unscoped(name) if unscoped(name) in bins else None


def unscoped(name: str) -> str:
    """`server` of `@scope/server`."""
    return re.sub(r"^@[^/]+/", "", name)


def parse_start(script: str) -> Start | None:
    """A script that runs one file and needs no shell; None if it does anything else."""
    try:
        words = [] if _SHELL.search(script) else shlex.split(script)
    except ValueError:
        return None
    env = []
    while words and _ASSIGNMENT.match(words[0]):
        name, _, value = words.pop(0).partition("=")
        env.append((name, value))
    if not words or words[0] not in _RUNNERS:
        return None
    flags = []
    runner, *rest = words
    while rest and (rest[0].startswith("-") or (runner == "bun" and rest[0] == "run")):
        flags.append(rest.pop(0))
    path = _path(rest[0]) if rest else None
    if path is None or any(not flag.startswith("--") for flag in flags if flag != "run"):
        return None
    return Start(runner=runner, flags=tuple(flags), file=path, args=tuple(rest[1:]), env=tuple(env))


def install(manifest: Manifest, tree: SourceTree, wanted: tuple[str, ...], *, development: bool) -> tuple[Step, ...]:
    """Install what the lock file has, or else what `package.json` names, and what is wanted on top.

    Args:
        manifest: Of the tree, or of what the recipe writes into it.
        tree: For its lock file.
        wanted: Further requirements.
        development: With the tools that only building needs.
    """
    omit = () if development else ("--omit=dev",)
    locked = tree.first(*LOCKS) is not None
    steps = []
    if locked:
        steps.append(Step(name=INSTALL, argv=("npm", "ci", *omit, *QUIET), env=ENV))
    if wanted or (not locked and _has_any(manifest)):
        more = ("--", *wanted) if wanted else ()
        steps.append(Step(name=INSTALL, argv=("npm", "install", *omit, *QUIET, *more), env=ENV))
    return tuple(steps)


def build(manifest: Manifest) -> tuple[Step, ...]:
    """The project's own build script, unless installing has run it."""
    if "build" not in manifest.scripts or manifest.builds_when_installed:
        return ()
    return (Step(name="build", argv=("npm", "run", "build"), env=ENV),)


def prune(manifest: Manifest) -> tuple[Step, ...]:
    """Take away what only building needed."""
    if not manifest.development_packages:
        return ()
    argv = ("npm", "prune", "--omit=dev", "--ignore-scripts", *QUIET)
    return (Step(name="remove development packages", argv=argv, env=ENV),)


def notes_on(tree: SourceTree) -> tuple[str, ...]:
    """Which lock files are passed over."""
    return tuple(f"{name} is not read: npm resolves package.json anew" for name in _FOREIGN_LOCKS if name in tree)


def module_file(tree: SourceTree, path: str) -> str | None:
    """The file that a path without suffix, or a folder, stands for; None if there is none."""
    ends = ("", ".js", ".mjs", ".cjs", "/index.js", "/index.mjs", "/index.cjs")
    return tree.first(*(path.rstrip("/") + end for end in ends))


def _has_any(manifest: Manifest) -> bool:
    return bool(manifest.packages) or manifest.has_workspaces or manifest.installs_itself


def _exported(exports: object) -> object:
    """What `import` of the package gives."""
    if isinstance(exports, dict):
        exports = exports.get(".", exports)
    for _ in range(3):  # conditions within conditions: `node` holds `import`, which holds `default`
        if not isinstance(exports, dict):
            break
        exports = next((exports[key] for key in ("node", "import", "default", "require") if key in exports), None)
    return exports


def _path(value: object) -> str | None:
    """A path below the package, without `./`; None for anything else."""
    if not isinstance(value, str) or not value or value.startswith(("/", "-")) or "\\" in value or "\0" in value:
        return None
    path = PurePosixPath(value)
    return None if ".." in path.parts or str(path) == "." else str(path)


def _table(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}
