"""Python sources: projects, folders with requirements, single files.

What is installed, by the first of these that there is:

1. the entry point's own header (PEP 723);
2. `uv.lock` with `pyproject.toml`: exactly what it has, and the project;
3. a `pyproject.toml` that is a project: the project if it has a build system, else its dependencies; `requirements.txt`
   as well if the project names no dependencies;
4. `pylock.toml`, else `requirements.txt`;
5. `setup.py` or `setup.cfg`: the project.

The request's `dependencies` come on top. Nothing to install means no environment: the file runs on the host's Python.

What runs, by the first of these that there is:

1. the request's `entry_point`: a file, one of the project's scripts, or a module of the source (`pkg.server`);
2. the project's script, if it has one, or one is called like the project, or one alone has `mcp` in its name;
3. `server.py`, `main.py`, `app.py`, `__main__.py` of the root;
4. the root's only Python file;
5. the same names in `src`, then in the only package of the root or of `src`, `__main__.py` first.

A file that imports from its own package runs as a module of it, as `python -m` does; any other as a file.
A `build_command` runs once all is installed, with the environment's programs first in PATH.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from attrs import frozen

from runtimes import entry, requirements, shell, uv
from runtimes.pyproject import Project, folded, header_of, project_of
from runtimes.recipe import CannotPlan, Env, Place, Recipe, Step, Wish, Word

if TYPE_CHECKING:
    from runtimes.tree import SourceTree

NAMES: tuple[str, ...] = ("python", "python3", "py")
SUFFIXES: tuple[str, ...] = (".py", ".pyw")
TOOLS: tuple[str, ...] = uv.NEEDS
FILE_NAME = "server.py"

MAIN_FILES = ("server.py", "main.py", "app.py", "__main__.py")
_IN_PACKAGE = ("__main__.py", "server.py", "main.py", "app.py")
_NOT_SERVERS = re.compile(r"(?:setup|conftest|noxfile|tasks|fabfile|__init__|test_.*|.*_test)\.py")
_MODULE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
_UNREAD = {
    "poetry.lock": "poetry.lock is not read: versions are resolved anew from pyproject.toml",
    "pdm.lock": "pdm.lock is not read: versions are resolved anew from pyproject.toml",
    "Pipfile": "Pipfile is not read: name what the server needs in requirements.txt",
    ".python-version": ".python-version is passed over: requires-python says which Pythons will do",
    "environment.yml": "environment.yml is not read: name what the server needs in requirements.txt",
}
_ENV: Env = (("PYTHONUNBUFFERED", "1"), ("PYTHONDONTWRITEBYTECODE", "1"))
"""A block-buffered server would keep its answers to itself; bytecode would change what is shared."""
_NO_HISTORY: Env = (
    ("SETUPTOOLS_SCM_PRETEND_VERSION", "0.0.0"),
    ("PDM_BUILD_SCM_VERSION", "0.0.0"),
    ("UV_DYNAMIC_VERSIONING_BYPASS", "0.0.0"),
    ("POETRY_DYNAMIC_VERSIONING_BYPASS", "0.0.0"),
)
"""A source comes without its Git history; projects that take their version from it would not build."""


@frozen(kw_only=True)
class Entry:
    """What runs: the words after the interpreter, how it is called, and its file if it is one of the source."""

    words: tuple[Word, ...]
    shown: str
    file: str | None = None
    import_from: str | None = None
    """A folder to import from that Python would not look into by itself."""


@frozen(kw_only=True)
class Install:
    """What to install, with which Python (None: any), and what was passed over."""

    steps: tuple[Step, ...] = ()
    versions: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def has_environment(self) -> bool:
        """Whether it takes one: to install into, or to have another Python than Corral's own."""
        return bool(self.steps) or self.versions is not None


def guess(tree: SourceTree) -> str | None:
    """By the manifests that only Python has."""
    name = tree.first("uv.lock", "requirements.txt", "setup.py", "setup.cfg", "pylock.toml", "Pipfile")
    if name is None and "pyproject.toml" in tree and project_of(tree).is_project:
        name = "pyproject.toml"
    return f"there is a {name}" if name else None


def plan(tree: SourceTree, wish: Wish) -> Recipe:
    """Plan a Python source.

    Raises:
        CannotPlan: there is nothing to run, or a wish cannot be met.
    """
    wanted = requirements.checked(wish.dependencies, requirements.PYPI)
    project = project_of(tree)
    runs = _entry(tree, wish.entry_point, project)
    install = _install(tree, project, runs.file, wanted)
    venv = install.has_environment
    steps = (uv.make_environment(install.versions), *install.steps) if venv else ()
    if wish.build_command is not None:
        steps = (*steps, shell.own_build(wish.build_command, f"{uv.VENV}/bin" if venv else None))
    paths: Env = (("PYTHONPATH", Place("tree", runs.import_from)),) if runs.import_from else ()
    return Recipe(
        language="python",
        entry_point=runs.shown,
        steps=steps,
        argv=(uv.PYTHON if venv else "python", *runs.words),
        env=(*_ENV, *paths),
        path=(uv.SCRIPTS,) if venv else (),
        needs=uv.NEEDS if venv else ("python",),
        installed=(uv.VENV,) if venv else (),
        notes=install.notes,
    )


def _install(tree: SourceTree, project: Project, file: str | None, wanted: tuple[str, ...]) -> Install:
    """Which steps install what; see the module's list."""
    notes = tuple(note for name, note in _UNREAD.items() if name in tree)
    header = header_of(tree.text(file)) if file else None
    if header is not None and file:
        # uv reads the header's dependencies from the file, sources and all.
        words: tuple[Word, ...] = ("-r", Place("tree", file)) if header.has_dependencies else ()
        return Install(steps=_installs(words, wanted), versions=header.requires_python, notes=notes)
    if "uv.lock" in tree and project.is_project:
        steps = (uv.sync(_history(tree)), *_installs((), wanted))
        return Install(steps=steps, versions=project.requires_python, notes=notes)
    steps = _installs(_manifests(tree, project), wanted, _history(tree))
    return Install(steps=steps, versions=project.requires_python, notes=notes)


def _installs(words: tuple[Word, ...], wanted: tuple[str, ...], env: Env = ()) -> tuple[Step, ...]:
    """All in one step, so that all is resolved together; none if there is nothing to install."""
    if not words and not wanted:
        return ()
    return (uv.install(*words, *(("--", *wanted) if wanted else ()), env=env),)


def _manifests(tree: SourceTree, project: Project) -> tuple[Word, ...]:
    """What says what to install, as words for uv."""
    listed = ("-r", "requirements.txt") if _lists_any(tree.text("requirements.txt")) else ()
    if project.is_project:
        listed = () if project.has_dependencies else listed
        if project.is_installed:
            return (*listed, ".")
        return ("-r", "pyproject.toml") if project.has_dependencies else listed
    if "pylock.toml" in tree:
        return ("-r", "pylock.toml")
    if listed:
        return listed
    return (".",) if tree.first("setup.py", "setup.cfg") else ()


def _lists_any(text: str | None) -> bool:
    """Whether a requirements file has anything but comments."""
    return any(line.strip() and not line.lstrip().startswith("#") for line in (text or "").splitlines())


def _history(tree: SourceTree) -> Env:
    return () if any(name.startswith(".git/") for name in tree.files) else _NO_HISTORY


def _entry(tree: SourceTree, named: str | None, project: Project) -> Entry:
    """What runs; see the module's list."""
    if named is not None:
        return _named(tree, named, project)
    if (script := _main_script(project)) is not None:
        return _script(script)
    found = tree.first(*MAIN_FILES) or _only_file(tree) or tree.first(*(f"src/{name}" for name in MAIN_FILES))
    found = found or _in_only_package(tree)
    if found is None:
        raise _nothing_to_run(tree, project)
    return _file(tree, found)


def _named(tree: SourceTree, named: str, project: Project) -> Entry:
    path = entry.path_of(named)
    if path in tree:
        return _file(tree, path)
    if project.is_installed and path in project.scripts:
        return _script(path)
    if f"{path}/__main__.py" in tree:
        return _file(tree, f"{path}/__main__.py")
    if _MODULE.fullmatch(path):
        below = path.replace(".", "/")
        if file := tree.first(*(f"{root}{below}{end}" for root in ("", "src/") for end in (".py", "/__main__.py"))):
            return _module(file, path)
    scripts = project.scripts if project.is_installed else ()
    raise entry.missing(path, tree, also=scripts)


def _main_script(project: Project) -> str | None:
    if not project.is_installed:
        return None
    scripts = project.scripts
    like_project = [name for name in scripts if folded(name) == project.name]
    of_mcp = [name for name in scripts if "mcp" in name.lower()]
    return next((names[0] for names in (scripts, like_project, of_mcp) if len(names) == 1), None)


def _script(name: str) -> Entry:
    return Entry(words=(Place("tree", f"{uv.VENV}/bin/{name}"),), shown=name)


def _file(tree: SourceTree, file: str) -> Entry:
    """Run it as a file, or as a module if it imports from its own package: as a file, it would not find that."""
    path = PurePosixPath(file)
    inside = f"{path.parent}/__init__.py" in tree or path.name == "__main__.py"
    if str(path.parent) not in (".", "src") and inside and _imports_own_package(tree.text(file) or "", path):
        parts = path.parts[1:] if path.parts[0] == "src" else path.parts
        names = parts[:-1] if path.name == "__main__.py" else (*parts[:-1], path.stem)
        if _MODULE.fullmatch(module := ".".join(names)):
            return _module(file, module)
    return Entry(words=(file,), shown=file, file=file)


def _module(file: str, name: str) -> Entry:
    import_from = "src" if file.startswith("src/") else None
    return Entry(words=("-m", name), shown=file, file=file, import_from=import_from)


def _imports_own_package(text: str, path: PurePosixPath) -> bool:
    own = next(part for part in path.parts if part != "src")
    return re.search(rf"^\s*(?:from\s+\.|(?:from|import)\s+{re.escape(own)}\b)", text, re.MULTILINE) is not None


def _only_file(tree: SourceTree) -> str | None:
    found = [name for name in tree.at_root("*.py") if not _NOT_SERVERS.fullmatch(name)]
    return found[0] if len(found) == 1 else None


def _in_only_package(tree: SourceTree) -> str | None:
    for root in ("src/", ""):
        packages = {name.removeprefix(root).split("/")[0] for name in tree.files if _is_package(name, root)}
        if len(packages) == 1:
            folder = root + packages.pop()
            return tree.first(*(f"{folder}/{name}" for name in _IN_PACKAGE))
    return None


def _is_package(name: str, root: str) -> bool:
    below = name.removeprefix(root).split("/") if name.startswith(root) else []
    return len(below) == 2 and below[1] in ("__init__.py", "__main__.py") and below[0] not in ("tests", "test", "docs")


def _nothing_to_run(tree: SourceTree, project: Project) -> CannotPlan:
    if project.is_installed and len(project.scripts) > 1:
        names = ", ".join(project.scripts[: entry.MAX_NAMED])
        return entry.refusal(
            "the project has several scripts, and none of them is called like it", hint=f"one of: {names}"
        )
    there = ", ".join(entry.nearest(FILE_NAME, tree)) or "no file at all"
    looked = "a script of [project.scripts], server.py, main.py, app.py, __main__.py, an only .py file, an only package"
    return entry.refusal(
        f"nothing says which file to run; there is: {there}", hint=f"name an entry_point; looked for: {looked}"
    )
