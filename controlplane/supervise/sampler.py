"""Look at every instance's process tree, all in one pass over /proc.

One pass in a worker thread costs about 25 ms for 1,600 processes; asking per
instance would cost a thousand times that. Each tree gives a `Sample` for the
list, the stream and the journal.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import trio
from attrs import define, field

from controlplane.model import Sample
from controlplane.spawn import proctree

if TYPE_CHECKING:
    from controlplane.supervise.child import Child
    from controlplane.supervise.runner import Runner
    from controlplane.supervise.supervisor import Supervisor

FROZEN_SAMPLES = 5
"""A process that somebody stopped (SIGSTOP) while calls wait is given up after this many samples."""
DEAF_S = 20.0
"""A process that takes not one byte for this long while bytes wait is given up."""
_STOPPED = frozenset({"T", "t"})


@define(eq=False)
class _Watch:
    """What the last look found of one process."""

    pid: int
    cpu_ticks: int
    at: float
    frozen_for: dict[int, int] = field(factory=dict)
    """By pid: in how many samples in a row a process with calls was found stopped."""


@define(eq=False)
class Sampler:
    """Samples the fleet every `interval_s` seconds, and gives up processes that are frozen or deaf."""

    supervisor: Supervisor
    interval_s: float
    _watches: dict[str, _Watch] = field(factory=dict, init=False)

    async def run(self) -> None:
        """Service loop."""
        while True:
            await trio.sleep(self.interval_s)
            await self.sample()

    async def sample(self) -> None:
        """Take one sample of every running instance."""
        roots = {root.key: root for r in self.supervisor.runners() if r.pid is not None for root in _roots(r)}
        self._watches = {key: watch for key, watch in self._watches.items() if key in roots}
        if not roots:
            return
        procs, usages = await trio.to_thread.run_sync(_look, list(roots.values()))
        now = trio.current_time()
        for runner in self.supervisor.runners():
            root = roots.get(str(runner.instance.id))
            if root is not None and runner.pid == root.pid and root.pid in procs:
                self._fold(runner, root, _usage(runner, usages), procs, now)

    def _fold(
        self, runner: Runner, root: proctree.Root, usage: proctree.Usage, procs: dict[int, proctree.Proc], now: float
    ) -> None:
        watch = self._watches.get(root.key)
        if watch is None or watch.pid != root.pid:
            watch = self._watches[root.key] = _Watch(root.pid, usage.cpu_ticks, now - self.interval_s)
        interval_s = max(now - watch.at, 1e-3)
        cpu = max(0, usage.cpu_ticks - watch.cpu_ticks) / proctree.TICKS_PER_S / interval_s * 100
        watch.cpu_ticks, watch.at = usage.cpu_ticks, now
        memory_mb = round(usage.rss_bytes / 2**20, 2)
        runner.meter.peak(memory_mb, usage.processes)
        figures = {"memory_mb": memory_mb, "cpu_percent": round(cpu, 1), "processes": usage.processes}
        runner.meter.remember(now, figures)
        calls, errors, p50_ms, p95_ms = runner.meter.interval()
        runner.sampled(
            Sample(
                at=datetime.now(UTC),
                cpu_percent=round(cpu, 1),
                memory_mb=memory_mb,
                processes=usage.processes,
                calls=calls,
                errors=errors,
                p50_ms=p50_ms,
                p95_ms=p95_ms,
                interval_s=round(interval_s, 3),
            )
        )
        for child in _children(runner):
            if child.job.pid in procs:
                _judge(child, watch, procs[child.job.pid], now)


def _judge(child: Child, watch: _Watch, leader: proctree.Proc, now: float) -> None:
    """A process that cannot answer any more is better replaced than waited for."""
    pid = child.job.pid
    if not child.session.pending:
        watch.frozen_for.pop(pid, None)
        return
    frozen_for = watch.frozen_for.get(pid, 0) + 1 if leader.state in _STOPPED else 0
    watch.frozen_for[pid] = frozen_for
    stuck = child.session.outbox.stuck_since
    if frozen_for >= FROZEN_SAMPLES:
        child.condemn("the process was stopped by a signal while calls were waiting")
    elif stuck is not None and now - stuck > DEAF_S:
        child.condemn(f"the server has read nothing for {DEAF_S:g} s while calls were waiting")


def _children(runner: Runner) -> list[Child]:
    """The primary and what runs beside it."""
    primary = [] if runner.child is None else [runner.child]
    return primary + list(runner.lanes.children)


def _roots(runner: Runner) -> list[proctree.Root]:
    """Where an instance's processes begin. Its own user tells them all; without one each lane is a root beside the primary."""
    assert runner.child is not None
    key, job = str(runner.instance.id), runner.child.job
    roots = [proctree.Root(key, job.pid, job.start_ticks, job.spec.own_user)]
    if job.spec.own_user is None:
        jobs = [child.job for child in runner.lanes.children]
        roots += [proctree.Root(_beside(key, job.pid), job.pid, job.start_ticks) for job in jobs]
    return roots


def _usage(runner: Runner, usages: dict[str, proctree.Usage]) -> proctree.Usage:
    """What all of an instance's roots use together."""
    key = str(runner.instance.id)
    keys = [key, *(_beside(key, child.job.pid) for child in runner.lanes.children)]
    found = [usages[key] for key in keys if key in usages]
    return proctree.Usage(*map(sum, zip(*found, strict=True)))


def _beside(key: str, pid: int) -> str:
    return f"{key}/{pid}"


def _look(roots: list[proctree.Root]) -> tuple[dict[int, proctree.Proc], dict[str, proctree.Usage]]:
    procs = proctree.scan()
    return procs, proctree.trees(procs, roots)
