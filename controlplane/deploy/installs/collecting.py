"""Look after the store: list it, read all of it, and keep its size below its cap.

Installs that nobody holds go, the least recently used first, while all that is
kept takes more than the cap. An owner's cache goes when it is larger than its
share, or when the installs that may go were not enough; never beside a build of
that owner. What goes costs time and a registry to have again, nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import frozen

from controlplane.deploy.installs.keys import SHARED, InstallKey, scope_of
from controlplane.spawn.diskuse import everything

if TYPE_CHECKING:
    from controlplane.deploy.installs.disk import Disk, Install
    from controlplane.deploy.installs.store import InstallStore

log = logging.getLogger("corral.deploy")

CACHE_SHARE = 0.25
"""Of the cap: how large one owner's cache may become. Four hoarders fill the store, one does not."""


@frozen
class CacheUse:
    """The downloads of one owner."""

    scope: str
    size_bytes: int


@frozen(kw_only=True)
class StoreUse:
    """What is kept. An install that cannot be read is left out; `verify` tells of it, and removes it."""

    installs: tuple[Install, ...]
    caches: tuple[CacheUse, ...]
    unreadable: tuple[InstallKey, ...]
    limit_bytes: int

    @property
    def total_bytes(self) -> int:
        return sum(install.size_bytes for install in self.installs) + sum(cache.size_bytes for cache in self.caches)


@frozen(kw_only=True)
class Verified:
    """`damaged` are removed: each is built anew at its next use."""

    checked: int
    damaged: tuple[InstallKey, ...]


@frozen(kw_only=True)
class Pruned:
    """What went: installs by their keys, caches by their scopes."""

    installs: tuple[InstallKey, ...]
    caches: tuple[str, ...]
    freed_bytes: int


async def listing(store: InstallStore) -> StoreUse:
    """All that is kept, sorted by key; `store.holders_of` says how many use one.

    Raises:
        OSError: the store cannot be listed.
    """
    return await store.in_thread(_listing, store.disk, store.limit_bytes)


async def verify(store: InstallStore) -> Verified:
    """Read every install, one after the other, and remove the damaged, whoever holds them.

    Instances that run from one are not touched: their trees have names of their own for its files.

    Raises:
        OSError, Overloaded: the store cannot be read.
    """
    checked, damaged = 0, []
    for key in await store.in_thread(store.disk.all_keys):
        async with store.gate(key).alone():
            there = store.disk.folder_of(key)
            if not await store.in_thread(there.exists):
                continue  # collected meanwhile
            checked += 1
            if await store.check(key) is None:
                damaged.append(key)
    return Verified(checked=checked, damaged=tuple(damaged))


async def prune(store: InstallStore, limit_bytes: int | None = None, *, everything: bool = False) -> Pruned:
    """Remove what nobody uses until what is left takes no more than the limit.

    To be called when all instances that exist hold what they use.

    Args:
        store: Of which.
        limit_bytes: None: the store's own.
        everything: All that nobody uses, however little it is.

    Raises:
        OSError, Overloaded: the store cannot be listed, or something cannot be removed.
    """
    limit = store.limit_bytes if limit_bytes is None else limit_bytes
    use = await listing(store)
    left = use.total_bytes
    installs: list[InstallKey] = []
    caches: list[str] = []
    for key in use.unreadable:
        async with store.gate(key).alone():
            await store.check(key)
    for part in _in_order(use, limit):
        must = everything or left > limit or (isinstance(part, CacheUse) and part.size_bytes > limit * CACHE_SHARE)
        if not must:
            continue
        if isinstance(part, CacheUse):
            if await _empty(store, part.scope):
                caches.append(part.scope)
                left -= part.size_bytes
        elif await _collect(store, part.key):
            installs.append(part.key)
            left -= part.size_bytes
    freed = use.total_bytes - left
    if freed:
        log.info("removed %d installs and %d caches, %d MiB", len(installs), len(caches), freed // 2**20)
    return Pruned(installs=tuple(installs), caches=tuple(caches), freed_bytes=freed)


async def drop_owner(store: InstallStore, owner: str) -> None:
    """Remove what was kept for an owner who is gone, but what an instance still holds.

    Raises:
        OSError, Overloaded: something cannot be removed.
    """
    scope = scope_of(owner)
    for key in await store.in_thread(store.disk.all_keys):
        if key.scope == scope:
            await _collect(store, key)
    await _empty(store, scope)
    with suppress(OSError):  # something is left, or nothing ever was
        await store.in_thread(store.disk.drop_scope, scope)


async def _collect(store: InstallStore, key: InstallKey) -> bool:
    if store.is_in_use(key):
        return False
    async with store.gate(key).alone():
        if store.is_in_use(key):  # somebody came while others were waited for
            return False
        await store.remove(key)
        return True


async def _empty(store: InstallStore, scope: str) -> bool:
    gate = store.gate(scope)
    if not gate.is_open:  # a build may take minutes
        return False
    async with gate.alone():
        await store.in_thread(store.disk.discard, store.disk.cache_of(scope))
        return True


def _in_order(use: StoreUse, limit: int) -> Iterator[Install | CacheUse]:
    """Caches that are too large, then installs, the longest unused first, then the other caches, the largest first."""
    caches = sorted(use.caches, key=lambda cache: -cache.size_bytes)
    yield from (cache for cache in caches if cache.size_bytes > limit * CACHE_SHARE)
    yield from sorted(use.installs, key=lambda install: install.last_used_at)
    yield from (cache for cache in caches if cache.size_bytes <= limit * CACHE_SHARE)


def _listing(disk: Disk, limit_bytes: int) -> StoreUse:
    installs: list[Install] = []
    unreadable: list[InstallKey] = []
    for key in disk.all_keys():
        try:
            installs.append(disk.load(key))
        except FileNotFoundError:
            if disk.folder_of(key).exists():
                unreadable.append(key)
        except (OSError, ValueError, LookupError, TypeError):
            unreadable.append(key)
    caches = [
        CacheUse(scope, everything(disk.cache_of(scope)).size_bytes) for scope in disk.owners() if scope != SHARED
    ]
    return StoreUse(
        installs=tuple(installs),
        caches=tuple(cache for cache in caches if cache.size_bytes),
        unreadable=tuple(unreadable),
        limit_bytes=limit_bytes,
    )
