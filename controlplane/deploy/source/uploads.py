"""Keeps archives that owners uploaded, by what is in them, for the builds and rebuilds to come.

    <root>/<scope>/<sha256>         an upload, 0600, whole
    <root>/<scope>/.<random>.part   one that is arriving

A scope is what an owner's things are kept under; nothing is shared between two.
Uploads arrive in pieces and never stand in memory; until one is whole and on the
disk it has no name that anybody looks for.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import AsyncIterable, Collection
from contextlib import suppress
from pathlib import Path
from threading import Lock

import trio
from attrs import define, field, frozen

from controlplane.deploy.source.diskfull import full_is_overloaded
from controlplane.deploy.source.newtree import write_all
from controlplane.errors import PayloadTooLarge

log = logging.getLogger("corral.deploy")

PIECE_BYTES = 2**20
"""Written at once: a hop to a thread costs as much as 100 KiB of writing."""
GRACE_S = 3600.0
"""An upload of this age that no deploy refers to will not be referred to any more."""
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SCOPE = re.compile(r"[a-z0-9][a-z0-9_-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@frozen
class Upload:
    """One that is kept."""

    sha256: str
    size_bytes: int


@define
class Uploads:
    """The uploads of all scopes.

    Args:
        root: Their folder; made when the first arrives.
    """

    root: Path
    _arriving: set[Path] = field(factory=set, init=False, repr=False)
    _naming: Lock = field(factory=Lock, init=False, repr=False)
    """Held by the threads that give a name and that take one away, or a new upload could go in an old one's stead."""

    async def receive(self, scope: str, chunks: AsyncIterable[bytes], *, limit_bytes: int) -> Upload:
        """Keep what arrives; nothing of it stays if it does not arrive whole.

        Raises:
            PayloadTooLarge: there is more than `limit_bytes` of it.
            Overloaded: the disk is full.
            OSError: the folder cannot be written.
        """
        folder = self._folder(scope)
        part = folder / f".{secrets.token_hex(8)}.part"
        self._arriving.add(part)
        try:
            with full_is_overloaded():
                return await _receive(part, chunks, limit_bytes, self._naming)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(_unlink, part)
            self._arriving.discard(part)

    async def put(self, scope: str, data: bytes) -> Upload:
        """Keep what is in memory already; raises as `receive` does."""

        async def pieces() -> AsyncIterable[bytes]:
            yield data

        return await self.receive(scope, pieces(), limit_bytes=len(data))

    def path(self, scope: str, sha256: str) -> Path | None:
        """Where an upload is; None if it is not kept."""
        path = self._path(scope, sha256)
        try:
            return path if stat.S_ISREG(path.lstat().st_mode) else None
        except FileNotFoundError:
            return None

    async def verified(self, scope: str, sha256: str) -> Path | None:
        """Where an upload is, its contents compared with its name; None if it is not kept, or was damaged, and so removed.

        Raises:
            OSError: it cannot be read.
        """
        path = self.path(scope, sha256)
        if path is None:
            return None
        return path if await trio.to_thread.run_sync(_is_whole, path, self._naming) else None

    async def names(self) -> set[str]:
        """`<scope>/<sha256>` of all that are kept."""
        return await trio.to_thread.run_sync(_names, self.root)

    async def collect(self, keep: Collection[tuple[str, str]], *, older_than_s: float = GRACE_S) -> int:
        """Remove what is not to be kept, and what never arrived whole.

        Args:
            keep: Scope and digest of all that some deploy refers to.
            older_than_s: Younger ones stay: their deploy may be on its way.

        Returns:
            Bytes removed.
        """
        kept = {self._path(scope, sha256) for scope, sha256 in keep}
        return await trio.to_thread.run_sync(
            _collect, self.root, kept, self._arriving, time.time() - older_than_s, self._naming
        )

    def _folder(self, scope: str) -> Path:
        if not _SCOPE.fullmatch(scope):
            raise ValueError(f"{scope!r} is no scope")
        return self.root / scope

    def _path(self, scope: str, sha256: str) -> Path:
        if not _SHA256.fullmatch(sha256):
            raise ValueError(f"{sha256!r} is no SHA-256")
        return self._folder(scope) / sha256


async def _receive(part: Path, chunks: AsyncIterable[bytes], limit_bytes: int, naming: Lock) -> Upload:
    arrival = await trio.to_thread.run_sync(_Arrival.begin, part, naming)
    try:
        waiting: list[bytes] = []
        waiting_bytes = 0
        async for chunk in chunks:
            waiting.append(chunk)
            waiting_bytes += len(chunk)
            if arrival.size + waiting_bytes > limit_bytes:
                raise PayloadTooLarge(
                    f"The upload has more than {limit_bytes:,} bytes.",
                    hint="Leave out what is not source, or point `source_url` at a repository.",
                )
            if waiting_bytes >= PIECE_BYTES:
                await trio.to_thread.run_sync(arrival.take, b"".join(waiting))
                waiting, waiting_bytes = [], 0
        return await trio.to_thread.run_sync(arrival.finish, b"".join(waiting))
    finally:
        os.close(arrival.fd)


@define
class _Arrival:
    """A file that is being written; its methods block."""

    part: Path
    fd: int
    naming: Lock
    size: int = 0
    _digest: hashlib._Hash = field(factory=hashlib.sha256)

    @classmethod
    def begin(cls, part: Path, naming: Lock) -> _Arrival:
        for folder in (part.parent.parent, part.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        return cls(part, os.open(part, _NEW_FILE, 0o600), naming)

    def take(self, data: bytes) -> None:
        write_all(self.fd, data)
        self._digest.update(data)
        self.size += len(data)

    def finish(self, data: bytes) -> Upload:
        """The last piece, and its name; a power cut from here on leaves it whole."""
        self.take(data)
        os.fsync(self.fd)
        upload = Upload(self._digest.hexdigest(), self.size)
        with self.naming:
            self.part.rename(self.part.with_name(upload.sha256))  # over a former one, which may be damaged
        folder = os.open(self.part.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return upload


def _unlink(path: Path) -> None:
    with suppress(FileNotFoundError, NotADirectoryError):
        path.unlink()


def _is_whole(path: Path, naming: Lock) -> bool:
    """Whether a file is there and holds what its name says; removed if it holds something else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    with open(fd, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() == path.name:
            return True
        with naming, suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), path.lstat()):  # and not one that arrived anew meanwhile
                path.unlink()
                log.warning("the upload %s was damaged on the disk, and is removed", path)
    return False


def _collect(root: Path, keep: set[Path], arriving: set[Path], before: float, naming: Lock) -> int:
    freed = 0
    with suppress(FileNotFoundError):
        for folder in sorted(root.iterdir()):
            if not folder.is_dir() or folder.is_symlink():
                continue
            for path in sorted(folder.iterdir()):
                if path not in keep and path not in arriving and _is_ours(path.name):
                    with naming:
                        freed += _remove_old(path, before)
    return freed


def _names(root: Path) -> set[str]:
    try:
        return {f"{path.parent.name}/{path.name}" for path in root.glob("*/*") if _SHA256.fullmatch(path.name)}
    except FileNotFoundError:
        return set()


def _is_ours(name: str) -> bool:
    return bool(_SHA256.fullmatch(name)) or (name.startswith(".") and name.endswith(".part"))


def _remove_old(path: Path, before: float) -> int:
    """Remove an upload, unless it is young; its size."""
    try:
        status = path.lstat()
        if status.st_mtime > before and not path.name.endswith(".part"):
            return 0
        path.unlink()
    except FileNotFoundError:
        return 0
    except OSError as error:
        log.warning("the upload %s, which nothing needs, cannot be removed: %s", path, error.strerror or error)
        return 0
    return status.st_size
