"""Wishes: in one order in the database and in memory, and carried out once they are written."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import pytest
import trio
import trio.testing
from attrs import define, evolve, field

from controlplane.core.lifecycle import Desired, State
from controlplane.errors import Conflict, NotFound, StorageUnavailable
from controlplane.model import Principal, Role
from tests.supervise.conftest import WishBook

if TYPE_CHECKING:
    from controlplane.model import Instance
    from controlplane.supervise.runner import Runner
    from tests.supervise.conftest import Yard


@define
class Database(WishBook):
    """Holds what was written; says so when `answer` is set, or fails at the last moment."""

    rows: dict[UUID, Instance] = field(factory=dict)
    writes: list[Desired] = field(factory=list)
    answer: trio.Event = field(factory=trio.Event)
    breaks: bool = False

    def __attrs_post_init__(self) -> None:
        self.answer.set()

    async def instances(self) -> list[Instance]:
        await trio.lowlevel.checkpoint()
        return list(self.rows.values())

    async def set_desired(self, instance_id: UUID, desired: Desired, **_: object) -> None:
        self.writes.append(desired)
        self.rows[instance_id] = evolve(self.rows[instance_id], desired=desired)
        await self._say_so()

    async def delete_instance(self, instance_id: UUID, **_: object) -> None:
        self.writes.append(Desired.DELETED)
        self.rows.pop(instance_id, None)
        await self._say_so()

    async def _say_so(self) -> None:
        await self.answer.wait()
        if self.breaks:
            raise StorageUnavailable("the connection broke under the commit")


async def running(yard: Yard, echo: bytes) -> tuple[Runner, Database]:
    runner = await yard.running(echo)
    database = Database(rows={runner.instance.id: runner.instance})
    yard.supervisor.store = database
    return runner, database


async def settled(runner: Runner, state: State) -> None:
    with trio.fail_after(30):
        while runner.state is not state:
            await trio.sleep(0.01)


async def test_a_wish_waits_for_the_one_before_it(yard: Yard, echo: bytes) -> None:
    runner, database = await running(yard, echo)
    database.answer = trio.Event()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(yard.supervisor.stop, runner)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(yard.supervisor.start, runner)
        await trio.testing.wait_all_tasks_blocked()
        assert database.writes == [Desired.STOPPED]
        database.answer.set()

    assert database.writes == [Desired.STOPPED, Desired.RUNNING]
    assert runner.instance.desired is database.rows[runner.instance.id].desired is Desired.RUNNING
    await runner.wait_settled(30)
    assert runner.serving


async def test_two_stops_at_once_are_one_stop_and_one_conflict(yard: Yard, echo: bytes) -> None:
    runner, database = await running(yard, echo)
    conflicts: list[Conflict] = []

    async def stop() -> None:
        try:
            await yard.supervisor.stop(runner)
        except Conflict as conflict:
            conflicts.append(conflict)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop)
        nursery.start_soon(stop)

    assert database.writes == [Desired.STOPPED]
    assert len(conflicts) == 1


async def test_what_was_written_is_done_though_its_caller_left(yard: Yard, echo: bytes) -> None:
    runner, database = await running(yard, echo)
    database.answer = trio.Event()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(yard.supervisor.stop, runner)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        database.answer.set()

    assert runner.instance.desired is Desired.STOPPED
    await settled(runner, State.STOPPED)


async def test_a_stop_that_was_refused_but_written_is_followed(yard: Yard, echo: bytes) -> None:
    runner, database = await running(yard, echo)
    database.breaks = True
    with pytest.raises(StorageUnavailable):
        await yard.supervisor.stop(runner)
    assert runner.instance.desired is Desired.RUNNING

    await yard.supervisor.follow(runner)

    await settled(runner, State.STOPPED)
    await yard.supervisor.follow(runner)
    assert runner.state is State.STOPPED


async def test_a_removal_that_was_refused_but_written_is_followed(yard: Yard, echo: bytes) -> None:
    runner, database = await running(yard, echo)
    database.breaks = True
    with pytest.raises(StorageUnavailable):
        await yard.supervisor.remove(runner)

    await yard.supervisor.follow(runner)

    assert await runner.wait_gone(30)
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(NotFound):
        yard.supervisor.get(runner.instance.id)


async def test_a_name_that_was_taken_again_is_not_forgotten_with_its_first_owner(yard: Yard, echo: bytes) -> None:
    runner, database = await running(yard, echo)
    database.answer = trio.Event()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(yard.supervisor.remove, runner)
        await trio.testing.wait_all_tasks_blocked()
        second = yard.deploy(echo, name=runner.instance.name)
        database.answer.set()

    ada = Principal(owner=second.instance.owner, role=Role.DEPLOYER, token_id="t")
    assert yard.supervisor.find(ada, second.instance.name) is second
