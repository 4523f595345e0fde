"""Packages from npm that tests run, as their lock files have them: installed once, into the user's cache folder."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

INSTALL_LIMIT_S = 300
"""For 60 MB from a registry; measured 8 s."""


@cache
def installed(manifest: Path, name: str) -> Path:
    """The folder with the packages of a manifest, which stays in the cache for the next run.

    Args:
        manifest: A folder with `package.json` and `package-lock.json`.
        name: What the folder's name begins with; the lock file's digest makes it complete.

    Raises:
        subprocess.CalledProcessError: npm could not install it; what it said is printed.
    """
    digest = hashlib.sha256((manifest / "package-lock.json").read_bytes()).hexdigest()[:16]
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache_home / "corral-tests" / f"{name}-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _install(manifest, folder)
    return folder


def _install(manifest: Path, folder: Path) -> None:
    """Install beside the place and rename, so that a killed run leaves nothing half there."""
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as temporary:
        new = Path(temporary) / "packages"
        shutil.copytree(manifest, new)
        done = subprocess.run(
            ["npm", "ci"], cwd=new, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, check=False
        )
        print(done.stdout, done.stderr)
        done.check_returncode()
        new.rename(folder)
