"""Whether instances can run a file, and whether it is a program or somebody's shim."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

TMP = Path("/tmp")  # noqa: S108
"""Out of sight for instances and builds, which have one of their own."""
LINE_MAX_BYTES = 256
"""Of a script's first line; the kernel itself reads no further."""


def is_reachable(path: Path, *, by_others: bool) -> bool:
    """Whether instances can run this file: any user when they run as others, else just Corral's own."""
    if not os.access(path, os.X_OK):  # most places have most tools not: one question for those
        return False
    try:
        real = path.resolve(strict=True)
        if real.is_relative_to(TMP):
            return False
        if not by_others:
            return True
        folders = all(folder.stat().st_mode & stat.S_IXOTH for folder in real.parents)
        return folders and bool(real.stat().st_mode & stat.S_IXOTH)
    except (OSError, RuntimeError):
        return False


def is_open(folder: Path, *, by_others: bool) -> bool:
    """A folder that instances may look into; Corral's own environment stays out of their PATH."""
    if folder.is_relative_to(sys.prefix) and sys.prefix != sys.base_prefix:
        return False
    return is_reachable(folder, by_others=by_others) and folder.is_dir()


def is_script(path: Path) -> bool:
    """Whether the file needs an interpreter. So do shims (pyenv, asdf, rbenv), which need their owner's home as well."""
    return first_line(path).startswith(b"#!")


def first_line(path: Path) -> bytes:
    """The file's first line; of one that cannot be read, that of a script."""
    try:
        with path.open("rb") as file:
            return file.readline(LINE_MAX_BYTES)
    except OSError:
        return b"#!"


def program_at(path: Path) -> Path | None:
    """The file that really runs when `path` does; None where there is none that even we could run."""
    if not os.access(path, os.X_OK):
        return None
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return None
    return real if real.is_file() else None
