"""What a Rust source says of itself: its packages and their programs, from `Cargo.toml` and the usual places. Pure."""

from __future__ import annotations

import tomllib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from attrs import frozen

from runtimes.recipe import CannotPlan

if TYPE_CHECKING:
    from runtimes.tree import SourceTree

MANIFEST = "Cargo.toml"
MAX_READ = 200
"""Manifests of one source that are looked into; nearest the root first."""


@frozen(kw_only=True)
class Program:
    """A program that a package builds: its name, the folder of the package, its main file if that is known."""

    name: str
    folder: str
    package: str
    file: str | None = None
    is_default: bool = False
    """The package's `default-run`."""


def programs_of(tree: SourceTree) -> list[Program]:
    """All programs of the source, those of the root's own package first.

    Raises:
        CannotPlan: the root's manifest is no TOML.
    """
    folders = sorted(
        (str(PurePosixPath(name).parent) for name in tree.files if PurePosixPath(name).name == MANIFEST),
        key=lambda folder: (folder != ".", folder.count("/"), folder),
    )
    return [program for folder in folders[:MAX_READ] for program in _of_package(tree, folder)]


def _of_package(tree: SourceTree, folder: str) -> list[Program]:
    data = _manifest(tree, folder)
    package = data.get("package")
    name = package.get("name") if isinstance(package, dict) else None
    if not isinstance(package, dict) or not isinstance(name, str):
        return []
    found = _declared(data, folder)
    if package.get("autobins") is not False:
        declared = set(found.values())
        found |= {key: file for key, file in _by_place(tree, folder, name).items() if file not in declared}
    return [
        Program(name=key, folder=folder, package=name, file=file, is_default=key == package.get("default-run"))
        for key, file in found.items()
    ]


def _declared(data: dict[str, Any], folder: str) -> dict[str, str | None]:
    """The programs of `[[bin]]`."""
    tables = data.get("bin")
    found: dict[str, str | None] = {}
    for table in tables if isinstance(tables, list) else ():
        if isinstance(table, dict) and isinstance(table.get("name"), str):
            path = table.get("path")
            found[table["name"]] = str(PurePosixPath(folder, path)) if isinstance(path, str) else None
    return found


def _by_place(tree: SourceTree, folder: str, package: str) -> dict[str, str | None]:
    """The programs that Cargo finds by itself: `src/main.rs`, `src/bin/x.rs`, `src/bin/x/main.rs`."""
    found: dict[str, str | None] = {}
    main = str(PurePosixPath(folder, "src/main.rs"))
    if main in tree:
        found[package] = main
    place = PurePosixPath(folder, "src/bin")
    for name in sorted(tree.files):
        path = PurePosixPath(name)
        if path.suffix == ".rs" and path.parent == place:
            found[path.stem] = name
        elif path.name == "main.rs" and path.parent.parent == place:
            found[path.parent.name] = name
    return found


def _manifest(tree: SourceTree, folder: str) -> dict[str, Any]:
    path = str(PurePosixPath(folder, MANIFEST))
    try:
        return tomllib.loads(tree.text(path) or "")
    except tomllib.TOMLDecodeError as error:
        if folder != ".":
            return {}  # a file of a test, perhaps
        raise CannotPlan(f"{MANIFEST} cannot be read: {error}") from None
