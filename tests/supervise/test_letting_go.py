"""Instances come from other nodes and go to them: who runs them follows who holds them, and never the other way round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
import trio
import trio.testing
from attrs import define, evolve, field

from controlplane.cluster.roster import HeldElsewhere, Roster
from controlplane.core.lifecycle import Desired
from controlplane.errors import NotFound, StorageUnavailable
from controlplane.model import Principal, Role, User
from controlplane.upkeep import Upkeep
from controlplane.web.auth import TokenTable
from tests.e2e.plane import is_alive
from tests.supervise.conftest import WishBook

if TYPE_CHECKING:
    from controlplane.model import Instance, Token
    from controlplane.supervise.runner import Runner
    from tests.supervise.conftest import Yard

HERE, THERE = UUID(int=1), UUID(int=2)
ADA = Principal(owner="ada", role=Role.DEPLOYER, token_id="t")
BOB = Principal(owner="bob", role=Role.DEPLOYER, token_id="t")


@define
class Database(WishBook):
    """Who holds what, as the rows say."""

    rows: dict[UUID, Instance] = field(factory=dict)
    people: list[User] = field(factory=list)
    is_away: bool = False
    reading: trio.Event = field(factory=trio.Event)
    go_on: trio.Event = field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self.go_on.set()

    async def instances(self) -> list[Instance]:
        if self.is_away:
            raise StorageUnavailable("away")
        found = list(self.rows.values())
        self.reading.set()
        await self.go_on.wait()
        return found

    async def users(self) -> list[User]:
        return self.people

    async def tokens(self) -> list[Token]:
        return []

    def hold(self, instance: Instance, node_id: UUID | None) -> None:
        """Somebody takes it."""
        before = self.rows.get(instance.id, instance)
        self.rows[instance.id] = evolve(before, node_id=node_id, epoch=before.epoch + 1)


@pytest.fixture
def database(yard: Yard) -> Database:
    yard.supervisor.store = made = Database()
    yard.supervisor.roster = Roster(HERE, is_alone=False)
    return made


@pytest.fixture
def upkeep(yard: Yard, database: Database) -> Upkeep:
    nothing: Any = None
    return Upkeep(yard.around.config, database, nothing, yard.supervisor)


async def held_here(yard: Yard, database: Database, echo: bytes, name: str) -> Runner:
    runner = await yard.running(echo, name=name)
    runner.instance = evolve(runner.instance, node_id=HERE, epoch=1)
    database.rows[runner.instance.id] = runner.instance
    return runner


async def test_an_instance_that_another_node_took_ends_here_and_is_known_to_be_there(
    yard: Yard, database: Database, upkeep: Upkeep, echo: bytes
) -> None:
    runner, kept = [await held_here(yard, database, echo, name) for name in ("memory", "kept")]
    pid, instance = runner.pid, runner.instance
    database.hold(instance, THERE)

    await upkeep.read_again()

    assert not is_alive(pid)
    assert kept.serving
    with pytest.raises(HeldElsewhere) as held:
        yard.supervisor.find(ADA, "memory")
    assert (held.value.elsewhere.id, held.value.elsewhere.node_id) == (instance.id, THERE)
    with pytest.raises(NotFound):
        yard.supervisor.find(BOB, str(instance.id))
    assert instance.id not in yard.supervisor.ids()
    assert instance.id not in database.desired, "nothing is written about it"


async def test_an_instance_that_this_node_took_is_started(
    yard: Yard, database: Database, upkeep: Upkeep, echo: bytes
) -> None:
    runner = await held_here(yard, database, echo, "memory")
    database.hold(runner.instance, THERE)
    await upkeep.read_again()
    database.hold(runner.instance, HERE)

    await upkeep.read_again()

    again = yard.supervisor.find(ADA, "memory")
    assert again is not runner
    assert again.instance.epoch == 3
    assert await again.wait_serving(30)


async def test_one_that_is_to_stay_stopped_is_taken_and_not_started(
    yard: Yard, database: Database, upkeep: Upkeep, echo: bytes
) -> None:
    runner = await held_here(yard, database, echo, "memory")
    stopped = evolve(runner.instance, id=uuid4(), name="stopped", desired=Desired.STOPPED)
    database.hold(stopped, HERE)
    await upkeep.read_again()
    taken = yard.supervisor.find(ADA, "stopped")
    await taken.wait_settled(10)
    assert taken.pid is None


async def test_a_reading_that_is_older_than_an_adoption_takes_nothing_away(
    yard: Yard, database: Database, upkeep: Upkeep, echo: bytes
) -> None:
    runner = await held_here(yard, database, echo, "memory")
    database.rows[runner.instance.id] = evolve(runner.instance, node_id=THERE, epoch=runner.instance.epoch)
    await upkeep.read_again()
    assert runner.serving


async def test_without_a_lease_everything_ends_and_what_is_still_held_starts_again_with_it(
    yard: Yard, database: Database, upkeep: Upkeep, echo: bytes
) -> None:
    lost, kept = [await held_here(yard, database, echo, name) for name in ("lost", "kept")]
    pids = (lost.pid, kept.pid)

    await upkeep.let_go_of_all()

    assert not any(is_alive(pid) for pid in pids)
    assert yard.supervisor.ids() == set()
    with pytest.raises(HeldElsewhere):
        yard.supervisor.find(ADA, "kept")
    await upkeep.read_again()
    assert yard.supervisor.ids() == set(), "not before the lease stands again"

    database.hold(lost.instance, THERE)
    database.hold(kept.instance, HERE)
    await upkeep.take_up()

    assert await yard.supervisor.find(ADA, "kept").wait_serving(30)
    with pytest.raises(HeldElsewhere):
        yard.supervisor.find(ADA, "lost")


async def test_how_an_instance_ends_that_is_let_go_of_is_told_to_nobody(
    yard: Yard, database: Database, upkeep: Upkeep, echo: bytes
) -> None:
    runner = await held_here(yard, database, echo, "memory")
    observed = len(yard.journal.observed)
    database.hold(runner.instance, THERE)
    with yard.hub.subscribe(owner="ada") as stream, trio.fail_after(10):
        await upkeep.read_again()
        yard.hub.publish_nowait("the end", instance_id=None, owner="ada", data={})
        told = await stream.take()
        while b"the end" not in told:
            told += await stream.take()
    assert b"event: status" not in told
    assert b"post_mortem" not in told
    assert len(yard.journal.observed) == observed
    assert "this control plane lets go of the instance; another one may run it" in yard.journal.messages("system")


async def test_what_was_read_before_the_lease_was_lost_starts_nothing_after(
    yard: Yard, database: Database, upkeep: Upkeep, echo: bytes
) -> None:
    runner = await held_here(yard, database, echo, "memory")
    other = evolve(runner.instance, id=uuid4(), name="other", epoch=2)
    database.rows[other.id] = other
    database.reading, database.go_on = trio.Event(), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(upkeep.read_again)
        await database.reading.wait()
        nursery.start_soon(upkeep.let_go_of_all)
        await trio.testing.wait_all_tasks_blocked()
        database.go_on.set()
    assert yard.supervisor.ids() == set()


async def test_a_lease_that_stands_again_while_nothing_can_be_read_is_no_failure(
    yard: Yard, database: Database, upkeep: Upkeep, echo: bytes
) -> None:
    await held_here(yard, database, echo, "memory")
    await upkeep.let_go_of_all()
    database.is_away = True
    await upkeep.take_up()
    database.is_away = False
    await upkeep._follow_changes()
    assert await yard.supervisor.find(ADA, "memory").wait_serving(30)


async def test_of_a_user_who_was_removed_elsewhere_nothing_is_left_to_whoever_gets_the_name(
    yard: Yard, database: Database
) -> None:
    hub, accounts = yard.around.hub, yard.around.accounts
    upkeep = Upkeep(yard.around.config, database, TokenTable(), yard.supervisor)
    database.people = [User(name="ada", role=Role.DEPLOYER), User(name="bob", role=Role.DEPLOYER)]
    await upkeep._reload_tokens()
    for name in ("ada", "bob"):
        hub.publish_nowait("status", instance_id=uuid4(), owner=name, data={"name": f"{name}s"})
        accounts.current(name).calls += 1
    of_ada, of_bob = (hub.subscribe(owner=name) for name in ("ada", "bob"))

    database.people = database.people[1:]
    await upkeep._reload_tokens()

    assert (of_ada.closed, of_bob.closed) == (True, False)
    with hub.subscribe(owner="ada", last_event_id=f"{hub.epoch}-0") as heir:
        assert b"adas" not in await heir.take()
    assert (accounts.current("ada").calls, accounts.current("bob").calls) == (0, 1)
    of_bob.close()
