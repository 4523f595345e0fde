"""What goes when the store is too large, what never does, and what a look through it tells."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import trio

from controlplane.deploy import trees
from controlplane.deploy.installs import collecting
from controlplane.deploy.installs.collecting import Pruned
from controlplane.deploy.installs.keys import scope_of
from controlplane.deploy.installs.store import InstallStore
from tests.deploy.installs.conftest import ADAS, KEY, LIMIT_BYTES, WAIT_S, Building, key, listed, staged

if TYPE_CHECKING:
    import pytest

    from controlplane.deploy.installs.disk import Install

MIB = 2**20
NOTHING = Pruned(installs=(), caches=(), freed_bytes=0)


async def made(store: InstallStore, name: str, *, mib: int = 1, used_at: float = 0, scope: str = "shared") -> Install:
    """An install of that size, last used at that time."""
    install = await store.make(
        key(name, scope=scope), Building(lambda tree: (tree / "blob").write_bytes(os.urandom(mib * MIB)))
    )
    os.utime(install.folder / "used", (used_at, used_at))
    return install


async def cached(store: InstallStore, owner: str, *, mib: int) -> Path:
    async with store.cache(scope_of(owner)) as cache:
        (cache / "blob").write_bytes(os.urandom(mib * MIB))
        (cache / "twin").hardlink_to(cache / "blob")
    return cache


# -- listing


async def test_a_listing_says_what_is_kept_and_what_it_takes(store: InstallStore) -> None:
    one = await made(store, "one", mib=2, used_at=1000)
    other = await made(store, "other", scope=scope_of("ada"))
    await cached(store, "ada", mib=3)
    store.hold(one.key, uuid4())
    store.hold(one.key, uuid4())

    use = await collecting.listing(store)

    assert use.installs == tuple(sorted((one, other), key=lambda install: install.key))
    assert [store.holders_of(install.key) for install in (one, other)] == [2, 0]
    assert one.last_used_at.timestamp() == 1000
    assert 2 * MIB <= one.size_bytes <= 2 * MIB + 16_384
    assert [cache.scope for cache in use.caches] == [scope_of("ada")]
    assert 3 * MIB <= use.caches[0].size_bytes <= 3 * MIB + 16_384, "two names of one file are one file"
    assert use.total_bytes == one.size_bytes + other.size_bytes + use.caches[0].size_bytes


async def test_an_empty_store_is_listed_and_what_is_no_install_is_not(store: InstallStore) -> None:
    assert (await collecting.listing(store)).total_bytes == 0
    install = await made(store, "one")
    (install.folder.parent / "notes").mkdir()
    (store.disk.root / "owners" / "notes").write_text("moo")

    assert (await collecting.listing(store)).installs == (install,)


# -- pruning


async def test_the_longest_unused_go_until_what_is_left_fits(store: InstallStore) -> None:
    installs = [await made(store, str(number), used_at=1000 - number) for number in range(5)]

    pruned = await collecting.prune(store, int(2.5 * MIB))

    assert pruned.installs == (installs[4].key, installs[3].key, installs[2].key)
    assert pruned.freed_bytes == sum(install.size_bytes for install in installs[2:])
    assert [install.folder.exists() for install in installs] == [True, True, False, False, False]
    assert staged(store) == []
    assert await store.get(installs[4].key) is None
    assert await store.get(installs[0].key) == installs[0]


async def test_a_use_makes_an_install_stay(store: InstallStore) -> None:
    old, new = await made(store, "old", used_at=1), await made(store, "new", used_at=2)

    await store.get(old.key)

    assert (await collecting.prune(store, int(1.5 * MIB))).installs == (new.key,)


async def test_below_the_cap_nothing_goes_unless_everything_is_to(store: InstallStore) -> None:
    install = await made(store, "one")
    cache = await cached(store, "ada", mib=1)

    assert await collecting.prune(store) == NOTHING

    assert (await collecting.prune(store, everything=True)).caches == (scope_of("ada"),)
    assert not install.folder.exists()
    assert not cache.exists()
    assert (await collecting.listing(store)).total_bytes == 0


async def test_what_is_held_never_goes_and_goes_once_it_is_not(store: InstallStore) -> None:
    held, instance = await made(store, "held"), uuid4()
    store.hold(held.key, instance)
    store.hold(held.key, other := uuid4())
    store.release(other)

    assert await collecting.prune(store, 0, everything=True) == NOTHING

    store.release(instance, key("another"))
    assert await collecting.prune(store, 0, everything=True) == NOTHING
    store.release(instance, held.key)
    assert (await collecting.prune(store, 0)).installs == (held.key,)
    store.release(instance)


async def test_what_is_being_made_does_not_go(store: InstallStore) -> None:
    building = Building(may_end=trio.Event())
    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as asking:
            asking.start_soon(store.make, KEY, building)
            await building.begun.wait()

            assert await collecting.prune(store, 0, everything=True) == NOTHING

            assert staged(store)
            building.may_end.set()

    assert await store.get(KEY) is not None


async def test_pruning_goes_on_beside_everything_else(store: InstallStore, common_folder: Path) -> None:
    """Whoever makes, gets and links meanwhile gets whole trees; whoever holds keeps theirs."""
    held, instance = key("held"), uuid4()
    store.hold(held, instance)
    pruned = 0
    done = trio.Event()

    async def prune() -> None:
        nonlocal pruned
        while not done.is_set():
            pruned += len((await collecting.prune(store, 0, everything=True)).installs)
            await trio.lowlevel.checkpoint()

    async def start(name: str) -> None:
        for number in range(5):
            other = key(name, str(number))
            holder = uuid4()
            store.hold(other, holder)
            install = await store.make(other, Building())
            app = common_folder / f"{name}{number}"
            await store.link(install, app, ADAS, ("node_modules",))
            assert listed(app) == listed(install.tree)
            assert await store.get(other) is not None
            store.release(holder)

    with trio.fail_after(WAIT_S):
        first = await store.make(held, Building())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(prune)
            async with trio.open_nursery() as starting:
                for name in "abcd":
                    starting.start_soon(start, name)
            done.set()

    assert pruned > 0
    assert await store.get(held) == first


async def test_a_running_instance_keeps_its_files_when_its_install_goes(store: InstallStore, instance: Path) -> None:
    install = await store.make(KEY, Building())
    await store.link(install, instance, ADAS, ("node_modules",))

    assert (await collecting.prune(store, everything=True)).installs == (KEY,)

    assert (instance / "node_modules/cow/index.js").read_text() == "moo()"


# -- caches


async def test_a_cache_larger_than_its_share_goes_first(store: InstallStore) -> None:
    install = await made(store, "one")
    large, small = await cached(store, "ada", mib=3), await cached(store, "bob", mib=1)

    pruned = await collecting.prune(store, 10 * MIB)

    assert pruned.caches == (scope_of("ada"),)
    assert (large.exists(), small.exists(), install.folder.exists()) == (False, True, True)


async def test_caches_go_when_the_installs_that_may_go_were_not_enough(store: InstallStore) -> None:
    held = await made(store, "held", mib=8)
    store.hold(held.key, uuid4())
    unused = await made(store, "unused")
    large, small = await cached(store, "ada", mib=2), await cached(store, "bob", mib=1)

    assert await collecting.prune(store, int(12.5 * MIB)) == NOTHING
    pruned = await collecting.prune(store, int(10.5 * MIB))

    assert (pruned.installs, pruned.caches) == ((unused.key,), (scope_of("ada"),))
    assert (large.exists(), small.exists()) == (False, True)


async def test_a_cache_that_a_build_uses_stays(store: InstallStore) -> None:
    await cached(store, "ada", mib=1)

    async with store.cache(scope_of("ada")) as cache:
        assert await collecting.prune(store, 0, everything=True) == NOTHING
        assert (cache / "blob").exists()

    assert (await collecting.prune(store, 0)).caches == (scope_of("ada"),)
    async with store.cache(scope_of("ada")) as cache:
        assert os.listdir(cache) == []


# -- looking through


async def test_a_look_through_finds_the_damaged_and_removes_them_held_or_not(
    store: InstallStore, caplog: pytest.LogCaptureFixture
) -> None:
    installs = [await made(store, str(number)) for number in range(4)]
    for damaged in installs[:2]:
        trees.remove(damaged.tree / "blob")
    store.hold(installs[0].key, uuid4())

    with caplog.at_level(logging.WARNING):
        verified = await collecting.verify(store)

    assert verified.checked == 4
    assert set(verified.damaged) == {installs[0].key, installs[1].key}
    assert all(str(install.folder) in caplog.text for install in installs[:2])
    assert [install.folder.exists() for install in installs] == [False, False, True, True]
    assert await collecting.verify(store) == collecting.Verified(checked=2, damaged=())
    assert (await store.make(installs[0].key, Building())).files == 3, "the next start builds it anew"


async def test_a_look_through_reads_what_looks_unchanged(store: InstallStore) -> None:
    install = await made(store, "one")
    blob = install.tree / "blob"
    before = blob.stat()
    blob.chmod(0o644)
    with blob.open("r+b") as file:
        file.write(bytes(8))
    blob.chmod(0o444)
    os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert await store.get(install.key) == install, "a look at it does not tell"

    assert (await collecting.verify(store)).damaged == (install.key,)


async def test_an_install_whose_facts_cannot_be_read_is_collected_as_damaged(store: InstallStore) -> None:
    lost, broken = await made(store, "lost"), await made(store, "broken")
    (lost.folder / "facts.json").unlink()
    (broken.folder / "facts.json").write_text("[]")

    use = await collecting.listing(store)
    assert (use.installs, set(use.unreadable)) == ((), {lost.key, broken.key})

    await collecting.prune(store)

    assert store.disk.all_keys() == []


# -- owners


async def test_an_owner_who_is_gone_leaves_nothing_but_what_is_held(store: InstallStore, nursery: trio.Nursery) -> None:
    adas, bobs, shared = [await made(store, "x", scope=scope) for scope in (scope_of("ada"), scope_of("bob"), "shared")]
    await cached(store, "ada", mib=1)
    kept = await made(store, "kept", scope=scope_of("ada"))
    store.hold(kept.key, holder := uuid4())

    await collecting.drop_owner(store, "ada")
    assert store.disk.all_keys() == sorted([kept.key, bobs.key, shared.key])

    store.release(holder)
    await collecting.drop_owner(store, "ada")
    await collecting.drop_owner(store, "nobody")

    assert store.disk.owners() == [scope_of("bob")]
    assert not adas.folder.exists()
    later = await InstallStore.open(store.disk.root, LIMIT_BYTES, nursery)
    assert (await made(later, "x", scope=scope_of("ada"))).files == 1
