"""How a registry's package is locked, installed and launched, in place of `npx`, `uvx` and `pipx run`. Pure.

A command names what it wants loosely (`server@latest`); locking says what that is at this moment, with the hash of
everything; installing needs nothing but that lock, so the same lock is the same install, for anyone. What is
installed is launched without its tool: the interpreter with the package's own program, as the tool would find it.

The recipes for locking and for installing launch nothing: their `argv` is empty, and `launch` gives it, once what was
installed can be read. All of its paths are places, so it runs in whatever folder the server is to run in.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from runtimes import npm, uv
from runtimes.pyproject import folded
from runtimes.recipe import CannotPlan, Env, Place, Recipe, Step, Word

if TYPE_CHECKING:
    from runtimes.commands import PackageCommand

Read = Callable[[str], bytes | None]
"""Gives the beginning of an installed file by its path below the tree; None if there is no such regular file."""

LOCK_FILES = {"npm": "package-lock.json", "pypi": "requirements.lock"}
"""What the steps of `lock` write."""
SHEBANG_MAX_BYTES = 4096
"""Of a program's beginning; the kernel itself reads 256."""

_WANTED = "requirements.in"
_PYTHON_ENV: Env = (("PYTHONUNBUFFERED", "1"), ("PYTHONDONTWRITEBYTECODE", "1"))
_NPM_SPEC = re.compile(r"(?P<name>@?[^@]+)(?:@(?P<range>.+))?")
_PYTHON_SCRIPT = re.compile(rb"#![^\n]*\bpython[0-9.]*\b|#!\s*/bin/sh\r?\n'''exec'")


def lock_file(command: PackageCommand) -> str:
    """The lock that the steps of `lock` leave, as a path below the tree."""
    return LOCK_FILES[command.ecosystem]


def lock(command: PackageCommand, *, builds: bool = False) -> Recipe:
    """Find out what a command stands for at this moment; nothing is installed.

    Args:
        command: Which.
        builds: Whether a package's own code may run for that. A source distribution of PyPI's has to be built before it
            says what it needs; without this only wheels count.
    """
    if command.ecosystem == "npm":
        argv: tuple[Word, ...] = ("npm", "install", "--package-lock-only", "--ignore-scripts", *npm.QUIET)
        step = Step(name="resolve the package", argv=argv, env=npm.ENV)
        return Recipe(language="node", files=(_manifest(command),), steps=(step,), argv=(), needs=npm.NEEDS)
    wanted = "".join(f"{text}\n" for text in command.requirements)
    argv = (
        "uv", "pip", "compile", *_only_wheels(builds), "--no-header", "--no-annotate", "--no-emit-index-url", "--generate-hashes",
        "--python", command.python or "python", "--output-file", LOCK_FILES["pypi"], _WANTED,
    )  # fmt: skip
    step = Step(name="resolve the package", argv=argv, env=uv.ENV)
    return Recipe(language="python", files=((_WANTED, wanted),), steps=(step,), argv=(), needs=uv.NEEDS)


def version(command: PackageCommand, locked: str) -> str:
    """The version of the command's package that a lock has.

    Raises:
        CannotPlan: it has none.
    """
    found = _npm_version(command.package, locked) if command.ecosystem == "npm" else _pypi_version(command, locked)
    if found is None:
        raise CannotPlan(f"the lock does not say which version of {command.package} it has")
    return found


def install(command: PackageCommand, locked: str, *, builds: bool = False) -> Recipe:
    """Install what a lock has, and nothing else; `builds` as for `lock`."""
    if command.ecosystem == "npm":
        # With the packages' own install scripts, as npx has it.
        step = Step(name="install the package", argv=("npm", "ci", "--omit=dev", *npm.QUIET), env=npm.ENV)
        return Recipe(
            language="node",
            files=(_manifest(command), (LOCK_FILES["npm"], locked)),
            steps=(step,),
            argv=(),
            path=(Place("tree", npm.PROGRAMS),),
            needs=npm.NEEDS,
            installed=(npm.MODULES,),
        )
    options = ("--require-hashes", *_only_wheels(builds))
    argv: tuple[Word, ...] = ("uv", "pip", "sync", *options, "--python", uv.PYTHON, LOCK_FILES["pypi"])
    step = Step(name="install the package", argv=argv, env=uv.ENV)
    return Recipe(
        language="python",
        files=((LOCK_FILES["pypi"], locked),),
        steps=(uv.make_environment(command.python), step),
        argv=(),
        env=_PYTHON_ENV,
        path=(uv.SCRIPTS,),
        needs=uv.NEEDS,
        installed=(uv.VENV,),
    )


def launch(command: PackageCommand, read: Read) -> tuple[Word, ...]:
    """What to run, now that it is installed.

    Raises:
        CannotPlan: its tool would find no program, or would start it in a way that only the tool can.
    """
    words = _npm_launch(command, read) if command.ecosystem == "npm" else _pypi_launch(command, read)
    return (*words, *command.args)


def _only_wheels(builds: bool) -> tuple[str, ...]:
    return () if builds else ("--no-build",)


def _manifest(command: PackageCommand) -> tuple[str, str]:
    """A `package.json` with nothing but what is wanted; named, or npm would write the folder's name into the lock."""
    specs = [_NPM_SPEC.fullmatch(text) for text in command.requirements]
    wanted = {spec["name"]: spec["range"] or "*" for spec in specs if spec is not None}
    data = {"name": "package-command", "version": "0.0.0", "private": True, "dependencies": wanted}
    return "package.json", json.dumps(data, indent=2) + "\n"


def _npm_version(package: str, locked: str) -> str | None:
    found = _object(locked.encode()).get("packages")
    entry = found.get(f"{npm.MODULES}/{package}") if isinstance(found, dict) else None
    named = entry.get("version") if isinstance(entry, dict) else None
    return named if isinstance(named, str) else None


def _pypi_version(command: PackageCommand, locked: str) -> str | None:
    pinned = (re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", line) for line in locked.splitlines())
    return next((match[2] for match in pinned if match and folded(match[1]) == folded(command.package)), None)


def _npm_launch(command: PackageCommand, read: Read) -> tuple[Word, ...]:
    file = _npm_program(command, read)
    beginning = read(file)
    if beginning is None:
        raise CannotPlan(f"the package has no file {file}")
    first, _, _ = beginning[:SHEBANG_MAX_BYTES].partition(b"\n")
    if not first.startswith(b"#!"):
        if first.startswith(b"\x7fELF"):
            return (Place("tree", file),)
        raise CannotPlan(f"{file} does not say what runs it")
    flags = _node_flags(first[2:].decode("utf-8", "replace"))
    return (Place("tree", file),) if flags is None else ("node", *flags, Place("tree", file))


def _npm_program(command: PackageCommand, read: Read) -> str:
    """The program's file, as npx finds it: by its name, in the packages that were named, or as the package's main one."""
    specs = [_NPM_SPEC.fullmatch(text) for text in command.requirements]
    for name in [spec["name"] for spec in specs if spec is not None]:
        folder = f"{npm.MODULES}/{name}"
        data = _object(read(f"{folder}/package.json"))
        bins = npm.bins_of(name, data)
        program = command.program if command.program is not None else npm.main_bin(name, bins)
        if program in bins:
            return f"{folder}/{bins[program]}"
    raise CannotPlan(f"{command.package} has no program {command.program or 'that is the obvious one'}")


def _node_flags(shebang: str) -> tuple[str, ...] | None:
    """The flags of a shebang that means Node.js; None if it means anything else."""
    try:
        interpreter, *words = shlex.split(shebang)
    except ValueError:
        return None
    if PurePosixPath(interpreter).name == "env":
        # Without -S, all after `env` is one program's name.
        if words[:1] == ["-S"]:
            words = words[1:]
        elif len(words) > 1:
            return None
        if not words:
            return None
        interpreter, *words = words
    return tuple(words) if PurePosixPath(interpreter).name == "node" else None


def _pypi_launch(command: PackageCommand, read: Read) -> tuple[Word, ...]:
    file = f"{uv.VENV}/bin/{command.program}"
    beginning = read(file)
    if beginning is None:
        raise CannotPlan(f"{command.package} has no program {command.program}")
    script = Place("tree", file)
    return (uv.PYTHON, script) if _PYTHON_SCRIPT.match(beginning[:SHEBANG_MAX_BYTES]) else (script,)


def _object(text: bytes | None) -> dict[str, Any]:
    """A JSON object; empty if it is anything else."""
    try:
        data = json.loads(text or b"")
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
