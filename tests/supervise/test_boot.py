"""A fleet that boots is in nobody's way: who somebody waits for goes past it, and builds hold up no start."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import trio
from attrs import define, evolve, field

from controlplane.core.lifecycle import State
from controlplane.core.queueing import Priority
from controlplane.model import Instance, SourceType, Spec
from tests.supervise.conftest import open_yard
from tests.supervise.test_runner import tool, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from controlplane.supervise.launch import Launch, Prepare, Progress
    from controlplane.supervise.runner import Runner
    from tests.supervise.conftest import Yard

BOOTING = 40
SLOW_S = 1.0
SLOW = b"import time\ntime.sleep(%g)\n" % SLOW_S
"""In front of a server: it answers its handshake only then."""


@define
class Works:
    """Holds up those who have something to build, and remembers who built at the same time."""

    inner: Prepare
    go_on: trio.Event = field(factory=trio.Event)
    building: list[str] = field(factory=list)

    async def prepare(self, instance: Instance, progress: Progress) -> Launch:
        if instance.name.startswith("heavy"):
            await progress.begin_work()
            await progress.begin_work()
            self.building.append(instance.name)
            await self.go_on.wait()
        return await self.inner.prepare(instance, progress)

    async def retire(self, instance: Instance, launch: Launch) -> None:
        await self.inner.retire(instance, launch)

    async def discard(self, instance: Instance) -> None:
        await self.inner.discard(instance)


@pytest.fixture
async def narrow(yard_folder: Path, toolchain: Any) -> AsyncIterator[Yard]:
    with trio.fail_after(120):
        async with open_yard(yard_folder, toolchain, start_concurrency=2) as yard:
            yield yard


def boot(yard: Yard, source: bytes, name: str = "cow", priority: Priority = Priority.BOOT) -> Runner:
    now = datetime.now(UTC)
    spec = Spec(source_type=SourceType.DIRECT, language="python", entry_point="server.py", source=source)
    instance = Instance(id=uuid4(), owner="ada", name=name, spec=spec, created_at=now, updated_at=now)
    return yard.supervisor.adopt(instance, priority)


def up(runners: list[Runner]) -> int:
    return sum(runner.serving for runner in runners)


async def test_a_boot_of_forty_slow_instances_holds_up_neither_a_deployed_nor_a_called_one(
    narrow: Yard, echo: bytes
) -> None:
    fleet = [boot(narrow, SLOW + echo, f"cow{number}") for number in range(BOOTING)]
    await wait_until(lambda: sum(runner.state is State.STARTING for runner in fleet) == 2)
    waiting = [runner for runner in fleet if runner.state is State.PENDING]
    assert f"waiting for a start slot ({BOOTING - 3} before it)" in [runner.phase for runner in waiting]

    deployed = narrow.deploy(echo, name="calf")
    await deployed.wait_settled(20)
    assert deployed.serving
    assert up(fleet) <= 4

    called = next(runner for runner in fleet if runner.state is State.PENDING)
    assert await tool(called, "echo", text="moo") == "moo"
    assert up(fleet) <= 8

    await wait_until(lambda: up(fleet) == BOOTING, timeout_s=60)


async def test_an_owners_fleet_boots_in_turn_with_anothers(narrow: Yard, echo: bytes) -> None:
    fleet = [boot(narrow, SLOW + echo, f"cow{number}") for number in range(12)]
    late = boot(narrow, echo, "goat")
    late.instance = evolve(late.instance, owner="bob")

    await wait_until(lambda: late.serving)

    assert up(fleet) <= 6


async def test_long_builds_hold_up_no_start_and_are_bounded_themselves(
    yard_folder: Path, toolchain: Any, echo: bytes
) -> None:
    with trio.fail_after(60):
        async with open_yard(yard_folder, toolchain, start_concurrency=2) as yard:
            works = Works(yard.around.prepare)
            yard.supervisor.around = yard.around = evolve(yard.around, prepare=works)
            heavy = [boot(yard, echo, f"heavy{number}") for number in range(6)]
            await wait_until(lambda: "waiting for a build slot (3 before it)" in [runner.phase for runner in heavy])
            assert len(works.building) == 2
            assert {runner.state for runner in heavy} == {State.PREPARING}

            light = [boot(yard, echo, f"calf{number}") for number in range(4)]
            await wait_until(lambda: up(light) == 4)

            works.go_on.set()
            await wait_until(lambda: up(heavy) == 6)
            assert yard.around.scheduler.waiting == 0


async def test_the_wait_for_a_build_slot_is_no_part_of_the_time_for_a_build(
    yard_folder: Path, toolchain: Any, echo: bytes
) -> None:
    with trio.fail_after(60):
        async with open_yard(yard_folder, toolchain, start_concurrency=1, build_timeout_s=1.0) as yard:
            works = Works(yard.around.prepare)
            yard.supervisor.around = yard.around = evolve(yard.around, prepare=works)
            late = [boot(yard, echo, f"heavy{number}", Priority.RESTART) for number in range(3)]
            await wait_until(lambda: len(works.building) == 3)  # a second each, one after the other
            works.go_on.set()
            await wait_until(lambda: up(late) == 1)
            assert [runner.state for runner in late].count(State.FAILED) == 2
            failures = [runner.instance.last_error for runner in late if not runner.serving]
            assert {failure.code for failure in failures if failure is not None} == {"build_failed"}


async def test_a_boot_that_waits_goes_at_once_when_it_is_called(narrow: Yard, echo: bytes) -> None:
    slots = [narrow.around.scheduler.slot("bob", Priority.BOOT) for _ in range(2)]
    for slot in slots:
        await slot.acquire()
    others = [boot(narrow, echo, f"calf{number}") for number in range(3)]
    called = boot(narrow, echo)

    assert await tool(called, "echo", text="moo") == "moo"

    assert up(others) == 0
    for slot in slots:
        slot.release()
    await wait_until(lambda: up(others) == 3)
