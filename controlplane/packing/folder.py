"""Pack a folder for a deploy: what git would take, as one archive that is the same for the same content.

In a repository that is every tracked file, and every other one that is not ignored; elsewhere what the folder's own
`.gitignore` files leave. Git itself is asked, so that its rules are git's.
"""

from __future__ import annotations

import gzip
import os
import re
import stat
import subprocess
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from attrs import frozen

from controlplane.packing.refusal import Unusable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

UPLOAD_MAX_BYTES = 100 * 2**20
"""What the API takes in one deploy."""
GIT_LIMIT_S = 60
"""To list a very large work tree on a slow disk."""
NEVER_WANTED = frozenset(
    {"node_modules", ".venv", "venv", "__pycache__", ".git", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox"}
)
"""Folders that are made, not written: left out unless git tracks them, also where nobody wrote a `.gitignore`."""
WARY = ("-c", "core.fsmonitor=false")
WARY_ENVIRONMENT = {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none"}
"""A folder may be a stranger's, and its own configuration name programs that git would run, for watching or fetching."""
_SECRET = re.compile(r"\.env(\..+)?|id_(rsa|dsa|ecdsa|ed25519)|.+\.(pem|key|p12|pfx|keystore)|\.npmrc|\.pypirc|\.netrc")
_HARMLESS = re.compile(r"\.env\.(example|sample|template|dist)")


@frozen(kw_only=True)
class Packed:
    """What went into an archive. `secrets` are names that look as if they hold some."""

    files: int
    size_bytes: int
    secrets: tuple[str, ...]


def pack(folder: Path, into: IO[bytes]) -> Packed:
    """Write a folder's files as a gzip-compressed tar.

    Args:
        folder: What to pack.
        into: A binary file; left at its end.

    Raises:
        Unusable: there is no git here, nothing to pack, or more than the API takes.
    """
    names = sorted(_listed(folder))
    if not names:
        raise Unusable(f"{folder}: there is nothing to deploy: every file is ignored, or there is none")
    with (
        gzip.GzipFile(fileobj=into, mode="wb", mtime=0, filename="") as compressed,
        tarfile.open(fileobj=compressed, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        packed = sum(_add(archive, folder, name) for name in names)
    size = into.tell()
    if size > UPLOAD_MAX_BYTES:
        raise Unusable(
            f"{folder}: packed it is {size / 2**20:.0f} MiB; at most {UPLOAD_MAX_BYTES // 2**20} can be sent."
            " Ignore what is not needed (.gitignore), or deploy it from a git repository."
        )
    return Packed(files=packed, size_bytes=size, secrets=tuple(filter(_looks_secret, names)))


def _looks_secret(name: str) -> bool:
    last = PurePosixPath(name).name
    return bool(_SECRET.fullmatch(last)) and not _HARMLESS.fullmatch(last)


def _add(archive: tarfile.TarFile, folder: Path, name: str) -> int:
    """Add one entry with nothing of this machine in it; what is neither a file nor a link is passed over."""
    path = folder / name
    if _leads_away(folder, PurePosixPath(name)):
        return 0
    try:
        status = path.lstat()
    except FileNotFoundError:  # tracked, but deleted from the work tree
        return 0
    entry = tarfile.TarInfo(name)
    if stat.S_ISLNK(status.st_mode):
        entry.type, entry.linkname = tarfile.SYMTYPE, os.fspath(path.readlink())
        archive.addfile(entry)
        return 1
    if not stat.S_ISREG(status.st_mode):  # a submodule's folder, a socket
        return 0
    entry.size = status.st_size
    entry.mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
    with path.open("rb") as file:
        archive.addfile(entry, file)
    return 1


def _leads_away(folder: Path, name: PurePosixPath) -> bool:
    """Whether a name goes through a link, or up: to git such a file is gone, but an index may be made to list it."""
    return name.is_absolute() or ".." in name.parts or any((folder / up).is_symlink() for up in name.parents[:-1])


def _listed(folder: Path) -> Iterator[str]:
    """Names below the folder, with `/`."""
    if _git(folder, "rev-parse", "--is-inside-work-tree") == ["true\n"]:
        tracked = _git(folder, "ls-files", "-z", "--cached")
        yield from tracked or ()
        untracked = _git(folder, "ls-files", "-z", "--others", "--exclude-standard")
    else:
        untracked = _outside_a_repository(folder)
    yield from (name for name in untracked or () if not NEVER_WANTED.intersection(PurePosixPath(name).parts))


def _outside_a_repository(folder: Path) -> list[str] | None:
    """Ask git what it would take if the folder were a repository: an empty one elsewhere lends its name."""
    with tempfile.TemporaryDirectory(prefix="corral-pack-") as scratch:
        subprocess.run(["git", "init", "--quiet", scratch], check=True, timeout=GIT_LIMIT_S, capture_output=True)
        place = [f"--git-dir={scratch}/.git", f"--work-tree={folder.absolute()}"]
        return _git(folder, *place, "ls-files", "-z", "--others", "--exclude-standard")


def _git(folder: Path, *words: str) -> list[str] | None:
    """What a git command says, cut at its NULs; None where it fails.

    Raises:
        Unusable: there is no git.
    """
    argv: Sequence[str] = ["git", *WARY, *words]
    environment = {**os.environ, **WARY_ENVIRONMENT}
    try:
        done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, timeout=GIT_LIMIT_S, check=False)
    except FileNotFoundError:
        raise Unusable("Packing a folder needs git: install it, or deploy an archive (.zip, .tar.gz).") from None
    if done.returncode:
        return None
    return [os.fsdecode(name) for name in done.stdout.split(b"\0") if name]
