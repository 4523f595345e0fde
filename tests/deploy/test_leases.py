"""What revisions leave behind on the disk and in the store while their instance is never stopped: that of the last one."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
import trio
from attrs import define, evolve, field

from controlplane.core.lifecycle import State
from controlplane.deploy.build.builds import Builds
from controlplane.deploy.build.built import Built
from controlplane.deploy.build.launching import BuiltLaunch
from controlplane.deploy.installs import collecting
from controlplane.deploy.installs.keys import SHARED, InstallKey, key_of
from controlplane.deploy.installs.store import InstallStore
from controlplane.errors import BuildFailed
from controlplane.model import Command, Resolved, SourceType, Spec
from tests.deploy.conftest import Quiet, command, direct, host, instance_of
from tests.deploy.installs.conftest import LIMIT_BYTES, Building
from tests.deploy.test_prepare import folder_of, prepared

if TYPE_CHECKING:
    from controlplane.deploy.build.packages import PackageInstalls
    from controlplane.deploy.build.sources import SourceBuilds
    from controlplane.deploy.prepare import HostPrepare
    from controlplane.model import Instance
    from controlplane.spawn.uids import UidPool
    from controlplane.store.base import Store
    from controlplane.supervise.launch import Launch, Progress

ROUNDS = 10
SPEC = Spec(source_type=SourceType.ZIP, language="node", entry_point="one")


@define
class Bakery:
    """Builds what the entry point names: the same twice is one install."""

    store: InstallStore
    problem: Exception | None = None
    damages: bool = False
    """What it has built, before anybody has it."""
    reached: trio.Event = field(factory=trio.Event)
    open: trio.Event = field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self.open.set()

    async def build(self, instance: Instance, progress: Progress) -> Built:
        key = key_for(instance)
        self.store.hold(key, instance.id)
        self.reached.set()
        await self.open.wait()
        if self.problem is not None:
            raise self.problem
        install = await self.store.make(key, Building())
        if self.damages:
            (install.tree / "server.js").unlink()
        launch = BuiltLaunch(language="node", argv=("node", "server.js"), installed=("node_modules",))
        return Built(install=install, launch=launch, resolved=Resolved(language="node", facts={"install": str(key)}))


class Records:
    """Nothing is written down."""

    async def set_resolved(self, *facts: object) -> None:
        await trio.lowlevel.checkpoint()


def key_for(instance: Instance) -> InstallKey:
    return key_of(SHARED, "test", instance.spec.entry_point or "")


@define
class Site:
    """An instance that is prepared again and again."""

    prepare: HostPrepare
    store: InstallStore
    bakery: Bakery
    instance: Instance = field(factory=lambda: instance_of(SPEC))

    async def start(self, **changes: object) -> Launch:
        """As for an instance without a process; it runs from then on."""
        self.instance = evolve(self.revision(**changes), state=State.PREPARING)
        launch = await prepared(self.prepare, self.instance)
        self.instance = evolve(self.instance, spec=launch.spec or self.instance.spec, state=State.RUNNING)
        return launch

    async def candidate(self, **changes: object) -> Launch:
        return await prepared(self.prepare, self.revision(**changes))

    def revision(self, **changes: object) -> Instance:
        return evolve(self.instance, spec=evolve(self.instance.spec, resolved=None, **changes))

    async def retire(self, launch: Launch) -> None:
        await self.prepare.retire(self.instance, launch)

    @property
    def trees(self) -> list[str]:
        return sorted(name for name in os.listdir(folder_of(self.prepare, self.instance)) if name.startswith("app-"))

    @property
    def held(self) -> set[InstallKey]:
        return {key for key, holders in self.store._holders.items() if self.instance.id in holders}

    def assert_only(self, *names: str) -> None:
        """Trees and holds are those of these entry points."""
        keys = {key_of(SHARED, "test", name) for name in names}
        assert self.held == keys
        assert self.trees == sorted(f"app-{key.digest[:16]}" for key in keys)
        hidden = {name for name in os.listdir(folder_of(self.prepare, self.instance)) if name.startswith(".")}
        assert hidden == {f".{tree}.json" for tree in self.trees}


@pytest.fixture
async def site(common_folder: Path, uids: UidPool, nursery: trio.Nursery) -> Site:
    store = await InstallStore.open(common_folder / "store", LIMIT_BYTES, nursery)
    bakery = Bakery(store)
    prepare = host(common_folder, uids)
    prepare.builds = Builds(
        store=store,
        packages=cast("PackageInstalls", NoPackages()),
        sources=cast("SourceBuilds", bakery),
        records=cast("Store", Records()),
    )
    return Site(prepare, store, bakery)


class NoPackages:
    """Every command runs as it is written."""

    def understands(self, spec: Spec) -> None:
        return None


async def test_revisions_that_take_over_leave_one_tree_and_one_hold(site: Site) -> None:
    launch = await site.start()

    for number in range(ROUNDS):
        before, launch = launch, await site.candidate(entry_point=f"revision {number}")
        assert len(site.trees) == len(site.held) == 2
        assert launch.spec is not None
        site.instance = evolve(site.instance, spec=launch.spec)
        await site.retire(before)

    site.assert_only(f"revision {ROUNDS - 1}")
    pruned = await collecting.prune(site.store, 0)
    assert len(pruned.installs) == ROUNDS


async def test_revisions_that_fail_after_their_build_leave_what_is_in_force(site: Site) -> None:
    await site.start()

    for number in range(ROUNDS):
        await site.retire(await site.candidate(entry_point=f"revision {number}"))

    site.assert_only("one")


async def test_what_two_revisions_share_stays_until_both_are_gone(site: Site) -> None:
    first = await site.start()
    tree = folder_of(site.prepare, site.instance) / site.trees[0]
    (tree / "kept").write_text("by the server")
    failed = await site.candidate()
    assert failed.argv == first.argv

    await site.retire(failed)
    await site.retire(failed)
    site.assert_only("one")
    second = await site.candidate()
    await site.retire(first)
    site.assert_only("one")
    assert (tree / "kept").exists(), "a tree in use is left as it is"

    third = await site.candidate(entry_point="two")
    assert third.spec is not None
    site.instance = evolve(site.instance, spec=third.spec)
    await site.retire(second)
    site.assert_only("two")


async def test_a_candidate_that_cannot_be_built_holds_nothing(site: Site) -> None:
    await site.start()
    site.bakery.problem = BuildFailed("no hay")

    for name in ("two", "three", "one"):
        with pytest.raises(BuildFailed):
            await site.candidate(entry_point=name)
        site.assert_only("one")


async def test_a_candidate_that_cannot_be_put_in_place_leaves_nothing(site: Site) -> None:
    await site.start()
    site.bakery.damages = True

    with pytest.raises(BuildFailed):
        await site.candidate(entry_point="two")

    site.assert_only("one")


async def test_a_candidate_that_is_interrupted_leaves_nothing(site: Site) -> None:
    await site.start()
    site.bakery.open, site.bakery.reached = trio.Event(), trio.Event()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: site.candidate(entry_point="two"))
        await site.bakery.reached.wait()
        nursery.cancel_scope.cancel()

    site.assert_only("one")


async def test_a_start_that_fails_keeps_what_there_was(site: Site) -> None:
    await site.start()
    site.bakery.problem = BuildFailed("the registry is away")

    for name in ("two", "three"):
        stopped = evolve(site.revision(entry_point=name), state=State.PREPARING)
        with pytest.raises(BuildFailed):
            await site.prepare.prepare(stopped, Quiet())
    with pytest.raises(BuildFailed):
        await site.prepare.prepare(evolve(site.instance, state=State.PREPARING), Quiet())

    site.assert_only("one")
    site.bakery.problem = None
    await site.start(entry_point="two")
    site.assert_only("two")


@pytest.mark.parametrize("then", [direct(), command("cow")])
async def test_a_start_of_what_needs_no_building_drops_what_was_built(site: Site, then: Instance) -> None:
    await site.start()
    site.instance = evolve(site.instance, spec=then.spec)

    await site.start()

    assert site.held == set()
    assert len(site.trees) == (1 if then.spec.source is not None else 0)


async def test_a_take_over_by_what_runs_as_it_is_written_drops_what_was_built(site: Site) -> None:
    before = await site.start()
    launch = Command(command="cow", args=(), cwd=None)

    await site.candidate(source_type=SourceType.MCP_CONFIG, command=launch)
    site.instance = evolve(site.instance, spec=command("cow").spec)
    await site.retire(before)

    site.assert_only()


async def test_what_is_built_while_its_own_earlier_revision_goes_is_held(site: Site) -> None:
    first = await site.start()
    second = await site.candidate(entry_point="two")
    assert second.spec is not None
    site.instance = evolve(site.instance, spec=second.spec)
    site.bakery.open, site.bakery.reached = trio.Event(), trio.Event()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: site.candidate(entry_point="one"))
        await site.bakery.reached.wait()
        await site.retire(first)
        assert key_for(site.revision(entry_point="one")) in site.held
        site.bakery.open.set()

    site.assert_only("one", "two")


async def test_a_tree_that_cannot_be_removed_is_told_and_goes_at_the_next_start(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    await site.start()
    candidate = await site.candidate(entry_point="two")
    folder = folder_of(site.prepare, site.instance)
    away = folder.with_name("away")
    folder.rename(away)
    folder.write_text("in the way")

    with caplog.at_level(logging.WARNING):
        await site.retire(candidate)

    assert "could not be removed" in caplog.text
    folder.unlink()
    away.rename(folder)
    assert len(site.trees) == 2
    await site.start()
    site.assert_only("one")


async def test_nothing_is_kept_of_an_instance_that_is_removed(site: Site) -> None:
    launch = await site.start()

    await site.prepare.discard(site.instance)
    await site.retire(launch)

    assert site.held == set()
    assert not folder_of(site.prepare, site.instance).exists()
    assert site.prepare._leases == {}
