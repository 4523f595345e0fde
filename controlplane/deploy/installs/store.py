"""The store of built things: got whole or not at all, built once for all who want it, never removed under a user.

Installs are Corral's alone: an instance gets a tree of its own (`linking`), never
a path of the store. What lies where is in `disk`, who waits for whom in `turns`.

Who uses an install says so first (`hold`), then gets or makes it.
"""

from __future__ import annotations

import errno
import logging
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import trio
from attrs import define, field

from controlplane.deploy.installs.checking import TREE, Damaged, check, read_manifest, stamp_of
from controlplane.deploy.installs.disk import Disk, Install
from controlplane.deploy.installs.keys import SHARED, InstallKey
from controlplane.deploy.installs.linking import Linked, link_tree
from controlplane.deploy.installs.sealing import seal
from controlplane.deploy.installs.turns import Flights, Gate
from controlplane.errors import BuildFailed, Overloaded

if TYPE_CHECKING:
    from uuid import UUID

log = logging.getLogger("corral.deploy")
T = TypeVar("T")

AT_ONCE = max(2, os.cpu_count() or 1)
"""Threads that hash, seal, link and remove: more than there are cores are of no use to each other."""
LOOK_HOLDS_S = 2.0
"""Seconds for which an install that was looked at is taken to be as it was: a fleet starts many times from the same."""
FULL = (errno.ENOSPC, errno.EDQUOT)
LOST = (errno.EIO, errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EUCLEAN, errno.EBADMSG)
"""What reading a damaged install, or one on a damaged disk, fails with. Any other error says nothing of the install."""

Build = Callable[[Path], Awaitable[Mapping[str, str]]]
"""Builds in an empty folder of Corral's, puts what is to be kept into `tree` in it, and returns facts about it.

Facts may have a `label` and a `kind`; one called `lock` is kept as a file of its own. When it has returned or raised,
nothing runs that could change the tree, which still belongs to the user that its tools ran as. It may outlive whoever
asked first, so whatever it uses must be its own.
"""


@define(eq=False)
class InstallStore:
    """Made by `InstallStore.open`. `limit_bytes` caps what is kept while nobody uses it, and any single install."""

    disk: Disk
    limit_bytes: int
    _flights: Flights[InstallKey, Install]
    _checks: Flights[InstallKey, Install | None]
    _gates: dict[InstallKey | str, Gate] = field(factory=dict, init=False)
    _stamps: dict[InstallKey, bytes] = field(factory=dict, init=False)
    """Of what was fully checked in this life."""
    _looked: dict[InstallKey, tuple[float, Install]] = field(factory=dict, init=False)
    """When one was last looked at, and what it was."""
    _holders: dict[InstallKey, set[UUID]] = field(factory=dict, init=False)
    _threads: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(AT_ONCE), init=False)

    @classmethod
    async def open(cls, root: Path, limit_bytes: int, nursery: trio.Nursery) -> InstallStore:
        """The store in `root`, whose parent exists.

        Args:
            root: CORRAL_HOME/store.
            limit_bytes: See the class.
            nursery: Builds run in it; what they need must outlive it.

        Raises:
            OSError: the folder cannot be used.
        """
        disk = Disk(root)
        await trio.to_thread.run_sync(disk.open)
        return cls(disk, limit_bytes, Flights(nursery), Flights(nursery))

    async def get(self, key: InstallKey) -> Install | None:
        """An install that is whole; None if there is none, or it was damaged and is now removed.

        Raises:
            Overloaded: the store cannot be read.
        """
        if key in self._stamps:
            async with self.gate(key).shared():
                if (install := await self._look(key)) is not None:
                    return install
        return await self._checks.join(key, partial(self._check_alone, key))

    async def make(self, key: InstallKey, build: Build) -> Install:
        """What `get` gives, or else what `build` builds: once for all who ask for it meanwhile.

        A build goes on for as long as anybody waits for it, whoever asked first.

        Raises:
            CorralError: whatever the build raises.
            BuildFailed: what it left cannot be kept.
            Overloaded: the disk is full.
            ShuttingDown: the nursery was cancelled.
        """
        return await self._flights.join(key, partial(self._make, key, build))

    async def link(self, install: Install, folder: Path, uid: int | None, installed: tuple[str, ...]) -> Linked:
        """Make or mend an instance's tree; see `linking`. The instance does not run.

        Raises:
            BuildFailed: it cannot be made.
            Overloaded: the disk is full.
        """
        async with self.gate(install.key).shared():
            try:
                return await self.in_thread(_link, install, folder, uid, installed)
            except Damaged as damaged:
                self._forget(install.key)  # the next `get` reads all of it
                raise BuildFailed(f"the install has been damaged: {damaged}") from None
            except OSError as error:
                if error.errno in FULL:
                    raise _full() from None
                raise BuildFailed(f"the instance's files cannot be put in place: {error.strerror or error}") from error

    def hold(self, key: InstallKey, instance_id: UUID) -> None:
        """Keep an install from being collected; also one that is yet to be made."""
        self._holders.setdefault(key, set()).add(instance_id)

    def release(self, instance_id: UUID, key: InstallKey | None = None) -> None:
        """The instance uses that install no longer; None: nor any other."""
        for held in [key] if key is not None else list(self._holders):
            holders = self._holders.get(held, set())
            holders.discard(instance_id)
            if not holders:
                self._holders.pop(held, None)

    @asynccontextmanager
    async def cache(self, scope: str) -> AsyncIterator[Path]:
        """The folder of an owner's downloads, for one build at a time. Its content is whatever earlier builds left.

        Raises:
            Overloaded: it cannot be made.
        """
        if scope == SHARED:
            raise ValueError("what is shared is built without a cache, which a build could poison for others")
        async with self.gate(scope).alone():
            try:
                folder = await self.in_thread(self.disk.open_cache, scope)
            except OSError as error:
                raise Overloaded(f"the cache cannot be used: {error.strerror or error}") from error
            try:
                yield folder
            finally:
                with trio.CancelScope(shield=True):  # one system call
                    await self.in_thread(self.disk.close_cache, scope)

    @asynccontextmanager
    async def scratch(self) -> AsyncIterator[Path]:
        """An empty folder of Corral's, gone at the end with all that is in it.

        Raises:
            Overloaded: the disk is full, also while the folder is in use.
            BuildFailed: the disk fails in another way.
        """
        place = None
        try:
            place = await self.in_thread(self.disk.new_place)
            yield place
        except OSError as error:
            if error.errno in FULL:
                raise _full() from None
            raise BuildFailed(f"the store cannot be written: {error.strerror or error}") from error
        finally:
            if place is not None:
                with trio.CancelScope(shield=True):  # as long as it takes to remove one source
                    await self.in_thread(self.disk.discard, place)

    # -- for `collecting`

    def gate(self, key: InstallKey | str) -> Gate:
        """An install's, or that of the cache of a scope."""
        return self._gates.setdefault(key, Gate())

    def holders_of(self, key: InstallKey) -> int:
        return len(self._holders.get(key, ()))

    def is_in_use(self, key: InstallKey) -> bool:
        return key in self._holders or key in self._flights.under_way()

    async def check(self, key: InstallKey) -> Install | None:
        """Read all of an install, and remove it if it is damaged. For who is alone at its gate.

        Raises:
            Overloaded: it cannot be read, for a reason that is not its own.
        """
        try:
            return await self.in_thread(self._read_all, key)
        except Damaged as damaged:
            reason = str(damaged)
        except OSError as error:
            if error.errno not in LOST:
                raise Overloaded(f"the store cannot be read: {error.strerror or error}") from error
            reason = f"{error.filename!a}: {error.strerror}"
        log.warning("%s is damaged, and will be built anew at its next use: %s", self.disk.folder_of(key), reason)
        await self.remove(key)
        return None

    async def remove(self, key: InstallKey) -> None:
        """For who is alone at its gate.

        Raises:
            Overloaded: it cannot be removed.
        """
        self._forget(key)
        try:
            await self.in_thread(self.disk.discard, self.disk.folder_of(key))
        except OSError as error:
            raise Overloaded(f"{key} cannot be removed: {error.strerror or error}") from error

    async def in_thread(self, work: Callable[..., T], *args: object) -> T:
        return await trio.to_thread.run_sync(partial(work, *args), limiter=self._threads)

    # -- inside

    async def _look(self, key: InstallKey) -> Install | None:
        at, install = self._looked.get(key, (-math.inf, None))
        if install is None or trio.current_time() - at > LOOK_HOLDS_S:
            self._looked.pop(key, None)
            if (install := await self.in_thread(self._recognize, key)) is not None:
                self._looked[key] = trio.current_time(), install
        return install

    async def _make(self, key: InstallKey, build: Build) -> Install:
        if (found := await self.get(key)) is not None:
            return found
        place = None
        try:
            place = await self.in_thread(self.disk.new_place)
            facts = await build(place)
            sealed = await self.in_thread(seal, place / TREE, self.limit_bytes)
            async with self.gate(key).alone():
                await self.in_thread(self.disk.keep, key, place, sealed, facts)
                return await self.in_thread(self._accept, key)
        except OSError as error:
            if error.errno in FULL:
                raise _full() from None
            raise BuildFailed(f"what was built cannot be kept: {error.strerror or error}") from error
        finally:
            if place is not None:
                # As long as it takes to remove what one build made; what cannot be, goes at the next start.
                with trio.CancelScope(shield=True), suppress(OSError):
                    await self.in_thread(self.disk.discard, place)

    async def _check_alone(self, key: InstallKey) -> Install | None:
        async with self.gate(key).alone():
            return await self._look(key) or await self.check(key)

    def _forget(self, key: InstallKey) -> None:
        self._stamps.pop(key, None)
        self._looked.pop(key, None)

    def _accept(self, key: InstallKey) -> Install:
        """Take an install as it is for whole: it was sealed or read just now."""
        self._stamps[key] = stamp_of(self.disk.folder_of(key))
        return self.disk.load(key)

    def _recognize(self, key: InstallKey) -> Install | None:
        """An install that still looks as it did when it was last read."""
        try:
            if (stamp := self._stamps.get(key)) is None or stamp != stamp_of(self.disk.folder_of(key)):
                return None
            self.disk.touch(key)
            return self.disk.load(key)
        except (OSError, ValueError, LookupError):  # reading all of it tells what is wrong
            return None

    def _read_all(self, key: InstallKey) -> Install | None:
        if not os.path.lexists(self.disk.folder_of(key)):
            return None
        stamp = check(self.disk.folder_of(key))
        install = self.disk.load(key)
        self._stamps[key] = stamp
        self.disk.touch(key)
        return install


def _link(install: Install, folder: Path, uid: int | None, installed: tuple[str, ...]) -> Linked:
    return link_tree(
        install.tree,
        read_manifest(install.folder),
        folder,
        key=str(install.key),
        build=install.build,
        uid=uid,
        installed=installed,
    )


def _full() -> Overloaded:
    return Overloaded(
        "the disk is full", hint="make room, or let corral cache prune remove the installs that nobody uses"
    )
