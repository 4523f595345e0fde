"""Run a command as an ordinary user who can reach this checkout and its Python, wherever they lie.

Both may be in root's home, which nobody else may enter. In a mount namespace of the command's own, an empty folder
lies over each such home, and only what is needed in it.
"""

from __future__ import annotations

import stat
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

RUN = r"""
set -e
stage=$1 closed=$2 needed=$3 user=$4; shift 4
if [ -n "$closed" ]; then
    mount -t tmpfs -o mode=755 tmpfs "$stage"
    n=0; for path in $needed; do n=$((n+1)); mkdir "$stage/$n"; mount --rbind "$path" "$stage/$n"; done
    for path in $closed; do mount -t tmpfs -o mode=755 tmpfs "$path"; done
    n=0; for path in $needed; do n=$((n+1)); mkdir -p "$path"; mount --rbind "$stage/$n" "$path"; done
fi
exec setpriv --reuid "$user" --regid "$user" --clear-groups "$@"
"""


def launcher(uid: int, stage: Path) -> tuple[str, ...]:
    """What to put before a command; it becomes the command, in the same process. Takes root.

    Args:
        uid: The user, and the group.
        stage: An empty folder that is there for as long as the command.
    """
    needed = {Path(place).resolve() for place in (sys.prefix, sys.base_prefix, ROOT)}
    needed = {path for path in needed if not needed & set(path.parents)}
    closed = {str(folder) for path in needed for folder in _closed_above(path)}
    words = (str(stage), " ".join(closed), " ".join(map(str, needed)), str(uid))
    return ("unshare", "--mount", "sh", "-c", RUN, "sh", *words)


def _closed_above(path: Path) -> list[Path]:
    """The outermost folder on the way to `path` that others may not enter."""
    parents = [path, *path.parents][::-1]
    return [folder for folder in parents if not folder.stat().st_mode & stat.S_IXOTH][:1]
