"""Limits that are changed while an instance runs are in force at once; what the kernel refuses leaves all as it was."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from attrs import evolve

from controlplane.deploy.prepare import HostPrepare
from controlplane.model import Limits
from controlplane.spawn.cgroups import Hierarchy
from controlplane.spawn.confinement import Confinement, Group
from controlplane.supervise.holding import BUBBLEWRAPS, held_to, hold, hold_again
from controlplane.supervise.launch import Launch
from tests.supervise.conftest import open_yard
from tests.supervise.test_watchdog import GREEDY, MIB, do

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controlplane.model import Instance
    from controlplane.supervise.launch import Progress
    from controlplane.supervise.runner import Runner
    from tests.supervise.conftest import Yard

WIDE = Limits(memory_mb=400, cpu_percent=100, processes=64)
NARROW = Limits(memory_mb=150, cpu_percent=40, processes=32)


def launch_in(group: Group | None, level: str = "process") -> Launch:
    return Launch(
        argv=("x",),
        env={},
        cwd="/",
        uid=None,
        rlimits={},
        private_tmp=None,
        isolation=level,
        confinement=Confinement(level=level, group=group),
    )


@pytest.mark.parametrize(("level", "extra"), [("process", 0), ("confined", 0), ("namespaced", BUBBLEWRAPS)])
def test_a_launch_is_held_to_other_limits_in_the_same_group(level: str, extra: int) -> None:
    launch = launch_in(Group("g", 1, 2, 3), level)

    held = held_to(launch, NARROW)

    assert held.confinement == launch.confinement._replace(group=Group("g", 150 * MIB, 40, 32 + extra))
    assert held_to(held, NARROW) is held


def test_a_launch_without_a_group_has_none_to_be_held_by() -> None:
    launch = launch_in(None)

    assert held_to(launch, NARROW) is launch


@pytest.fixture
async def grouped(yard_folder: Path, toolchain: Any) -> AsyncIterator[Yard]:
    with trio.fail_after(120):
        async with open_yard(yard_folder, toolchain, with_groups=True) as yard:
            yield yard


def in_force(runner: Runner) -> tuple[int, str, int]:
    """What the files of its group say: MiB, the quota of the processor, processes."""
    assert runner.launch is not None
    assert runner.launch.confinement.group is not None
    places, name = runner.around.groups, runner.launch.confinement.group.name
    assert isinstance(places, Hierarchy)
    first = places.driver == "cgroup1"
    memory = Path(f"{places.memory}/{name}/{'memory.limit_in_bytes' if first else 'memory.max'}").read_text()
    cpu = Path(f"{places.cpu}/{name}/{'cpu.cfs_quota_us' if first else 'cpu.max'}").read_text()
    processes = Path(f"{places.processes}/{name}/pids.max").read_text()
    return int(memory) // MIB, cpu.split()[0], int(processes)


@pytest.mark.needs("cgroups")
async def test_new_limits_are_in_force_at_once_and_for_processes_that_come_later(grouped: Yard) -> None:
    runner = await grouped.running(GREEDY, limits=WIDE)
    assert in_force(runner) == (400, "100000", 64)

    await hold(runner, NARROW)
    assert in_force(runner) == (150, "40000", 32)
    assert runner.child is not None
    runner.child.retire("for the next", "test")
    await runner.orders.wait()
    with trio.fail_after(30):
        while not runner.serving or runner.child is None or runner.child.exit is not None:
            await runner.orders.wait()
    assert in_force(runner) == (150, "40000", 32), "the next process of the same launch"

    await hold(runner, WIDE)
    assert in_force(runner) == (400, "100000", 64)


@pytest.mark.needs("cgroups")
async def test_less_memory_than_is_in_use_is_refused_or_ends_what_uses_it(grouped: Yard) -> None:
    runner = await grouped.running(GREEDY, limits=WIDE)
    await do(runner, "hold", 200)
    assert isinstance(runner.around.groups, Hierarchy)
    if runner.around.groups.driver == "cgroup2":
        await hold(runner, NARROW)
        assert in_force(runner)[0] == 150
        return

    with pytest.raises(OSError, match="busy"):
        await hold(runner, NARROW)

    assert in_force(runner) == (400, "100000", 64)
    assert await do(runner, "pid")


@pytest.mark.needs("cgroups")
async def test_limits_that_were_patched_while_it_was_prepared_are_those_it_starts_with(
    grouped: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = HostPrepare.prepare

    async def patched_meanwhile(host: HostPrepare, instance: Instance, progress: Progress) -> Launch:
        launch = await prepare(host, instance, progress)
        runner.replace(evolve(instance, spec=evolve(instance.spec, limits=NARROW)))
        return launch

    monkeypatch.setattr(HostPrepare, "prepare", patched_meanwhile)
    runner = grouped.deploy(GREEDY, limits=WIDE)
    await runner.wait_settled(30)

    assert in_force(runner) == (150, "40000", 32)


@pytest.mark.needs("cgroups")
async def test_a_process_that_was_on_its_way_is_held_to_what_holds_by_now(grouped: Yard) -> None:
    runner = await grouped.running(GREEDY, limits=WIDE)
    assert runner.launch is not None
    runner.launch = held_to(runner.launch, NARROW)
    assert in_force(runner)[0] == 400

    await hold_again(runner)

    assert in_force(runner) == (150, "40000", 32)
