"""The use case of a deploy, on a real database and cache; only the processes are left out."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from attrs import asdict, define, evolve, field

from controlplane.core.lifecycle import Desired
from controlplane.core.quotas import NO_OVERRIDES, Overrides
from controlplane.errors import Conflict, InvalidRequest, QuotaExceeded, RateLimited, StorageUnavailable
from controlplane.spawn.cgroups import GroupEvents, GroupLimits
from controlplane.spawn.confinement import Confinement, Group
from controlplane.supervise.launch import Launch
from tests.deploy.farm import BOB, WAIT_S, Farm, open_farm
from tests.services import Postgres, database_url, own_postgres, postgres_server, redis_url, valkey_server

if TYPE_CHECKING:
    from controlplane.store.postgres import PostgresStore
    from controlplane.supervise.runner import Runner

__all__ = ["database_url", "own_postgres", "postgres_server", "redis_url", "valkey_server"]


@pytest.fixture
async def farm(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Farm]:
    async for opened in open_farm(database_url, redis_url, tmp_path):
        yield opened


# -- deploys


async def test_a_deploy_is_written_before_it_is_started_and_told(farm: Farm) -> None:
    runner = await farm.deploy("My_Cow", environment_vars={"TOKEN": "planted-secret"}, labels={"team": "dairy"})

    kept = (await farm.kept())["my-cow"]
    assert kept.id == runner.instance.id
    assert (kept.owner, kept.desired, dict(kept.labels)) == ("ada", Desired.RUNNING, {"team": "dairy"})
    assert kept.spec == runner.instance.spec
    assert kept.spec.env == {"TOKEN": "planted-secret"}
    told = farm.events[0]
    assert (told.type, told.instance_id, told.owner) == ("deployed", kept.id, "ada")
    assert told.data == {
        "name": "my-cow",
        "source_type": "mcp_config",
        "language": "binary",
        "revision": 1,
        "labels": {"team": "dairy"},
        "limits": asdict(kept.spec.limits),
        "created_at": kept.created_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    assert [event.type for event in farm.events].count("deployed") == 1
    assert "planted-secret" not in repr(farm.events)


async def test_a_wrong_deploy_leaves_nothing(farm: Farm) -> None:
    with pytest.raises(InvalidRequest):
        await farm.deploy("cow", isolation="namespaced", key="k")

    assert (await farm.kept(), farm.runners) == ({}, set())
    assert (await farm.deploy("cow", key="k")).instance.name == "cow", "the key was not used up"


async def test_a_name_that_is_taken_is_a_conflict_for_its_owner_alone(farm: Farm) -> None:
    await farm.deploy("cow")

    with pytest.raises(Conflict, match="cow"):
        await farm.deploy("COW")

    assert (await farm.deploy("cow", BOB)).instance.owner == "bob"
    assert len(farm.deployer.supervisor.runners()) == 2


async def test_the_quota_holds_also_for_deploys_at_the_same_time(farm: Farm) -> None:
    outcomes: list[object] = []

    async def one(number: int) -> None:
        try:
            outcomes.append(await farm.deploy(f"cow{number}"))
        except QuotaExceeded as refused:
            outcomes.append(refused)

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(one, number)

    assert sum(isinstance(outcome, QuotaExceeded) for outcome in outcomes) == 3
    assert len(await farm.kept()) == len(farm.runners) == 3


async def test_a_ceiling_that_was_lowered_holds_from_the_next_revision_on(farm: Farm) -> None:
    cow = await farm.deploy("cow", limits={"memory_mb": 512, "processes": 8})
    said = {"ada": Overrides(instance_memory_mb=128), "bob": NO_OVERRIDES}
    farm.deployer.supervisor.around.accounts.overrides = said.__getitem__

    assert cow.instance.spec.limits.memory_mb == 512
    await farm.patch(cow, labels={"a": "b"})
    assert cow.instance.spec.limits.memory_mb == 512
    await farm.patch(cow, limits={"processes": 9})
    assert (cow.instance.spec.limits.memory_mb, cow.instance.spec.limits.processes) == (128, 9)
    with pytest.raises(InvalidRequest):
        await farm.patch(cow, limits={"memory_mb": 129})
    back = await farm.rollback(cow, 1)
    assert (back.spec.limits.memory_mb, back.spec.limits.processes) == (128, 8)
    assert (await farm.deploy("calf")).instance.spec.limits.memory_mb == 128
    assert (await farm.deploy("cow", BOB)).instance.spec.limits.memory_mb == 1024


async def test_the_memory_of_all_that_runs_is_bounded_for_deploys_patches_and_starts(farm: Farm) -> None:
    farm.deployer.supervisor.around.accounts.overrides = {"ada": Overrides(memory_mb=1000)}.__getitem__
    cow = await farm.deploy("cow", limits={"memory_mb": 600})
    with pytest.raises(QuotaExceeded) as refused:
        await farm.deploy("calf", limits={"memory_mb": 500})
    assert refused.value.evidence == {"quota": "memory_mb", "used": 600, "limit": 1000, "wanted": 500}
    with pytest.raises(QuotaExceeded):
        await farm.patch(cow, limits={"memory_mb": 1001})
    with pytest.raises(QuotaExceeded):
        await farm.redeploy(cow, limits={"memory_mb": 1001})
    assert cow.instance.spec.revision == 1

    await farm.deployer.supervisor.stop(cow)
    await farm.deploy("calf", limits={"memory_mb": 500})
    with pytest.raises(QuotaExceeded):
        await farm.deployer.supervisor.start(cow)
    assert cow.instance.desired is Desired.STOPPED


@define
class Kernel:
    """Control groups as a kernel has them that refuses less than is in use."""

    limits: dict[str, GroupLimits] = field(factory=dict)
    in_use_bytes: int = 0

    def events(self, name: str) -> GroupEvents:
        return GroupEvents()

    def cpu_count(self, name: str) -> None:
        return None

    def make(self, name: str, limits: GroupLimits) -> None:
        if limits.memory_bytes is not None and limits.memory_bytes < self.in_use_bytes:
            raise OSError(errno.EBUSY, "Device or resource busy")
        self.limits[name] = limits


async def test_less_memory_counts_for_the_quota_only_once_the_kernel_holds_it(farm: Farm) -> None:
    supervisor, kernel = farm.deployer.supervisor, Kernel()
    supervisor.around = evolve(supervisor.around, groups=kernel)
    supervisor.around.accounts.overrides = {"ada": Overrides(memory_mb=1000)}.__getitem__
    cow = await farm.deploy("cow", limits={"memory_mb": 900, "processes": 8})
    confinement = Confinement(group=Group("cow.1", 900 << 20, 100, 8))
    cow.launch = before = Launch(
        argv=("cow",),
        env={},
        cwd="/",
        uid=None,
        rlimits={},
        private_tmp=None,
        isolation="process",
        confinement=confinement,
    )

    kernel.in_use_bytes = 500 << 20
    with pytest.raises(Conflict, match="more than 16 MiB"):
        await farm.patch(cow, limits={"memory_mb": 16})
    assert (cow.instance.spec.limits.memory_mb, cow.launch) == (900, before)
    with pytest.raises(QuotaExceeded):
        await farm.deploy("calf", limits={"memory_mb": 500})

    kernel.in_use_bytes = 8 << 20
    await farm.patch(cow, limits={"memory_mb": 16})
    assert kernel.limits["cow.1"].memory_bytes == 16 << 20
    await farm.deploy("calf", limits={"memory_mb": 500})

    with pytest.raises(QuotaExceeded):
        await farm.patch(cow, limits={"memory_mb": 600})
    assert kernel.limits["cow.1"].memory_bytes == 16 << 20, "more is held only once it is granted"
    await farm.patch(cow, limits={"memory_mb": 400, "processes": 9})
    assert kernel.limits["cow.1"] == GroupLimits(400 << 20, cow.instance.spec.limits.cpu_percent, 9)


async def test_too_many_deploys_in_a_minute_are_refused_with_the_time_to_wait(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    async for farm in open_farm(database_url, redis_url, tmp_path, deploys_per_minute=2):
        await farm.deploy("one")
        await farm.deploy("two")

        with pytest.raises(RateLimited) as refused:
            await farm.deploy("three")

        assert refused.value.retry_after_s == 30
        assert farm.runners == {"one", "two"}
        assert (await farm.deploy("one", BOB)).instance.owner == "bob"


@pytest.mark.parametrize("cwd", ["/no/such/folder", "/etc/passwd", "/" + "n" * 300, "/proc/self/root/nope"])
async def test_a_working_folder_that_is_not_there_is_refused(farm: Farm, cwd: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await farm.deploy("cow", mcp_config={"command": "cow", "cwd": cwd})

    assert [error.pointer for error in refused.value.errors] == ["/mcp_config/cwd"]


@pytest.mark.parametrize("cwd", ["/usr", "/tmp/made/later", "relative"])
async def test_a_working_folder_that_is_there_or_is_made_is_accepted(farm: Farm, cwd: str) -> None:
    assert (await farm.deploy("cow", mcp_config={"command": "cow", "cwd": cwd})).instance.name == "cow"


# -- the same deploy again


async def test_the_same_key_and_body_give_the_first_instance_again(farm: Farm) -> None:
    first = await farm.deploy("cow", key="k")

    assert await farm.deploy("cow", key="k") is first
    assert len(await farm.kept()) == 1


async def test_the_same_key_with_another_body_is_a_conflict(farm: Farm) -> None:
    await farm.deploy("cow", key="k")

    with pytest.raises(Conflict, match="another body"):
        await farm.deploy("goat", key="k")

    assert farm.runners == {"cow"}


async def test_a_key_is_its_owners_own(farm: Farm) -> None:
    ada = await farm.deploy("cow", key="k")

    assert (await farm.deploy("cow", BOB, key="k")).instance.id != ada.instance.id


async def test_a_key_of_an_instance_that_was_deleted_says_so(farm: Farm) -> None:
    runner = await farm.deploy("cow", key="k")
    await farm.deployer.supervisor.remove(runner)
    assert await runner.wait_gone(WAIT_S)

    with pytest.raises(Conflict, match="deleted since"):
        await farm.deploy("cow", key="k")


@define(eq=False)
class SlowToSay:
    """A store whose answer to a deploy is on its way for a while: it is committed, and nobody knows yet."""

    store: PostgresStore
    committed: trio.Event = field(factory=trio.Event)
    said: trio.Event = field(factory=trio.Event)

    async def add_instance(self, *args: Any, **options: Any) -> None:
        await self.store.add_instance(*args, **options)
        self.committed.set()
        await self.said.wait()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


async def test_the_same_deploy_many_times_at_once_is_one_instance(farm: Farm) -> None:
    """A client that retries too early: every answer is the same, none a conflict."""
    store = farm.deployer.store = SlowToSay(farm.store)  # type: ignore[assignment]
    runners: list[Runner] = []

    async def one() -> None:
        runners.append(await farm.deploy("cow", key="k"))

    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            await store.committed.wait()
            for _ in range(5):
                nursery.start_soon(one)
            while await farm.store.idempotent("ada", "k") is None:
                pass
            await trio.testing.wait_all_tasks_blocked(0.05)
            store.said.set()

    assert len(runners) == 6
    assert len(set(map(id, runners))) == 1
    assert len(await farm.kept()) == 1


async def test_a_caller_that_leaves_leaves_no_instance_that_nobody_runs(farm: Farm) -> None:
    store = farm.deployer.store = SlowToSay(farm.store)  # type: ignore[assignment]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(farm.deploy, "cow")
        await store.committed.wait()
        nursery.cancel_scope.cancel()
        store.said.set()

    assert set(await farm.kept()) == farm.runners == {"cow"}


async def test_without_a_database_nothing_is_promised(own_postgres: Postgres, redis_url: str, tmp_path: Path) -> None:
    url = own_postgres.url(own_postgres.new_database())
    async for farm in open_farm(url, redis_url, tmp_path):
        own_postgres.kill()

        with pytest.raises(StorageUnavailable):
            await farm.deploy("cow")

        assert farm.runners == set()
        assert [event for event in farm.events if event.type == "deployed"] == []


# -- patches


def changes(farm: Farm) -> list[Mapping[str, Any]]:
    return [event.data for event in farm.events if event.type == "changed"]


async def test_a_patch_is_a_new_revision_that_is_kept(farm: Farm) -> None:
    runner = await farm.deploy("cow", labels={"a": "1"})

    notes = await farm.patch(runner, limits={"memory_mb": 64}, labels={"b": "2"})

    kept = (await farm.kept())["cow"]
    assert (kept.spec.revision, kept.spec.limits.memory_mb, dict(kept.labels)) == (2, 64, {"b": "2"})
    assert kept.spec == runner.instance.spec
    assert dict(runner.instance.labels) == {"b": "2"}
    assert len(notes) == 1
    (told,) = changes(farm)
    assert (told["name"], told["revision"], told["limits"]["memory_mb"], told["labels"]) == ("cow", 2, 64, {"b": "2"})


async def test_a_patch_after_a_failed_candidate_is_kept_under_a_number_of_its_own(farm: Farm) -> None:
    runner = await farm.deploy("cow")
    candidate = evolve(runner.instance, spec=evolve(runner.instance.spec, cause="redeploy", entry_point="broken.py"))
    assert await farm.store.add_revision(candidate) == 2

    await farm.patch(runner, limits={"memory_mb": 64})

    kept = (await farm.kept())["cow"].spec
    assert (kept.revision, kept.cause, kept.entry_point, kept.limits.memory_mb) == (3, "patch", None, 64)
    assert runner.instance.spec == kept


async def test_a_patch_of_labels_is_no_new_revision(farm: Farm) -> None:
    runner = await farm.deploy("cow", labels={"a": "1"})

    assert await farm.patch(runner, labels={}) == ()
    assert await farm.patch(runner, labels={}) == ()

    assert [(told["revision"], told["labels"]) for told in changes(farm)] == [(1, {})], (
        "what changes nothing is not told"
    )
    assert ((await farm.kept())["cow"].spec.revision, dict(runner.instance.labels)) == (1, {})


async def test_a_wrong_patch_changes_nothing(farm: Farm) -> None:
    runner = await farm.deploy("cow")
    before = runner.instance.spec

    with pytest.raises(InvalidRequest):
        await farm.patch(runner, limits={"memory_mb": 10**6}, labels={"b": "2"})

    assert runner.instance.spec == before == (await farm.kept())["cow"].spec


async def test_patches_at_the_same_time_all_take_effect_and_all_are_kept(farm: Farm) -> None:
    runner = await farm.deploy("cow")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: farm.patch(runner, limits={"memory_mb": 64}))
        nursery.start_soon(lambda: farm.patch(runner, limits={"processes": 7}))
        nursery.start_soon(lambda: farm.patch(runner, restart={"mode": "never"}))

    kept = (await farm.kept())["cow"].spec
    assert (kept.revision, kept.limits.memory_mb, kept.limits.processes, kept.restart.mode.value) == (4, 64, 7, "never")
    assert runner.instance.spec == kept


async def test_a_patch_does_not_undo_what_happens_meanwhile(farm: Farm) -> None:
    """Else a stop that comes while a patch is being written would be forgotten."""
    runner = await farm.deploy("cow")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: farm.patch(runner, limits={"memory_mb": 64}))
        for _ in range(3):
            await trio.lowlevel.checkpoint()  # the patch has read what it changes
        runner.instance = evolve(runner.instance, restarts=7, incarnation=8)
        await farm.deployer.supervisor.stop(runner)

    assert (runner.instance.restarts, runner.instance.incarnation) == (7, 8)
    assert runner.instance.desired is Desired.STOPPED
    assert runner.instance.spec.limits.memory_mb == 64
    assert (await farm.kept())["cow"].desired is Desired.STOPPED
