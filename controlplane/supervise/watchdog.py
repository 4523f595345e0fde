"""Act on what is found of an instance: tell it, give its processes less of the CPU, replace them, end them.

One `Watch` goes with each process in charge; what it decides by is in
`core.watchdog` and `core.liveness`. Where the kernel holds memory (a control
group), it is the kernel that ends what goes beyond, and this tells of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Protocol

from attrs import define, evolve, field, frozen

from controlplane.core.liveness import FROZEN, Liveness, Signs
from controlplane.core.watchdog import Finding, Limits, Reading, Watchdog, What

if TYPE_CHECKING:
    from controlplane.model import Limits as InstanceLimits
    from controlplane.spawn.cgroups import CpuCount, GroupEvents, GroupLimits
    from controlplane.supervise.child import Child
    from controlplane.supervise.runner import Runner

NICE = 10
"""Where nothing else holds CPU time: what spins gets a tenth of what others get that want it at the same time."""
TIDY_S = 15.0
"""For a new process to remove what the one before left on the disk, before that counts."""


class Groups(Protocol):
    """Who knows the control groups of instances; a `spawn.cgroups.Hierarchy` does."""

    def events(self, name: str, /) -> GroupEvents | None:
        """Its kills and its processes; None where there is no group of this name."""
        ...

    def make(self, name: str, limits: GroupLimits, /) -> None:
        """Give a group these limits. Raises OSError when the kernel refuses."""
        ...

    def cpu_count(self, name: str, /) -> CpuCount | None:
        """The CPU time of a group alone; None where it is not counted, or gone."""
        ...


@frozen(kw_only=True)
class Figures:
    """What one sample says of an instance's processes together; None: not read this time."""

    memory_mb: float
    cpu_percent: float
    processes: int
    threads: int
    open_files: int | None = None
    disk_mb: float | None = None
    disk_beyond: str | None = None
    """Why there is more than could be counted."""
    group: GroupEvents | None = None
    """What its control group tells; None too where it has none."""


ShareOf = Callable[["What", "Child"], float]
"""How much of what was found is due to one of an instance's processes."""


@define(eq=False)
class Watch:
    """Of one instance, while the process `pid` is in charge. `nice` is what its processes are to have, None: as they have."""

    runner: Runner
    pid: int
    nice: int | None = field(default=None, init=False)
    _watchdog: Watchdog = field(init=False)
    _given: InstanceLimits = field(init=False)
    """What its limits were made of."""
    _lives: dict[int, Liveness] = field(factory=dict, init=False)
    _printed: tuple[int, int] = field(init=False)
    _at: float | None = field(default=None, init=False)
    _began: float | None = field(default=None, init=False)
    _disk_before_mb: float | None = field(default=None, init=False)
    """When this process was looked at first."""

    def __attrs_post_init__(self) -> None:
        self._given = self.runner.instance.spec.limits
        self._watchdog = Watchdog(self._limits())
        self._printed = self._printed_so_far()

    def look(self, figures: Figures, stopped: Mapping[int, bool], share_of: ShareOf, now: float) -> None:
        """Fold one sample in, and do what follows.

        Args:
            figures: Of all its processes.
            stopped: By pid of a child: whether one of the processes below it stands still.
            share_of: Asked where one of several processes has to go.
            now: Trio time.
        """
        self._keep_limits()
        reading = self._reading(figures, now)
        self.runner.meter.remember(now, partial(_figures, reading, self._calls()))
        for finding in self._watchdog.look(reading):
            self._tell(finding)
            self._act(finding, share_of)
        self._look_for_life(stopped, figures.cpu_percent, now)

    @property
    def children(self) -> list[Child]:
        """The one in charge and those beside it."""
        primary = [] if self.runner.child is None else [self.runner.child]
        return [*primary, *self.runner.lanes.children]

    # -- what is read

    def _keep_limits(self) -> None:
        """Judge by the limits of now, which are others after a patch only."""
        given, holds_memory = self.runner.instance.spec.limits, self._is_held("memory_mb")
        if given is not self._given or holds_memory is not self._watchdog.limits.holds_memory:
            self._given, self._watchdog.limits = given, self._limits()

    def _limits(self) -> Limits:
        limits = self.runner.instance.spec.limits
        return Limits(
            memory_mb=limits.memory_mb,
            cpu_percent=limits.cpu_percent,
            processes=limits.processes,
            open_files=limits.open_files,
            disk_mb=limits.disk_mb,
            log_kb_s=limits.log_kb_s,
            holds_memory=self._is_held("memory_mb"),
        )

    def _is_held(self, limit: str) -> bool:
        """Whether the kernel sees to it that a limit is kept."""
        launch = self.runner.launch
        return launch is not None and launch.enforcement.get(limit) == "hard"

    def _reading(self, figures: Figures, now: float) -> Reading:
        group = figures.group
        seen_bytes, dropped = self._printed_so_far()
        (bytes_before, dropped_before), self._printed = self._printed, (seen_bytes, dropped)
        passed_s = None if self._at is None else max(now - self._at, 1e-3)
        self._at = now
        return Reading(
            at=now,
            memory_mb=figures.memory_mb,
            cpu_percent=figures.cpu_percent,
            processes=max(figures.threads, (group.processes or 0) if group is not None else 0),
            open_files=figures.open_files,
            disk_mb=self._disk(figures.disk_mb, now),
            disk_beyond=figures.disk_beyond,
            log_kb_s=None if passed_s is None else max(0, seen_bytes - bytes_before) / 1024 / passed_s,
            dropped_lines=max(0, dropped - dropped_before),
            oom_kills=None if group is None else group.oom_kills,
        )

    def _disk(self, disk_mb: float | None, now: float) -> float | None:
        """What a process found when it began is not its doing: it has a while to tidy up, unless it adds to it."""
        self._began = now if self._began is None else self._began
        if self._disk_before_mb is None:
            self._disk_before_mb = disk_mb
        is_new = now - self._began < TIDY_S and disk_mb is not None and disk_mb <= (self._disk_before_mb or 0)
        return None if is_new else disk_mb

    def _printed_so_far(self) -> tuple[int, int]:
        """Bytes, and lines of them that were dropped, of all its processes that run."""
        own = self.runner.logbook
        seen_bytes, dropped = own.seen_bytes, own.dropped
        for book in {child.logbook for child in self.children if child.logbook is not own}:
            seen_bytes, dropped = seen_bytes + book.seen_bytes, dropped + book.dropped
        return seen_bytes, dropped

    def _calls(self) -> int:
        return sum(_waiting(child)[1] for child in self.children if child.session.pending)

    # -- whether it answers

    def _look_for_life(self, stopped: Mapping[int, bool], cpu_percent: float, now: float) -> None:
        limits, config = self.runner.instance.spec.limits, self.runner.around.config
        children = self.children
        self._lives = {child.job.pid: self._lives.get(child.job.pid) or Liveness() for child in children}
        for child in children:
            if child.session.facts is None:
                continue
            life, session = self._lives[child.job.pid], child.session
            if not session.pending and life.rests(now, session.heard, session.outbox.stuck_since):
                continue
            waiting, calls, longest_s = _waiting(child)
            signs = Signs(
                at=now,
                waiting=waiting,
                calls=calls,
                heard=child.session.heard,
                call_limit_s=max(min(limits.call_timeout_s, config.max_call_timeout_s), longest_s),
                is_stopped=stopped.get(child.job.pid, False),
                unread_since=child.session.outbox.stuck_since,
                can_be_asked=child.session.can_be_asked,
                cpu_share=cpu_percent / min(100, limits.cpu_percent),
            )
            finding = life.look(signs)
            if life.wants_ping:
                child.session.ask_if_there()
            if finding is not None:
                self._tell(finding)
                if finding.step == "kill":
                    child.condemn(_sentence(finding), finding.code)

    # -- what follows

    def _tell(self, finding: Finding) -> None:
        if finding.what == "cpu" and finding.step == "warn" and not self._is_held("cpu_percent"):
            finding = evolve(finding, reason=f"{finding.reason}; others go before it from now on")
        self.runner.herald.watchdog(finding)

    def _act(self, finding: Finding, share_of: ShareOf) -> None:
        if finding.what == "cpu" and not self._is_held("cpu_percent"):
            self.nice = NICE if finding.step == "warn" else 0
        if finding.step not in ("restart", "kill"):
            return
        for child in self._culprits(finding, share_of):
            if finding.step == "kill":
                child.condemn(_sentence(finding), finding.code)
            else:
                child.retire(_sentence(finding), finding.code)

    def _culprits(self, finding: Finding, share_of: ShareOf) -> list[Child]:
        """The process that has most of it; all of them where they share it, as they do a disk."""
        children = self.children
        if finding.what == "disk" or len(children) < 2:
            return children
        return [max(children, key=partial(share_of, finding.what))]


def _sentence(finding: Finding) -> str:
    return f"the {'process' if finding.reason == FROZEN else 'server'} {finding.reason}"


def _waiting(child: Child) -> tuple[int, int, float]:
    """What a process has not answered; of that, what ends by itself and waits for it alone; the longest time of those."""
    pending = [call for call in child.session.pending if call.outcome is None]
    calls = [call for call in pending if call.deadline < inf and call.counts]
    return len(pending), len(calls), max((call.deadline - call.started for call in calls), default=0.0)


def _figures(reading: Reading, calls: int) -> dict[str, float]:
    """What a post-mortem shows of a reading; what was not read, or is nothing, is left out."""
    named = {
        "memory_mb": reading.memory_mb,
        "cpu_percent": reading.cpu_percent,
        "threads": reading.processes,
        "open_files": reading.open_files,
        "disk_mb": reading.disk_mb,
        "log_kb_s": reading.log_kb_s or None,
        "dropped_lines": reading.dropped_lines or None,
        "calls_waiting": calls or None,
        "oom_kills": reading.oom_kills or None,
    }
    return {name: round(value, 1) for name, value in named.items() if value is not None}
