"""Commands that install a package and run it (`npx`, `uvx`, `pipx run`), as the package and its arguments. Pure.

What is understood can be installed once and launched directly. All else runs as it is written, each time through its
tool, and that is never wrong: so only what surely means the same is understood. Not understood, on purpose:

- packages from anywhere but the registry: Git, URLs, archives, folders, aliases (`x@npm:y`);
- options that change where packages come from (`--registry`, `--index`, `--find-links`), and any unknown option;
- a shell line instead of a program (`npx -c`), or no program at all;
- the interpreter itself (`uvx python`): it would be given a script that it is not;
- names that look like options, or lead out of a folder (`@scope/../..`);
- a tool named by its path: somebody wants that one, and no other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from attrs import frozen

from runtimes.requirements import NPM, NPM_NAME, NPM_RANGE, PYPI, PYPI_EXTRAS, PYPI_NAME, PYPI_VERSION, fits

MAX_PACKAGES = 50
"""Packages that one command may name; the most that was seen is four."""

_NPM = re.compile(rf"(?P<name>{NPM_NAME})(?:@(?P<range>{NPM_RANGE}))?")
_PYPI_AT = re.compile(rf"(?P<name>{PYPI_NAME})(?P<extras>{PYPI_EXTRAS})?@(?P<version>{PYPI_VERSION})")
_PYPI = re.compile(rf"(?P<name>{PYPI_NAME})")
_PROGRAM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}")
_PYTHON = re.compile(r"3(?:\.[0-9]{1,3}){0,2}")
_INTERPRETER = re.compile(r"(?:python|pypy)[0-9.]*t?w?")
_ENVIRONMENT = re.compile(r"(?:npm_config_|uv_|pip_|pipx_).*|node_options|path|virtual_env", re.IGNORECASE)

_NPX_QUIET = ("-y", "--yes", "-q", "--quiet", "-s", "--silent")
_UVX_QUIET = ("-q", "--quiet", "--no-progress", "--isolated", "--no-python-downloads")
_PIPX_QUIET = ("-q", "--quiet")


@frozen(kw_only=True)
class PackageCommand:
    """A registry's package with a program, and how it is called.

    Args:
        ecosystem: The registry.
        package: The name of the package that has the program; of npm's, the first one named.
        requirements: All to install, that package's first: `name@range` of npm's, PEP 508 of PyPI's.
        program: Which program; None: npx decides by the package's manifest.
        args: For the program.
        python: The version asked for; None: Corral's own.
    """

    ecosystem: Literal["npm", "pypi"]
    package: str
    requirements: tuple[str, ...]
    program: str | None
    args: tuple[str, ...] = ()
    python: str | None = None


@frozen
class _Options:
    """A tool's options, by their one name, and the words after them."""

    values: dict[str, list[str]]
    rest: tuple[str, ...]
    is_ended: bool
    """A `--` stood before the rest."""

    def one(self, name: str) -> str | None:
        given = self.values.get(name, [])
        return given[-1] if given else None


def package_of(command: str, args: tuple[str, ...]) -> PackageCommand | None:
    """The package that a command installs and runs; None: it is to run as it is written (see the module's list)."""
    match (command, *args[:2]):
        case ("npx", *_):
            return _npx(args)
        case ("npm", "exec" | "x", *_):
            return _npm_exec(args[1:])
        case ("uvx", *_):
            return _uvx(args)
        case ("uv", "tool", "run"):
            return _uvx(args[2:])
        case ("pipx", "run", *_):
            return _pipx(args[1:])
        case _:
            return None


def env_changes_install(names: Iterable[str]) -> bool:
    """Whether one of these variables says where packages come from or how they are installed.

    `npm_config_registry`, `UV_INDEX_URL`, `PIP_…`, `NODE_OPTIONS` and `PATH` are meant for the tool as much as for the
    server; with one of them, the command runs as it is written.
    """
    return any(_ENVIRONMENT.fullmatch(name) for name in names)


def _npx(args: tuple[str, ...]) -> PackageCommand | None:
    options = _options(args, {"-p": "package", "--package": "package"}, _NPX_QUIET)
    return None if options is None else _of_npm(options)


def _npm_exec(args: tuple[str, ...]) -> PackageCommand | None:
    """As npx; but without `--`, npm takes options from anywhere in the line, also those meant for the program."""
    options = _options(args, {"--package": "package"}, _NPX_QUIET)
    if options is None or (not options.is_ended and any(word.startswith("-") for word in options.rest)):
        return None
    return _of_npm(options)


def _of_npm(options: _Options) -> PackageCommand | None:
    if not options.rest:
        return None
    first, *args = options.rest
    packages = options.values.get("package")
    program = first if packages else None
    if program is not None and not _PROGRAM.fullmatch(program):
        return None
    requirements = tuple(packages or [first])
    names = [match["name"] for text in requirements if fits(text, NPM) and (match := _NPM.fullmatch(text))]
    if len(names) != len(requirements) or len(set(names)) != len(names) or len(names) > MAX_PACKAGES:
        return None
    return PackageCommand(
        ecosystem="npm", package=names[0], requirements=requirements, program=program, args=tuple(args)
    )


def _uvx(args: tuple[str, ...]) -> PackageCommand | None:
    named = {"--from": "from", "-w": "with", "--with": "with", "-p": "python", "--python": "python"}
    options = _options(args, named, _UVX_QUIET)
    if options is None:
        return None
    extra = [part.strip() for text in options.values.get("with", []) for part in _split(text)]
    return _of_pypi(options, options.one("from"), extra)


def _pipx(args: tuple[str, ...]) -> PackageCommand | None:
    options = _options(args, {"--spec": "spec", "--python": "python"}, _PIPX_QUIET)
    return None if options is None else _of_pypi(options, options.one("spec"), [], allow_at=False)


def _of_pypi(
    options: _Options, source: str | None, extra: list[str], *, allow_at: bool = True
) -> PackageCommand | None:
    if not options.rest:
        return None
    first, *args = options.rest
    requirement = _requirement(source if source is not None else first, allow_at=allow_at)
    others = [_requirement(text, allow_at=False) for text in extra]
    python = options.one("python")
    if requirement is None or None in others or len(others) >= MAX_PACKAGES:
        return None
    name = _name(requirement)
    program = name if source is None else first
    if not _PROGRAM.fullmatch(program) or _INTERPRETER.fullmatch(program):
        return None
    if python is not None and not _PYTHON.fullmatch(python):
        return None
    return PackageCommand(
        ecosystem="pypi",
        package=name,
        requirements=(requirement, *(text for text in others if text is not None)),
        program=program,
        args=tuple(args),
        python=python,
    )


def _requirement(text: str, *, allow_at: bool) -> str | None:
    """As PEP 508 has it; uv's `name@1.2` is `name==1.2`, and `name@latest` is what an environment without one gets."""
    if allow_at and (match := _PYPI_AT.fullmatch(text)):
        version = match["version"]
        pinned = "" if version == "latest" else f"=={version}"
        text = match["name"] + (match["extras"] or "") + pinned
    return text if fits(text, PYPI) else None


def _name(requirement: str) -> str:
    match = _PYPI.match(requirement)
    return match["name"] if match else requirement


def _split(text: str) -> list[str]:
    """uv takes several requirements with commas between; a comma before an operator or in extras is the range's own."""
    return re.split(r",(?![^\[]*\])(?!\s*[=<>!~])", text)


def _options(args: tuple[str, ...], named: dict[str, str], quiet: tuple[str, ...]) -> _Options | None:
    """The options before the first other word; None if there is one that is neither named nor without effect."""
    values: dict[str, list[str]] = {}
    words = list(args)
    while words:
        word = words.pop(0)
        if word == "--":
            return _Options(values, tuple(words), is_ended=True)
        if not word.startswith("-"):
            return _Options(values, (word, *words), is_ended=False)
        option, equals, value = word.partition("=")
        if word in quiet:
            continue
        if option not in named or (not equals and (not words or words[0].startswith("-"))):
            return None
        values.setdefault(named[option], []).append(value if equals else words.pop(0))
    return _Options(values, (), is_ended=False)
