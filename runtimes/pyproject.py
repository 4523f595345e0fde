"""What a Python source says of itself: `pyproject.toml`, and the header of a single file (PEP 723). Pure."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from runtimes.recipe import CannotPlan

if TYPE_CHECKING:
    from runtimes.tree import SourceTree

_HEADER = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(?:^#(?:| .*)$\s)+)^# ///$")
"""The reference expression of PEP 723."""
_VERSIONS = re.compile(
    r"(?:(?:===?|~=|!=|<=?|>=?)\s*)?3(?:\.[0-9*]+)*(?:\s*,\s*(?:===?|~=|!=|<=?|>=?)\s*[34](?:\.[0-9*]+)*)*"
)


@frozen(kw_only=True)
class Project:
    """A `pyproject.toml`, as far as running it goes.

    Args:
        name: Folded as scripts are named: lower case, `-`; empty if it has none.
        scripts: Names of `[project.scripts]`.
        is_project: It describes a project, not just tools.
        is_installed: uv and pip would install the project itself, and so its scripts.
        has_dependencies: It names some, or leaves it to its build backend to say.
        requires_python: A range, None for any.
        backend: The build backend.
    """

    name: str = ""
    scripts: tuple[str, ...] = ()
    is_project: bool = False
    is_installed: bool = False
    has_dependencies: bool = False
    requires_python: str | None = None
    backend: str = ""


@frozen(kw_only=True)
class Script:
    """The header of a single file."""

    has_dependencies: bool = False
    requires_python: str | None = None


def folded(name: str) -> str:
    """A name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def project_of(tree: SourceTree) -> Project:
    """Read the tree's `pyproject.toml`; an empty `Project` if there is none.

    Raises:
        CannotPlan: it is no TOML.
    """
    text = tree.text("pyproject.toml")
    if text is None:
        return Project()
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CannotPlan(f"pyproject.toml cannot be read: {error}") from None
    project, tool = _table(data, "project"), _table(data, "tool")
    poetry, system = _table(tool, "poetry"), _table(data, "build-system")
    dynamic = project.get("dynamic", [])
    scripts = {**_table(project, "scripts"), **_table(poetry, "scripts")}
    package = _table(tool, "uv").get("package")
    return Project(
        name=folded(str(project.get("name") or poetry.get("name") or "")),
        scripts=tuple(scripts),
        is_project=bool(project or poetry or system),
        is_installed=bool(system) if package is None else bool(package),
        has_dependencies=bool(project.get("dependencies") or poetry.get("dependencies") or "dependencies" in dynamic),
        requires_python=versions(project.get("requires-python")),
        backend=str(system.get("build-backend", "")),
    )


def header_of(text: str | None) -> Script | None:
    """The header of a single file; None if it has none.

    Raises:
        CannotPlan: it has one that is no TOML, or two.
    """
    blocks = [match for match in _HEADER.finditer(text or "") if match["type"] == "script"]
    if not blocks:
        return None
    if len(blocks) > 1:
        raise CannotPlan("the file has two script headers (PEP 723)", field="entry_point")
    lines = blocks[0]["content"].splitlines()
    try:
        data = tomllib.loads("\n".join(line.removeprefix("#").removeprefix(" ") for line in lines))
    except tomllib.TOMLDecodeError as error:
        raise CannotPlan(f"the file's script header (PEP 723) cannot be read: {error}", field="entry_point") from None
    return Script(
        has_dependencies=bool(data.get("dependencies")),
        requires_python=versions(data.get("requires-python")),
    )


def versions(text: object) -> str | None:
    """A range of Python versions as uv takes it; None if it says nothing that uv would understand."""
    return text.strip() if isinstance(text, str) and _VERSIONS.fullmatch(text.strip()) else None


def _table(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A part of the file; what is no table has nothing to say."""
    value = data.get(key)
    return value if isinstance(value, dict) else {}
