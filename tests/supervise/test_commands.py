"""Commands that meet on one instance: one order of events, and nothing brings a deleted instance back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from attrs import evolve

from controlplane.core.lifecycle import Desired, State
from controlplane.core.queueing import Priority
from controlplane.core.restart import RestartPolicy
from controlplane.errors import Busy, InstanceCrashed, NotFound
from tests.supervise.conftest import open_yard
from tests.supervise.test_runner import wait_until

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any
    from uuid import UUID

    from tests.supervise.conftest import Yard


class SlowBook:
    """A store whose writes wait until they are let through."""

    def __init__(self) -> None:
        self.open = trio.Event()
        self.waiting = trio.Event()

    async def set_desired(self, instance_id: UUID, desired: Desired, **_: object) -> None:
        self.waiting.set()
        await self.open.wait()

    async def delete_instance(self, instance_id: UUID, **_: object) -> None:
        await self.open.wait()


async def test_a_delete_that_meets_a_restart_leaves_nothing(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo)
    yard.supervisor.store = book = SlowBook()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(yard.supervisor.restart, runner)
        await book.waiting.wait()
        nursery.start_soon(yard.supervisor.remove, runner)
        await trio.testing.wait_all_tasks_blocked()
        book.open.set()

    assert await runner.wait_gone(20)
    assert runner.state is State.STOPPED
    with pytest.raises(NotFound):
        yard.supervisor.get(runner.instance.id)


async def test_two_deletes_remove_once(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo)

    await yard.supervisor.remove(runner)

    with pytest.raises(NotFound):
        await yard.supervisor.remove(runner)
    assert await runner.wait_gone(20)


async def test_a_changed_spec_undoes_no_stop_that_came_meanwhile(yard: Yard, echo: bytes) -> None:
    runner = await yard.running(echo)
    before = runner.instance

    await yard.supervisor.stop(runner)
    runner.replace(evolve(before, labels={"team": "search"}))
    await runner.wait_settled(20)

    assert runner.state is State.STOPPED
    assert runner.instance.desired is Desired.STOPPED
    assert runner.instance.labels == {"team": "search"}


async def test_a_restart_that_waits_for_its_turn_says_so(yard_folder: Path, toolchain: Any, echo: bytes) -> None:
    async with open_yard(yard_folder, toolchain, start_concurrency=1) as yard:
        with trio.fail_after(60):
            runner = await yard.running(echo, restart=RestartPolicy(base_delay_s=0.01))
            slot = yard.around.scheduler.slot("bob", Priority.RESTART)
            await slot.acquire()
            with pytest.raises(InstanceCrashed):
                await runner.call("tools/call", b'{"name":"exit","arguments":{}}')

            await wait_until(lambda: runner.phase.startswith("waiting for a start slot: "))
            assert runner.state is State.BACKOFF
            slot.release()
            await wait_until(lambda: runner.serving)


async def test_calls_that_wait_for_a_start_count_against_the_bound(yard_folder: Path, toolchain: Any) -> None:
    async with open_yard(yard_folder, toolchain, calls_in_flight=2, start_timeout_s=20) as yard:
        runner = yard.deploy(b"import time\nwhile True: time.sleep(60)")

        async def call() -> None:
            await runner.call("ping", None, timeout_s=30)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(Busy):
                await runner.call("ping", None, timeout_s=30)
            nursery.cancel_scope.cancel()
