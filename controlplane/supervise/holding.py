"""An instance that runs, held to limits that were changed since its launch was prepared.

A control group takes new limits while processes are in it. What each process was
started with (rlimits) stays until the next start, and what the watchdog judges by
it reads anew each time.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio
from attrs import evolve

from controlplane.spawn.cgroupfiles import GroupLimits
from controlplane.spawn.confinement import Group

if TYPE_CHECKING:
    from controlplane.model import Limits
    from controlplane.supervise.launch import Launch
    from controlplane.supervise.runner import Runner
    from controlplane.supervise.watchdog import Groups

MIB = 2**20
BUBBLEWRAPS = 2
"""Processes of bubblewrap's own in each job of the level `namespaced`, which the limit is not to count."""
log = logging.getLogger("corral.supervise")


def group_for(name: str, limits: Limits, level: str) -> Group:
    """The control group that holds a launch at this isolation level to its limits."""
    extra = BUBBLEWRAPS if level == "namespaced" else 0
    return Group(
        name=name,
        memory_bytes=limits.memory_mb * MIB,
        cpu_percent=limits.cpu_percent,
        processes=limits.processes + extra,
    )


def held_to(launch: Launch, limits: Limits) -> Launch:
    """The same launch with these limits for its control group; itself where it has none, or has them already."""
    group = launch.confinement.group
    if group is None:
        return launch
    wanted = group_for(group.name, limits, launch.isolation)
    return launch if wanted == group else evolve(launch, confinement=launch.confinement._replace(group=wanted))


async def hold(runner: Runner, limits: Limits) -> None:
    """Have the control group of the launch in force hold these limits, and processes that are started in it from now on.

    Raises:
        OSError: the kernel refuses, as version 1 does while more memory is used; all is as before.
    """
    before = runner.launch
    if before is None or (launch := held_to(before, limits)) is before:
        return
    _put(runner, before, launch)
    try:
        await _apply(runner, launch)
    except OSError:
        _put(runner, launch, before)
        with suppress(OSError):
            await _apply(runner, before)
        raise


async def hold_again(runner: Runner) -> None:
    """A process was started that was on its way while limits were changed: it brought those before. Never raises."""
    if runner.launch is not None:
        try:
            await _apply(runner, runner.launch)
        except OSError as error:
            log.warning("instance %s: its new limits are not in force: %s", runner.instance.id, error)


def _put(runner: Runner, before: Launch, launch: Launch) -> None:
    if runner.launch is before:  # or another was prepared meanwhile, with what holds by now
        runner.launch = launch
        runner.lanes.follow(launch)


async def _apply(runner: Runner, launch: Launch) -> None:
    """In a thread: the kernel may take its time to get memory back."""
    group, groups = launch.confinement.group, runner.around.groups
    if group is not None and groups is not None:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(partial(_limit, groups, group))


def _limit(groups: Groups, group: Group) -> None:
    if groups.events(group.name) is not None:  # else the next process makes it, with the limits of its launch
        groups.make(group.name, GroupLimits(*group[1:]))
