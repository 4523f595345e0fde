"""Nodes in one process on a real Postgres: who keeps, takes and loses what. Their fences are written down, not enforced."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
import trio
from attrs import define, field

from controlplane.cluster import lease
from controlplane.cluster.asking import Word
from controlplane.cluster.membership import Membership
from controlplane.cluster.roster import Roster
from controlplane.errors import StorageUnavailable
from controlplane.secretbox import SecretBox, SecretUnreadable
from controlplane.spawn.messages import fence_clock
from controlplane.store.postgres import PostgresStore, open_store
from tests.services import *  # noqa: F403 -- fixtures
from tests.store.rows import ADA, SECRET_KEY, instance

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from controlplane.model import Node

LIMIT_S = 40.0


@define(eq=False)
class Way:
    """The way of one node to the database, which can be cut."""

    store: PostgresStore
    is_cut: bool = False
    has_old_key: bool = False

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **options: Any) -> Any:
            await trio.lowlevel.checkpoint()
            if self.is_cut:
                raise StorageUnavailable("cut off")
            if self.has_old_key and name == "check_keys":
                raise SecretUnreadable("closed with another key")
            return await getattr(self.store, name)(*args, **options)

        return call


@define(eq=False)
class Asked:
    """Asks the nodes of this test by a call instead of HTTP; one that is `mute` does not answer."""

    everybody: dict[UUID, Machine]

    async def ask(self, nodes: Sequence[Node]) -> list[Word | None]:
        return [await self._ask(self.everybody.get(node.id)) for node in nodes]

    async def _ask(self, machine: Machine | None) -> Word | None:
        if machine is None or machine.is_mute:
            return None
        return Word(can_renew=await machine.membership.can_renew(), runs=machine.membership.runs)


@define(eq=False)
class Machine:
    """A node with what it would run."""

    way: Way
    membership: Membership = field(init=False)
    is_mute: bool = False
    until: float | None = None
    told: list[str] = field(factory=list)
    on_fenced: Callable[[], None] | None = None

    @property
    def may_run(self) -> bool:
        return self.until is not None and fence_clock() < self.until

    def set_fence(self, until: float | None) -> None:
        self.until = until

    async def read_again(self) -> None:
        self.told.append("read again")

    def give_up_all(self) -> None:
        self.told.append("give up all")

    async def let_go_of_all(self) -> None:
        self.told.append("let go of all")

    async def take_up(self) -> None:
        self.told.append("take up")


@define(eq=False)
class Machines:
    store: PostgresStore
    nursery: trio.Nursery
    everybody: dict[UUID, Machine] = field(factory=dict)

    async def up(self, *, is_alone: bool = False) -> Machine:
        node_id = uuid4()
        machine = Machine(Way(self.store))
        machine.membership = Membership(
            machine.way,
            Roster(node_id, is_alone=is_alone),
            machine,
            Asked(self.everybody),
            "1.0",
            f"http://{node_id}",
            _no_archives,
        )
        self.everybody[node_id] = machine
        await self.nursery.start(machine.membership.run)
        await machine.membership.attach(machine)
        return machine

    async def deploy(self, machine: Machine | None, name: str) -> None:
        holder = None if machine is None else machine.membership.roster.node_id
        await self.store.add_instance(instance(name, node_id=holder, epoch=1), quota=100)

    async def holder(self, name: str) -> Machine | None:
        [found] = [one for one in await self.store.instances() if one.name == name]
        return None if found.node_id is None else self.everybody[found.node_id]


async def _no_archives() -> set[str]:
    return set()


@pytest.fixture
async def machines(database_url: str) -> AsyncIterator[Machines]:
    async with _machines(database_url) as opened:
        yield opened


@asynccontextmanager
async def _machines(url: str) -> AsyncIterator[Machines]:
    with trio.fail_after(2 * LIMIT_S):
        async with open_store(url, SecretBox(SECRET_KEY), wait_s=5) as store, trio.open_nursery() as nursery:
            await store.add_user(ADA)
            yield Machines(store, nursery)
            nursery.cancel_scope.cancel()


async def until(holds: Callable[[], Any]) -> None:
    with trio.fail_after(LIMIT_S):
        while not holds():
            await trio.sleep(0.01)


async def until_held_by(machines: Machines, name: str, machine: Machine) -> None:
    with trio.fail_after(LIMIT_S):
        while await machines.holder(name) is not machine:
            await trio.sleep(0.01)


async def test_a_node_that_comes_up_has_what_nobody_holds_and_what_was_its_own(machines: Machines) -> None:
    await machines.deploy(None, "free")
    machine = await machines.up()
    assert await machines.holder("free") is machine
    assert machine.may_run
    assert [node.id for node in machine.membership.roster.nodes.values()] == [machine.membership.roster.node_id]


async def test_a_node_on_its_own_database_has_everything_and_no_fence(machines: Machines) -> None:
    first = await machines.up()
    await machines.deploy(first, "held")
    alone = await machines.up(is_alone=True)
    assert await machines.holder("held") is alone
    assert alone.until is None
    assert alone.membership.runs


async def test_what_a_node_lets_go_of_at_its_end_is_taken_at_once(machines: Machines) -> None:
    first, second = await machines.up(), await machines.up()
    await machines.deploy(first, "memory")
    began = trio.current_time()

    await first.membership.release()
    await until_held_by(machines, "memory", second)

    assert trio.current_time() - began < lease.LEASE_S / 2
    await until(lambda: "read again" in second.told)


async def test_one_that_expects_an_heir_lets_go_of_nothing(machines: Machines) -> None:
    first = await machines.up()
    await machines.deploy(first, "memory")
    first.membership.expect_heir()
    await first.membership.release()
    assert await machines.holder("memory") is first


async def test_one_that_is_cut_off_may_run_nothing_by_the_time_another_takes_what_it_held(machines: Machines) -> None:
    first, second = await machines.up(), await machines.up()
    await until(first.membership.roster.others)
    await machines.deploy(first, "memory")
    first.way.is_cut = True

    await until_held_by(machines, "memory", second)

    assert not first.may_run
    assert "let go of all" in first.told, "in good order, before the spawner has to"
    assert second.may_run
    assert first.membership.lease_left_s == 0.0
    assert 0 < (second.membership.lease_left_s or 0) <= lease.LEASE_S
    first.way.is_cut = False
    await until(lambda: first.told[-1] == "take up")
    assert first.may_run
    assert await machines.holder("memory") is second, "it knows that it has lost it"


async def test_one_that_comes_back_with_a_key_that_was_replaced_meanwhile_runs_nothing(machines: Machines) -> None:
    first, second = await machines.up(), await machines.up()
    await until(first.membership.roster.others)
    await machines.deploy(first, "memory")
    first.way.is_cut = first.way.has_old_key = True
    await until_held_by(machines, "memory", second)
    first.way.is_cut = False
    await until(lambda: first.membership._is_locked_out)

    assert not first.may_run
    assert "take up" not in first.told

    first.way.has_old_key = False
    await until(lambda: first.told[-1] == "take up")
    assert first.may_run


async def test_while_nobody_reaches_the_database_everybody_goes_on_and_nothing_is_taken(machines: Machines) -> None:
    both = first, second = await machines.up(), await machines.up()
    await until(lambda: all(each.membership.roster.others() for each in both))
    await machines.deploy(first, "memory")
    for each in both:
        each.way.is_cut = True

    end = trio.current_time() + 2 * lease.LEASE_S
    while trio.current_time() < end:
        assert all(each.may_run for each in both)
        await trio.sleep(0.05)
    for each in both:
        each.way.is_cut = False
    end = trio.current_time() + 2 * lease.LEASE_S
    while trio.current_time() < end:
        assert all(each.may_run for each in both)
        await trio.sleep(0.05)

    assert await machines.holder("memory") is first
    assert "let go of all" not in [*first.told, *second.told]


async def test_one_that_gets_no_answer_from_another_does_not_go_on(machines: Machines) -> None:
    first, second = await machines.up(), await machines.up()
    await until(first.membership.roster.others)
    second.is_mute = True
    for each in (first, second):
        each.way.is_cut = True
    await until(lambda: not first.may_run)
    assert "let go of all" in first.told


async def test_one_that_goes_on_alone_is_not_taken_from_by_one_that_comes_up_meanwhile(machines: Machines) -> None:
    first = await machines.up()
    await machines.deploy(first, "memory")
    first.way.is_cut = True
    second = await machines.up()

    end = trio.current_time() + 2 * lease.LEASE_S + lease.CLAIM_EVERY_S
    while trio.current_time() < end:
        assert first.may_run, "it knows of nobody who could"
        await trio.sleep(0.05)
    assert await machines.holder("memory") is first

    first.is_mute = True  # now it is dead, for all that anybody can tell
    await until_held_by(machines, "memory", second)
