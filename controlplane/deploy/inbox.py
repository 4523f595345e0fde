"""Archives on their way from a request to a revision that names them; what no revision comes to name is thrown away.

A request's stay here is a `Visit`. What it brought is on the disk from the moment
it arrived, and looked through before anything is written to the database. A visit
that ends in an error leaves nothing, unless some revision has the very same archive.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from attrs import define, evolve, field

from controlplane.deploy import trees
from controlplane.deploy.installs.keys import scope_of
from controlplane.deploy.refusals import Refusals
from controlplane.deploy.source.archive import ArchiveKind, unpack
from controlplane.deploy.underway import UnderWay, UploadUnderWay
from controlplane.deploy.wanted import decoded_pieces
from controlplane.errors import StorageUnavailable
from controlplane.model import SourceType

if TYPE_CHECKING:
    from controlplane.deploy.source.uploads import Upload, Uploads
    from controlplane.model import Spec
    from controlplane.store.base import Store

ARCHIVE_MAX_BYTES = 100 * 2**20
"""Of one archive as it is sent."""
UPLOADED_AT = "source"
"""The part of a request in several parts that is the archive."""
LOOKS_AT_ONCE = 2
"""Archives that are looked through at the same time: each may take half a GiB of disk while it is. One of an owner's."""
log = logging.getLogger("corral.deploy")

_KINDS: dict[SourceType, ArchiveKind] = {SourceType.ZIP: "zip", SourceType.TAR: "tar"}
Kept = tuple[str, str]
"""Scope and SHA-256."""


@define(eq=False)
class Inbox:
    """One per control plane.

    Args:
        uploads: Where archives are kept.
        store: Knows which of them a revision comes from.
        scratch: A folder of Corral's own, swept at a start; made when it is needed.
    """

    uploads: Uploads
    store: Store
    scratch: Path
    under_way: UnderWay = field(factory=UnderWay, init=False)
    _held: Counter[Kept] = field(factory=Counter, init=False)
    """What visits have brought that are not over."""
    _arriving: Counter[str] = field(factory=Counter, init=False)
    """Archives that have no name yet, by scope."""
    _accepted: int = field(default=0, init=False)
    """Visits that ended well: each may have made a revision."""
    _turns: dict[str, trio.Lock] = field(factory=dict, init=False)
    """Of the scopes that look, or wait to: an owner's second archive does not stand in the line before another's first."""
    _looks: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(LOOKS_AT_ONCE), init=False)

    @asynccontextmanager
    async def visit(self, owner: str) -> AsyncIterator[Visit]:
        """For as long as a request may come to nothing. `owner` is whose instance it is about."""
        visit = Visit(self, scope_of(owner))
        try:
            yield visit
        except BaseException:
            self._held.subtract(visit.brought)
            for kept in visit.brought:
                await self._throw_away(owner, *kept)
            raise
        self._held.subtract(visit.brought)
        self._accepted += 1

    @asynccontextmanager
    async def upload(self, owner: str, sender: str, declared_bytes: int | None) -> AsyncIterator[Visit]:
        """As `visit`, for a request whose archive is yet to arrive.

        Args:
            owner: Whose instance it is about.
            sender: Whose upload it is.
            declared_bytes: The size of the body, where it is known.

        Raises:
            RateLimited, Overloaded: it may not begin; see `UnderWay`.
        """
        with self.under_way.begin(sender, declared_bytes) as under_way:
            async with self.visit(owner) as visit:
                visit.under_way = under_way
                yield visit

    async def collect(self) -> int:
        """Remove uploads that no revision comes from, at a start and after deletions; returns the bytes removed.

        What arrived within the last hour stays: its revision may be on its way.

        Raises:
            StorageUnavailable: it cannot be told which those are.
            OSError: a folder cannot be read.
        """
        used = await self.store.sources_in_use()
        return await self.uploads.collect({(scope_of(owner), sha256) for owner, sha256 in used})

    @asynccontextmanager
    async def _turn(self, scope: str) -> AsyncIterator[None]:
        """Alone among the looks of a scope."""
        turn = self._turns.setdefault(scope, trio.Lock())
        try:
            async with turn:
                yield
        finally:
            if not turn.locked() and self._turns.get(scope) is turn:  # nobody waits for it
                del self._turns[scope]

    async def _throw_away(self, owner: str, scope: str, sha256: str) -> None:
        """Remove one at once. Where anything is in doubt, it is left to `collect`."""
        with trio.CancelScope(shield=True):  # the store bounds its own time
            accepted = self._accepted
            try:
                used = await self.store.sources_in_use()
            except StorageUnavailable:
                return
        doubtful = self._held[scope, sha256] > 0 or self._arriving[scope] or self._accepted != accepted
        if doubtful or (owner, sha256) in used:
            return
        # No await since: nobody can have come to want it.
        with suppress(OSError):
            path = self.uploads.path(scope, sha256)
            if path is not None:
                path.unlink()


@define(eq=False)
class Visit:
    """What one request brings."""

    inbox: Inbox
    scope: str
    under_way: UploadUnderWay | None = field(default=None, init=False)
    """Set where what it brings arrives from the client."""
    brought: list[Kept] = field(factory=list, init=False)

    async def receive(self, chunks: AsyncIterable[bytes]) -> Upload:
        """Keep what arrives.

        Raises:
            PayloadTooLarge, Overloaded
        """
        self.inbox._arriving[self.scope] += 1
        try:
            async with aclosing(self._counted(chunks)) as counted:
                upload = await self.inbox.uploads.receive(self.scope, counted, limit_bytes=ARCHIVE_MAX_BYTES)
            self.brought.append((self.scope, upload.sha256))
            self.inbox._held[self.scope, upload.sha256] += 1
        finally:
            self.inbox._arriving[self.scope] -= 1
        if self.under_way is not None:
            self.under_way.upload = upload
        return upload

    async def _counted(self, chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
        async for chunk in chunks:
            if self.under_way is not None:
                self.under_way.grow(len(chunk))
            yield chunk

    async def put(self, data: str) -> Upload:
        """Keep what is there in base64, as `source_data`.

        Raises:
            InvalidRequest: it is not base64, or empty.
            PayloadTooLarge, Overloaded
        """

        async def pieces() -> AsyncGenerator[bytes, None]:
            for piece in decoded_pieces(data):
                yield piece

        try:
            async with aclosing(pieces()) as arriving:
                return await self.receive(arriving)
        except ValueError as error:
            refusals = Refusals()
            refusals.add("/source_data", str(error), "base64 -w0 archive.zip")
            refusals.raise_if_any()
            raise

    async def look_through(self, upload: Upload, kind: ArchiveKind, pointer: str) -> None:
        """Unpack it for a look, and throw away what came of it.

        Args:
            upload: What this visit has brought.
            kind: What its owner says it is.
            pointer: The place in the request that it came from.

        Raises:
            ArchiveRejected: names the entry.
            Overloaded: the disk is full.
        """
        path = self.inbox.uploads.path(self.scope, upload.sha256)
        assert path is not None
        look = partial(_look, path, kind, self.inbox.scratch, pointer)
        async with self.inbox._turn(self.scope):
            await trio.to_thread.run_sync(look, limiter=self.inbox._looks)


async def bring(visit: Visit, spec: Spec, data: str | None, upload: Upload | None) -> Upload | None:
    """Keep the archive that a request brings, and look through it; None if it brings none.

    Args:
        visit: The request's.
        spec: What was made of it.
        data: Its `source_data`.
        upload: What came beside it, held by another visit.

    Raises:
        ArchiveRejected, InvalidRequest, PayloadTooLarge, Overloaded
    """
    kind = _KINDS.get(spec.source_type)
    if kind is None:
        return None
    if upload is not None:
        await visit.look_through(upload, kind, UPLOADED_AT)
        visit.inbox.under_way.looked_through(upload)
        return upload
    if data is None:
        return None
    kept = await visit.put(data)
    await visit.look_through(kept, kind, "/source_data")
    return kept


def with_archive(spec: Spec, brought: Upload | None) -> Spec:
    """The Spec with the archive that `bring` gave."""
    if brought is None or spec.origin is None:
        return spec
    return evolve(spec, origin=evolve(spec.origin, sha256=brought.sha256, size_bytes=brought.size_bytes))


def _look(path: Path, kind: ArchiveKind, scratch: Path, pointer: str) -> None:
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    into = scratch / f"look-{secrets.token_hex(8)}"
    unpack(path, kind, into, cancelled=_given_up, pointer=pointer)
    try:
        trees.remove(into)
    except OSError as error:  # swept at the next start
        log.warning("%s, an archive that was looked through, cannot be removed: %s", into, error.strerror or error)


def _given_up() -> bool:
    """Raises `trio.Cancelled` in the worker's thread if the client has left."""
    trio.from_thread.check_cancelled()
    return False
