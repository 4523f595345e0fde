"""The store's folders on the disk. Everything here blocks.

    shared/installs/<digest>/            one install: tree/, manifest.json, facts.json, perhaps lock; used (its time)
    owners/<scope>/installs/<digest>/    the same, for one owner
    owners/<scope>/cache/                the owner's downloads: only for building, and nothing here is trusted
    staging/<random>/                    being built or removed; swept at a start

Where Corral is root, others may enter, not list, what leads to a build's place and
to a cache; the installs are closed to them.

An install appears by one rename, whole, and is gone by one. So it takes no lock
file and no database to survive a crash. What a power cut takes from it, the full
check at the first use finds.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen

from controlplane.deploy import trees
from controlplane.deploy.installs.checking import FACTS, LOCK, MANIFEST, TREE, USED
from controlplane.deploy.installs.files import sync, sync_all, write_new
from controlplane.deploy.installs.keys import SHARED, InstallKey
from controlplane.errors import BuildFailed

if TYPE_CHECKING:
    from controlplane.deploy.installs.sealing import Sealed

log = logging.getLogger("corral.deploy")

ENTER_ONLY = 0o711
PRIVATE = 0o700
MAX_FACTS_BYTES = 2**16
"""What is said about an install; it is read for every listing."""
MAX_LOCK_BYTES = 2**24
"""The lock file of a large npm project has one to two MiB."""


@frozen(kw_only=True)
class Install:
    """An install that was whole when it was got. It stays for as long as somebody holds it."""

    key: InstallKey
    folder: Path
    facts: Mapping[str, str]
    build: str = field(repr=False)
    """Tells it from any other build of the key."""
    created_at: datetime
    files: int
    size_bytes: int
    """On the disk."""

    @property
    def tree(self) -> Path:
        return self.folder / TREE

    @property
    def last_used_at(self) -> datetime:
        with suppress(OSError):
            return datetime.fromtimestamp((self.folder / USED).stat().st_mtime, UTC)
        return self.created_at

    def read_lock(self) -> str | None:
        """The lock that it was built by; None if it has none. Blocking.

        Raises:
            OSError: it cannot be read.
        """
        try:
            return (self.folder / LOCK).read_bytes().decode("utf-8", "surrogateescape")
        except FileNotFoundError:
            return None


@frozen
class Disk:
    """`root` is CORRAL_HOME/store."""

    root: Path

    def open(self) -> None:
        """Make the folders and remove what was being built or removed when an earlier life ended.

        Raises:
            OSError: the store cannot be used.
        """
        passage = ENTER_ONLY if os.geteuid() == 0 else PRIVATE
        for folder, mode in (
            (self.root, passage),
            (self._staging, passage),
            (self.root / "owners", passage),
            (self.root / SHARED, PRIVATE),
        ):
            folder.mkdir(mode=mode, exist_ok=True)
            folder.chmod(mode)
        for left in self._staging.iterdir():
            _remove(left)
        for scope in self.owners():  # of a build that was cut short
            self.close_cache(scope)

    def folder_of(self, key: InstallKey) -> Path:
        return self._scope(key.scope) / "installs" / key.digest

    def all_keys(self) -> list[InstallKey]:
        """Of all installs, sorted."""
        scopes = [SHARED, *self.owners()]
        return sorted(
            InstallKey(scope, name)
            for scope in scopes
            for name in _names(self._scope(scope) / "installs")
            if InstallKey.is_one(scope, name)
        )

    def owners(self) -> list[str]:
        """The scopes of all owners that have something here."""
        return _names(self.root / "owners")

    def cache_of(self, scope: str) -> Path:
        return self.root / "owners" / scope / "cache"

    def open_cache(self, scope: str) -> Path:
        """Let a build's user get to an owner's cache."""
        self._make_scope(scope)
        cache = self.cache_of(scope)
        cache.mkdir(mode=PRIVATE, exist_ok=True)
        if os.geteuid() == 0:
            self._scope(scope).chmod(ENTER_ONLY)
        return cache

    def close_cache(self, scope: str) -> None:
        """Nobody's way leads there any more: it still belongs to the last build's user, whose id may be given away."""
        with suppress(FileNotFoundError):
            self._scope(scope).chmod(PRIVATE)

    def new_place(self) -> Path:
        """An empty folder to build in."""
        if not self._staging.exists():  # somebody has removed the whole store
            self.open()
        place = self._unused()
        place.mkdir(mode=PRIVATE)
        return place

    def keep(self, key: InstallKey, place: Path, sealed: Sealed, facts: Mapping[str, str]) -> None:
        """Make an install of the tree in `place`, all at once.

        Raises:
            BuildFailed: there are more facts than are kept.
            OSError: the disk is full or fails.
        """
        whole = place / "whole"
        trees.remove(whole)
        whole.mkdir(mode=PRIVATE)
        (place / TREE).rename(whole / TREE)
        papers = _papers(key, sealed, facts)
        for name, content in papers.items():
            write_new(whole / name, content)
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in papers.items()}
        write_new(whole / MANIFEST, evolve(sealed.manifest, papers=digests).to_json())
        write_new(whole / USED, b"")
        sync_all(whole)
        folder = self.folder_of(key)
        self._make_scope(key.scope)
        folder.parent.mkdir(mode=PRIVATE, exist_ok=True)
        self.discard(folder)
        whole.rename(folder)
        sync(folder.parent)

    def load(self, key: InstallKey) -> Install:
        """What is said about an install. It is taken for true.

        Raises:
            OSError, ValueError: it cannot be read.
        """
        folder = self.folder_of(key)
        document = json.loads((folder / FACTS).read_bytes())
        return Install(
            key=key,
            folder=folder,
            facts=document["facts"],
            build=document["build"],
            created_at=datetime.fromisoformat(document["created_at"]),
            files=document["files"],
            size_bytes=document["size_bytes"],
        )

    def touch(self, key: InstallKey) -> None:
        """Note that it is used now."""
        with suppress(OSError):  # at worst it is collected sooner
            os.utime(self.folder_of(key) / USED)

    def discard(self, folder: Path) -> None:
        """Remove a folder of the store: its name is free at once, whatever comes between.

        Raises:
            OSError: it cannot be moved away.
        """
        away = self._unused()
        try:
            folder.rename(away)
        except FileNotFoundError:
            return
        _remove(away)

    def drop_scope(self, scope: str) -> None:
        """Remove an owner's empty folders.

        Raises:
            OSError: they are not empty.
        """
        folder = self._scope(scope)
        with suppress(FileNotFoundError):
            (folder / "installs").rmdir()
        folder.rmdir()

    def _make_scope(self, scope: str) -> None:
        self._scope(scope).mkdir(mode=PRIVATE, exist_ok=True)

    def _scope(self, scope: str) -> Path:
        return self.root / SHARED if scope == SHARED else self.root / "owners" / scope

    @property
    def _staging(self) -> Path:
        return self.root / "staging"

    def _unused(self) -> Path:
        return self._staging / secrets.token_hex(16)


def _papers(key: InstallKey, sealed: Sealed, facts: Mapping[str, str]) -> dict[str, bytes]:
    told = {name: text for name, text in facts.items() if name != LOCK}
    document = {
        "key": str(key),
        "build": secrets.token_hex(16),
        "created_at": datetime.now(UTC).isoformat(),
        "files": len(sealed.manifest.files),
        "size_bytes": sealed.disk_bytes,
        "facts": told,
    }
    papers = {FACTS: json.dumps(document, indent=1).encode("ascii")}
    if LOCK in facts:
        papers[LOCK] = facts[LOCK].encode("utf-8", "surrogateescape")
    if len(papers[FACTS]) > MAX_FACTS_BYTES or len(papers.get(LOCK, b"")) > MAX_LOCK_BYTES:
        raise BuildFailed("the build's lock file, or what is to be known of the build, is larger than what is kept")
    return papers


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _remove(path: Path) -> None:
    try:
        trees.remove(path)
    except OSError as error:
        log.warning("%s cannot be removed, and is tried again at the next start: %s", path, error.strerror or error)
