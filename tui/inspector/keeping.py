"""The inspector's history on disk: one JSON file that only its owner may read.

`${XDG_STATE_HOME:-~/.local/state}/corral/inspector.json`. A file that cannot be read or written costs the history,
never the call.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from tui.inspector.history import Entry, Histories, document_of, read

MAX_FILE_BYTES = 32 * 1024 * 1024
"""A longer file is not ours."""


def place(environ: Mapping[str, str]) -> Path:
    """Where the file is."""
    state = environ.get("XDG_STATE_HOME", "")
    root = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
    return root / "corral" / "inspector.json"


def load(path: Path) -> dict[str, list[Entry]]:
    """What is kept there; nothing when there is no such file, or none that can be read."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return {}
        return read(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return {}


def save(path: Path, histories: Histories) -> str:
    """Write it as a whole; returns why that was not possible, or nothing."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(document_of(histories), file)
        new.replace(path)
    except (OSError, ValueError, RecursionError) as error:
        return str(error)
    return ""
