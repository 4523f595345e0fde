"""Look at every instance's process tree, all in one pass over /proc.

One pass in a worker thread; asking per instance would cost a thousand times
that. What it takes is in docs/reference/performance.md. Each tree gives a
`Sample` for the list, the stream and the journal, and its `Watch` a look at it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

import trio
from attrs import define, field, frozen

from controlplane.model import Sample
from controlplane.spawn import proctree
from controlplane.supervise.census import Census
from controlplane.supervise.footprint import Footprint, Footprints, Index, Wanted, open_files
from controlplane.supervise.groupcpu import GroupCpu
from controlplane.supervise.groupevents import EventsOfGroups
from controlplane.supervise.orphans import Orphans
from controlplane.supervise.watchdog import Figures, Watch

if TYPE_CHECKING:
    from controlplane.core.watchdog import What
    from controlplane.model import Limits
    from controlplane.spawn.cgroups import GroupEvents
    from controlplane.supervise.child import Child
    from controlplane.supervise.runner import Runner
    from controlplane.supervise.supervisor import Supervisor

MIB = 2**20
_STOPPED = frozenset({"T", "t"})


@frozen
class Looked:
    """What one pass found. `stopped` tells of the children asked about whether a process of theirs stands still."""

    procs: Mapping[int, proctree.Proc]
    carried: Mapping[int, str]
    group_cpu_s: Mapping[str, float | None]
    """Since each was read last; None: not read this time, as it seems to rest."""
    group_events: Mapping[str, GroupEvents]
    usages: Mapping[str, proctree.Usage]
    """Of all of an instance's roots together."""
    footprints: Mapping[str, Footprint]
    stopped: Mapping[int, bool]


@frozen
class _Place:
    """Where an instance's processes began when it was looked at last, and what that was made of."""

    child: Child
    limits: Limits
    wanted: Wanted

    def holds(self, runner: Runner) -> bool:
        """Whether it is so still. What runs beside the primary is looked for anew where it has a root of its own."""
        is_same = runner.child is self.child and runner.instance.spec.limits is self.limits
        has_lanes = len(self.wanted.roots) > 1 or runner.lanes.children
        return is_same and (self.wanted.roots[0].uid is not None or not has_lanes)


@define(eq=False)
class _Past:
    """What the last look found of one instance."""

    watch: Watch
    cpu_ticks: int
    """Of the processes that were seen."""
    at: float
    group_at: float
    """When its group's CPU time was read."""


@define(eq=False)
class Sampler:
    """Samples the fleet every `interval_s` seconds, and has its watchdogs judge it."""

    supervisor: Supervisor
    interval_s: float
    _pasts: dict[str, _Past] = field(factory=dict, init=False)
    _places: dict[str, _Place] = field(factory=dict, init=False)
    _keys: dict[UUID, str] = field(factory=dict, init=False)
    _census: Census = field(factory=Census, init=False)
    _orphans: Orphans = field(factory=Orphans, init=False)
    _group_cpu: GroupCpu = field(factory=GroupCpu, init=False)
    _group_events: EventsOfGroups = field(factory=EventsOfGroups, init=False)
    _footprints: Footprints = field(factory=Footprints, init=False)

    async def run(self) -> None:
        """Service loop."""
        while True:
            await trio.sleep(self.interval_s)
            await self.sample()

    async def sample(self) -> None:
        """Take one sample of every running instance."""
        runners = list(self.supervisor.runners())
        self._keys = {r.instance.id: self._keys.get(r.instance.id) or str(r.instance.id) for r in runners}
        self._group_cpu.keep(self._keys.values())
        running = {self._keys[r.instance.id]: (r, pid) for r in runners if (pid := r.pid) is not None}
        self._pasts = {key: past for key, past in self._pasts.items() if key in running}
        self._places = {key: self._place(key, runner) for key, (runner, _) in running.items()}
        if not running:
            return
        wanted = [place.wanted for place in self._places.values()]
        asked = [
            _root(child)._replace(marker=None)  # a daemon that has left answers no calls, so it may stand still
            for runner, _ in running.values()
            for child in _children(runner)
            if child.session.pending
        ]
        names = {key: name for key, (runner, _) in running.items() if (name := _group(runner)) is not None}
        look = partial(self._look, wanted, asked, names, trio.current_time(), self._nice())
        looked = await trio.to_thread.run_sync(look)
        now, at = trio.current_time(), datetime.now(UTC)
        share_of = partial(_share, looked.procs, looked.carried)
        for key, (runner, pid) in running.items():
            runner.account.used_cpu(looked.group_cpu_s.get(key) or 0.0)
            if runner.pid == pid and pid in looked.procs:
                figures, interval_s = self._fold(key, runner, pid, looked, now)
                _publish(runner, figures, interval_s, at)
                self._pasts[key].watch.look(figures, looked.stopped, share_of, now)

    def _place(self, key: str, runner: Runner) -> _Place:
        place = self._places.get(key)
        return place if place is not None and place.holds(runner) else _placed(key, runner)

    def _nice(self) -> dict[str, int]:
        """What the processes of some instances are to have, each told once."""
        nice = {key: past.watch.nice for key, past in self._pasts.items() if past.watch.nice is not None}
        for key in nice:
            self._pasts[key].watch.nice = None
        return nice

    def _look(
        self,
        wanted: list[Wanted],
        asked: list[proctree.Root],
        groups: Mapping[str, str],
        now: float,
        nice: Mapping[str, int],
    ) -> Looked:
        """Blocks: for a worker thread."""
        procs = self._census.take()
        roots = [root for one in wanted for root in one.roots]
        carried = self._orphans.of(procs, self.supervisor.around.spawner.pid, roots)
        by_root = proctree.trees(procs, roots, carried)
        usages = {one.key: _usage(one.roots, by_root) for one in wanted}
        ticks = {key: usage.cpu_ticks for key, usage in usages.items()}
        group_cpu_s = self._group_cpu.since(self.supervisor.around.groups, groups, ticks, now)
        index = Index(procs, carried)
        rss = {key: usage.rss_bytes for key, usage in usages.items()}
        footprints = self._footprints.look(wanted, procs, rss, index, now)
        memory = {key: _memory_bytes(usage, footprints.get(key)) for key, usage in usages.items()}
        group_events = self._group_events.look(self.supervisor.around.groups, groups, wanted, memory, now)
        for one in wanted:
            if one.key in nice:
                _renice(nice[one.key], {pid for root in one.roots for pid in index.members(root)})
        stopped = {root.pid: any(procs[pid].state in _STOPPED for pid in index.members(root)) for root in asked}
        return Looked(procs, carried, group_cpu_s, group_events, usages, footprints, stopped)

    def _fold(self, key: str, runner: Runner, pid: int, looked: Looked, now: float) -> tuple[Figures, float]:
        """What one look says of an instance, and for how long it says so."""
        usage = looked.usages[key]
        past = self._pasts.get(key)
        is_new = past is None or past.watch.pid != pid
        if past is None or is_new:
            before = now - self.interval_s
            past = self._pasts[key] = _Past(Watch(runner, pid), usage.cpu_ticks, at=before, group_at=before)
        interval_s = max(now - past.at, 1e-3)
        cpu_over_s = interval_s
        cpu_s = max(0, usage.cpu_ticks - past.cpu_ticks) / proctree.TICKS_PER_S
        if key not in looked.group_cpu_s:
            runner.account.used_cpu(cpu_s)
        elif (group_cpu_s := looked.group_cpu_s[key]) is not None:
            if not is_new:  # what the group has used before is nobody's share of one interval
                cpu_s, cpu_over_s = group_cpu_s, max(now - past.group_at, 1e-3)
            past.group_at = now
        past.cpu_ticks, past.at = usage.cpu_ticks, now
        footprint = looked.footprints.get(key, Footprint())
        figures = Figures(
            memory_mb=round(_memory_bytes(usage, footprint) / MIB, 2),
            cpu_percent=round(cpu_s / cpu_over_s * 100, 1),
            processes=usage.processes,
            threads=usage.threads,
            open_files=footprint.open_files,
            disk_mb=None if footprint.disk_bytes is None else round(footprint.disk_bytes / MIB, 1),
            disk_beyond=footprint.disk_beyond,
            group=looked.group_events.get(key),
        )
        runner.meter.peak(figures.memory_mb, usage.processes)
        return figures, interval_s


def _publish(runner: Runner, figures: Figures, interval_s: float, at: datetime) -> None:
    calls, errors, p50_ms, p95_ms = runner.meter.interval()
    runner.sampled(
        Sample(
            at=at,
            cpu_percent=figures.cpu_percent,
            memory_mb=figures.memory_mb,
            processes=figures.processes,
            open_files=figures.open_files,
            disk_mb=figures.disk_mb,
            calls=calls,
            errors=errors,
            p50_ms=p50_ms,
            p95_ms=p95_ms,
            interval_s=round(interval_s, 3),
        )
    )


def _share(procs: Mapping[int, proctree.Proc], carried: Mapping[int, str], what: What, child: Child) -> float:
    """How much of a figure is due to one child's tree."""
    root = _root(child)
    usage = proctree.trees(procs, [root], carried)[root.key]
    if what == "processes":
        return usage.threads
    if what == "open_files":
        return max((open_files(pid, procs[pid].uid) or 0 for pid in Index(procs, carried).members(root)), default=0)
    return usage.rss_bytes


def _children(runner: Runner) -> list[Child]:
    """The primary and what runs beside it."""
    primary = [] if runner.child is None else [runner.child]
    return [*primary, *runner.lanes.children]


def _group(runner: Runner) -> str | None:
    """The control group that its launch is in."""
    group = None if runner.launch is None else runner.launch.confinement.group
    return None if group is None else group.name


def _root(child: Child) -> proctree.Root:
    """Of one process's own tree, whoever else has its user."""
    return proctree.Root(str(child.job.pid), child.job.pid, child.job.start_ticks, marker=child.job.id)


def _placed(key: str, runner: Runner) -> _Place:
    """Where an instance's processes begin. Its own user tells them all; without one each lane is a root beside the primary."""
    assert runner.child is not None
    job, limits = runner.child.job, runner.instance.spec.limits
    roots = [proctree.Root(key, job.pid, job.start_ticks, job.spec.own_user, job.id)]
    if job.spec.own_user is None:
        roots += [_root(child)._replace(key=f"{key}/{child.job.pid}") for child in runner.lanes.children]
    folder = str(runner.around.config.home / "instances" / key)
    wanted = Wanted(key, tuple(roots), folder, limits.open_files, limits.memory_mb * MIB, limits.disk_mb * MIB)
    return _Place(runner.child, limits, wanted)


def _usage(roots: Iterable[proctree.Root], usages: Mapping[str, proctree.Usage]) -> proctree.Usage:
    """What all of an instance's roots use together."""
    found = [usages[root.key] for root in roots if root.key in usages]
    if len(found) == 1:
        return found[0]
    return proctree.Usage(*map(sum, zip(*found, strict=True)))


def _memory_bytes(usage: proctree.Usage, footprint: Footprint | None) -> int:
    """With what it shares with nobody else, where that was read."""
    return usage.rss_bytes if footprint is None or footprint.memory_bytes is None else footprint.memory_bytes


def _renice(nice: int, pids: Iterable[int]) -> None:
    """Give every thread this priority; without privileges it can be lowered only, and stays so to its end."""
    for pid in pids:
        with suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                with suppress(OSError):
                    os.setpriority(os.PRIO_PROCESS, int(thread), nice)
