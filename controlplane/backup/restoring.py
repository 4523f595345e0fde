"""Restore a backup into a home that holds nothing, and a database that holds nothing of Corral's: all of it or nothing.

The archive is unpacked beside what it will become and counts once its seal was checked. Only then is anything put in
its place and the database filled, in one transaction. A failure takes away whatever was made; a kill leaves the folder
`.restore`, with which no control plane starts and the next restore begins anew.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import attrs
import trio
from attrs import define, field

from controlplane.backup import postgres
from controlplane.backup.archive import Damaged, Reader, reading
from controlplane.backup.making import DUMP, FORMAT
from controlplane.deploy import trees
from controlplane.embedded import open_services
from controlplane.home import KEY, PREVIOUS_KEY, RESTORING, HomeBusy, HomeUnusable, hold, open_home
from controlplane.secretbox import SecretBox
from controlplane.spawn.client import open_spawner
from controlplane.store import preflight
from controlplane.store.migrate import load_schema

if TYPE_CHECKING:
    from controlplane.config import Config

PLACES = (KEY, PREVIOUS_KEY, "credentials", "uploads", "instances")
"""What is moved from the unpacked archive into the home."""
OURS = frozenset({"lock", "takeover.lock", "lost+found"})
"""What an empty home may hold."""
NO_REDIS = "unix:///nonexistent"
"""A cache is not needed here."""


def restore(config: Config, source: BinaryIO) -> dict[str, Any]:
    """Make a home and a database of a backup. The control plane is not started.

    Returns:
        What the archive says about itself.

    Raises:
        HomeUnusable: the home or the database is not empty, or the backup is not for this Corral.
        Damaged: the archive is.
        postgres.ToolFailed, EmbeddedFailed: the database cannot be filled.
        SecretUnreadable: SECRET_KEY is not the one that the backup was encrypted with.
        OSError: something cannot be written.
    """
    home = config.home
    try:
        with hold(home):
            _refuse_used(config)
            _empty(home)
            scratch = home / RESTORING
            scratch.mkdir(mode=0o700)
    except HomeBusy as busy:
        which = f"process {busy.pid}" if busy.pid is not None else "another process"
        raise HomeUnusable(f"{home} is in use ({which}): restore into another CORRAL_HOME") from None
    try:
        with hold(home):
            with reading(source) as reader:
                _refuse_foreign(config, reader.about)
                Unpacking(scratch, as_root=os.geteuid() == 0).unpack(reader)
            for name in PLACES:
                if (scratch / name).exists():
                    (scratch / name).rename(home / name)
        trio.run(_fill, config, scratch / DUMP, strict_exception_groups=True)
        shutil.rmtree(scratch)
    except BaseException:
        with hold(home):
            _empty(home)
        raise
    return reader.about


def _refuse_used(config: Config) -> None:
    home = config.home
    found = set(os.listdir(home)) - OURS
    if found and RESTORING not in found:
        raise HomeUnusable(f"{home} is not empty (it holds {min(found)}): restore into another CORRAL_HOME")
    if config.database_url is not None and postgres.schema_version(config.database_url) is not None:
        raise HomeUnusable("the database is not empty: restore into a new one (CREATE DATABASE corral)")


def _refuse_foreign(config: Config, about: dict[str, Any]) -> None:
    known = load_schema().version
    if about.get("format") != FORMAT or not isinstance(about.get("schema"), int):
        raise HomeUnusable(
            "the backup has a format that this Corral does not know: use the Corral that made it, or a newer one"
        )
    if about["schema"] > known:
        raise HomeUnusable(
            f"the backup has schema version {about['schema']}, made by Corral {about.get('corral')}, and this one knows "
            f"versions up to {known}: use that Corral, or a newer one"
        )
    if about.get("key") == "environment" and config.secret_key is None:
        raise HomeUnusable(
            "the control plane that was backed up had its SECRET_KEY set, and the backup does not hold it: set it"
        )


def _empty(home: Path) -> None:
    for name in sorted(set(os.listdir(home)) - OURS):
        trees.remove(home / name)


async def _fill(config: Config, dump: Path) -> None:
    """Load the database, and see that its secrets can be read."""
    with open_home(config, restoring=True) as home:
        async with open_spawner(marker=home.owner_id) as spawner:
            async with open_services(attrs.evolve(config, redis_url=NO_REDIS), home, spawner) as services:
                await trio.to_thread.run_sync(postgres.load, services.database_url, dump)
                await preflight.check(services.database_url, SecretBox(home.secret_key, home.previous_keys))


# -- unpacking


@define
class Unpacking:
    """Writes an archive's members below a folder of its own. Links come last, so that none can lead anybody astray."""

    root: Path
    as_root: bool
    """Then files are given to whom they belonged."""
    _links: list[tarfile.TarInfo] = field(factory=list, init=False)
    _folders: list[tarfile.TarInfo] = field(factory=list, init=False)

    def unpack(self, reader: Reader) -> None:
        """All of it.

        Raises:
            Damaged: it holds what no backup holds, or its seal is broken.
        """
        for info, content in reader.members():
            path = self._place(info)
            if info.isdir():
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._folders.append(info)
            elif info.issym():
                self._links.append(info)
            elif info.isreg():
                self._write(path, info, content)
            else:
                raise Damaged(f"it holds {info.name}, which is neither a file nor a folder nor a link")
        for info in self._links:
            if any(above.is_symlink() for above in self._place(info).parents if above.is_relative_to(self.root)):
                raise Damaged(f"it holds {info.name}, which is below a link")
            os.symlink(info.linkname, self._place(info))
            self._give(self._place(info), info)
        for info in reversed(self._folders):
            self._give(self._place(info), info)
            self._place(info).chmod(info.mode & 0o777)

    def _place(self, info: tarfile.TarInfo) -> Path:
        parts = info.name.split("/")
        if info.name in (KEY, PREVIOUS_KEY, "credentials", DUMP) and info.isreg():
            return self.root / info.name
        if parts[0] not in ("uploads", "instances") or len(parts) < 2 or {"", ".", ".."} & set(parts):
            raise Damaged(f"it holds {info.name!r}, which no backup holds")
        if info.issym() and (parts[0] != "instances" or len(parts) < 4):
            raise Damaged(f"it holds a link in the place of {info.name!r}")
        return self.root.joinpath(*parts)

    def _write(self, path: Path, info: tarfile.TarInfo, content: Any) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            shutil.copyfileobj(content, file, 2**20)
            file.flush()
            os.fsync(fd)
        if path.is_relative_to(self.root / "instances"):
            self._give(path, info)
            path.chmod(info.mode & 0o777)

    def _give(self, path: Path, info: tarfile.TarInfo) -> None:
        if self.as_root and path.is_relative_to(self.root / "instances"):
            os.chown(path, info.uid, info.gid, follow_symlinks=False)
