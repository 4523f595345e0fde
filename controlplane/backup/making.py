"""Make a backup, beside a control plane that runs: the database as of one moment, and at least the files it names.

The uploads are held by a second name (a hard link) before the database is copied and again after it, so that none can
go in between; the keys are read before and after as well, as they may be replaced meanwhile.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from attrs import define, field, frozen

from controlplane.backup import postgres
from controlplane.backup.archive import ABOUT, writing
from controlplane.deploy import trees
from controlplane.embedded import running_database
from controlplane.home import KEY, PREVIOUS_KEY, HomeUnusable

if TYPE_CHECKING:
    from controlplane.backup.archive import Writer
    from controlplane.config import Config

FORMAT = 1
"""Of the archive; a reader refuses later ones."""
SCRATCH = ".backup"
DUMP = "database.dump"
KEPT = ("home", "work")
"""Of an instance's folder: what its server keeps. The rest is made anew."""
HOLES_MAX_BYTES = 16 * 2**30
"""Of an instance's files together, beyond what they take on the disk, which its quota bounds. A file can be made to look
like 16 TiB for nothing; it would take a backup hours, and a restore the disk."""
BLOCK_BYTES = 512
"""Unit of `st_blocks` (POSIX stat)."""
CACHES = frozenset({".npm", ".cache"})
"""In `home`: what package managers fetched, and fetch again."""


@frozen
class Made:
    """What a backup holds."""

    schema: int
    uploads: int
    instances: int
    has_key: bool
    """Whether the key that reads the secrets is in it; else it is the operator's SECRET_KEY."""
    left_out: int = 0
    """Files of instances that are too hollow: see `HOLES_MAX_BYTES`."""


def make(config: Config, target: BinaryIO, *, with_data: bool) -> Made:
    """Write a backup to a stream.

    Args:
        config: Of the control plane, which must run where its Postgres is its own.
        target: Gets the archive.
        with_data: What instances keep as well.

    Raises:
        HomeUnusable: there is nothing to back up, or it is another user's.
        postgres.ToolFailed: the database cannot be copied.
        OSError: something cannot be read or written.
    """
    _refuse(config)
    url = config.database_url or running_database(config.home)
    if url is None:
        raise HomeUnusable(
            f"no Postgres of its own runs for {config.home}: start the control plane (corral up), or name the database "
            "that it uses (DATABASE_URL, --database-url)"
        )
    schema = postgres.schema_version(url)
    if schema is None:
        raise HomeUnusable("the database holds nothing of Corral's: check DATABASE_URL")
    with _scratch(config.home) as scratch, writing(target) as archive:
        before = _keys(config)
        _hold_uploads(config.home / "uploads", scratch / "uploads")
        postgres.dump(url, scratch / DUMP)
        _hold_uploads(config.home / "uploads", scratch / "uploads")
        keys = merged(before, _keys(config))
        archive.text(ABOUT, json.dumps(_about(schema, has_key=bool(keys), with_data=with_data)).encode())
        for name, key in zip((KEY, PREVIOUS_KEY), keys, strict=False):
            archive.text(name, f"{key}\n".encode())
        with suppress(FileNotFoundError):
            archive.text("credentials", (config.home / "credentials").read_bytes())
        _add_file(archive, DUMP, scratch / DUMP)
        uploads = _add_uploads(archive, scratch / "uploads")
        instances, left_out = _add_instances(archive, config.home / "instances") if with_data else (0, 0)
        archive.seal()
    return Made(schema, uploads, instances, bool(keys), left_out)


def _refuse(config: Config) -> None:
    try:
        owner = (config.home / "owner-id").stat().st_uid
    except OSError:
        raise HomeUnusable(f"there is no control plane's data in {config.home}: check CORRAL_HOME") from None
    if owner != os.geteuid():
        raise HomeUnusable(f"{config.home} belongs to user {owner}: run this as that user")


def _about(schema: int, *, has_key: bool, with_data: bool) -> dict[str, object]:
    return {
        "format": FORMAT,
        "corral": version("corral"),
        "schema": schema,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "key": "file" if has_key else "environment",
        "data": with_data,
    }


@contextmanager
def _scratch(home: Path) -> Iterator[Path]:
    """A folder in the home, for one backup at a time; what a broken off one left goes first."""
    folder = home / SCRATCH
    folder.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HomeUnusable(f"another backup of {home} is being made: wait for it") from None
        for name in os.listdir(fd):
            trees.remove_at(fd, name)
        yield folder
    finally:
        for name in os.listdir(fd):
            trees.remove_at(fd, name)
        os.close(fd)


# -- keys


def _keys(config: Config) -> tuple[str, ...]:
    """In the home's files, the one in force first; none where SECRET_KEY is set."""
    if config.secret_key is not None:
        return ()
    found = []
    for name in (KEY, PREVIOUS_KEY):
        with suppress(FileNotFoundError):
            found.append((config.home / name).read_text().strip())
    return tuple(key for key in found if key)


def merged(before: tuple[str, ...], after: tuple[str, ...]) -> tuple[str, ...]:
    """The keys for a database that was copied between two looks at them: the one in force, and one before it.

    Raises:
        HomeUnusable: they were replaced more than once.
    """
    keys = tuple(dict.fromkeys((*after, *before)))
    if len(keys) > 2:
        raise HomeUnusable("the key was replaced while the backup was made: make it again")
    return keys


# -- files


def _hold_uploads(uploads: Path, held: Path) -> None:
    held.mkdir(exist_ok=True)
    for folder, _folders, names in os.walk(uploads):
        below = held / Path(folder).relative_to(uploads)
        below.mkdir(exist_ok=True)
        for name in names:
            if not name.startswith("."):  # still arriving
                with suppress(FileExistsError, FileNotFoundError):
                    os.link(Path(folder, name), below / name, follow_symlinks=False)


def _add_uploads(archive: Writer, held: Path) -> int:
    count = 0
    for scope in sorted(held.iterdir()):
        archive.folder(f"uploads/{scope.name}", scope.stat())
        for upload in sorted(scope.iterdir()):
            _add_file(archive, f"uploads/{scope.name}/{upload.name}", upload)
            count += 1
    return count


def _add_file(archive: Writer, name: str, path: Path) -> None:
    with _opened(path) as file:
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode):
            archive.file(name, file, status)


def _opened(path: Path | str, at: int | None = None) -> BinaryIO:
    """Without waiting, should it be a pipe by now."""
    return open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at), "rb")


def _add_instances(archive: Writer, instances: Path) -> tuple[int, int]:
    """What their servers keep: of how many, and how many files are left out as being too hollow."""
    found = sorted(path for path in instances.iterdir() if path.is_dir() and not path.is_symlink())
    left_out = 0
    for instance in found:
        archive.folder(f"instances/{instance.name}", instance.stat())
        kept = Keeping(archive)
        for part in KEPT:
            with suppress(FileNotFoundError, NotADirectoryError):
                kept.tree(f"instances/{instance.name}/{part}", instance / part)
        left_out += kept.left_out
    return len(found), left_out


@define
class Keeping:
    """Adds what one server keeps. It may run, and change it: no link is followed, and what vanishes is left out."""

    _archive: Writer
    _holes_left: int = field(default=HOLES_MAX_BYTES, init=False)
    left_out: int = field(default=0, init=False)

    def tree(self, name: str, root: Path) -> None:
        """A folder with everything below, each path once: a restore refuses what is two things."""
        top = os.fspath(root)
        for folder, folders, files, fd in os.fwalk(top, follow_symlinks=False):
            here = name + folder.removeprefix(top)
            self._archive.folder(here, os.fstat(fd))
            if folder == top and root.name == "home":
                folders[:] = [inside for inside in folders if inside not in CACHES]
            for entry in sorted((*folders, *files)):
                with suppress(OSError):  # gone, or being replaced: a server that runs does as it likes
                    if self._entry(f"{here}/{entry}", entry, fd) and entry in folders:
                        folders.remove(entry)  # it was a link, and may be a folder by the time it is gone into

    def _entry(self, name: str, entry: str, at: int) -> bool:
        """Whether it is a link or a file."""
        status = os.lstat(entry, dir_fd=at)
        if stat.S_ISLNK(status.st_mode):
            self._archive.link(name, os.readlink(entry, dir_fd=at), status)
        elif stat.S_ISREG(status.st_mode):
            with _opened(entry, at) as file:
                self._file(name, file, os.fstat(file.fileno()))
        return stat.S_ISLNK(status.st_mode) or stat.S_ISREG(status.st_mode)

    def _file(self, name: str, file: BinaryIO, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            return
        holes = max(0, status.st_size - status.st_blocks * BLOCK_BYTES)
        if holes > self._holes_left:
            self.left_out += 1
            return
        self._holes_left -= holes
        self._archive.file(name, file, status)
