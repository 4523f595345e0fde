"""Files that a person saves from a view: their own to read, never over one that is there."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

from platformdirs import user_downloads_path

TRIES = 100
"""Names that are tried before one is found that is free."""
NAME_MAX = 80
"""Characters of what a file is named after."""


def folder() -> Path:
    """Where files go: the folder that the dashboard was started in, or the downloads where nobody may write to it."""
    here = Path.cwd()
    return here if os.access(here, os.W_OK) else user_downloads_path()


def save(about: str, suffix: str, lines: Iterable[str], now: float) -> Path:
    """Write lines to a new file that only its owner reads, and return its path. Blocks: call it in a thread.

    Args:
        about: What it is of, for its name.
        suffix: Of its name, with the dot.
        lines: Without line ends.
        now: For its name, in seconds since the epoch.

    Raises:
        OSError: no room, no right, no folder.
    """
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", about).strip("-.")[:NAME_MAX] or "corral"
    stem += time.strftime("-%Y%m%d-%H%M%S", time.localtime(now))
    path, descriptor = _open_new(folder(), stem, suffix)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:  # what is opened by name again may be another file
        file.writelines(f"{line}\n" for line in lines)
    return path


def _open_new(where: Path, stem: str, suffix: str) -> tuple[Path, int]:
    for number in range(1, TRIES + 1):
        path = where / (f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}")
        try:
            return path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            continue
    raise FileExistsError(f"{TRIES} files named {stem}{suffix} are in {where}")
