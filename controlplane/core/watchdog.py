"""When what an instance uses is worth an event, a restart or an end. Pure: readings in, findings out.

Each figure has a `Rule`: shares of its limit, and for how long. A figure that has
crossed a share counts as over it until it falls below by `slack`, so one that
trembles around a limit gives one event and not hundreds. Time that nobody looked
counts for `GAP_S` at most: a control plane that was suspended judges nobody by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from attrs import define, evolve, field, frozen

from controlplane.core.leak import Leak, Trend

What = Literal["memory", "cpu", "processes", "open_files", "disk", "log_flood", "hung", "memory_leak"]
Step = Literal["warn", "restart", "kill", "calm"]
"""An event; an end that lets the calls in flight finish; an end at once; all is well again."""

CODES: Mapping[What, str] = {
    "memory": "memory_limit",
    "cpu": "cpu_spin",
    "processes": "process_limit",
    "open_files": "open_files_limit",
    "disk": "disk_limit",
    "log_flood": "log_flood",
    "hung": "hung",
    "memory_leak": "memory_leak",
}
"""What an end for this reason is called in the post-mortem."""
GAP_S = 5.0
"""More than this between two looks tells of the control plane, not of the instance."""


@frozen(kw_only=True)
class Limits:
    """What an instance may use. `cpu_percent` 100 is one core; `processes` counts threads; `open_files` is per process."""

    memory_mb: float
    cpu_percent: float
    processes: int
    open_files: int
    disk_mb: float
    log_kb_s: float
    holds_memory: bool = False
    """The kernel sees to it that no more is used, and ends what asks for more."""


@frozen(kw_only=True, slots=True)
class Reading:
    """What one look at all of an instance's processes found; None: not read this time."""

    at: float
    """Monotonic seconds."""
    memory_mb: float | None = None
    cpu_percent: float | None = None
    """Since the last look; 100 is one core."""
    processes: int | None = None
    """Threads included, as the kernel counts them for its limit."""
    open_files: int | None = None
    """Of the process that has most."""
    disk_mb: float | None = None
    disk_beyond: str | None = None
    """Why there is more on the disk than could be counted, said of the server: that is over any limit."""
    log_kb_s: float | None = None
    """Printed since the last look, what was dropped included."""
    dropped_lines: int = 0
    """Lines of it that were not kept."""
    oom_kills: int | None = None
    """Processes that the kernel has ended at the memory limit, since the limit was set."""


@frozen(kw_only=True)
class Finding:
    """One thing that is worth telling or doing. `reason` goes on from "the instance" or "the server"."""

    what: What
    step: Step
    value: float
    limit: float
    unit: str
    reason: str
    code: str


@frozen(kw_only=True)
class Rule:
    """When one figure matters: shares of its limit, and seconds for which they must last; None: never."""

    warn: float
    warn_s: float
    calm: float
    calm_s: float
    restart: float | None = None
    restart_s: float = 0.0
    kill: float | None = None
    slack: float = 0.1
    """How far below a share the figure must fall to be counted as under it again."""


MEMORY = Rule(warn=0.9, warn_s=3, calm=0.8, calm_s=5, restart=1.0, restart_s=3, kill=1.25)
"""Where nothing but the watchdog holds memory. At 1.25 it grows faster than a drain could wait for."""
HELD_MEMORY = Rule(warn=0.9, warn_s=3, calm=0.8, calm_s=5)
"""The kernel ends what goes beyond."""
CPU = Rule(warn=0.95, warn_s=30, calm=0.7, calm_s=10, slack=0.2)
"""Work is not a fault: no server is ended for CPU time alone while it answers."""
PROCESSES = Rule(warn=0.9, warn_s=3, calm=0.75, calm_s=5, restart=0.95, restart_s=10, kill=1.5)
"""The kernel refuses more than the limit mostly; what hangs there cannot start anything, and a new process can."""
OPEN_FILES = Rule(warn=0.9, warn_s=0, calm=0.75, calm_s=0, restart=0.97, restart_s=10)
"""At the kernel's limit a server can accept, read and write nothing new."""
DISK = Rule(warn=0.9, warn_s=0, calm=0.8, calm_s=0, restart=1.0, restart_s=5, kill=1.25)
"""What is on the disk stays there: after some restarts the instance comes to rest, and the host's disk is safe."""
LOG_FLOOD = Rule(warn=1.0, warn_s=5, calm=0.5, calm_s=10, slack=0.5)
"""What is too much is dropped and counted anyway."""

QUIET = 0.5
"""Share of every limit below which nothing begins: the least that any rule warns of is further up."""


@define
class _Span:
    """For how long a figure has been over a share, in a row but for dips within the slack."""

    lasted_s: float | None = None

    def look(self, share: float, over: float, slack: float, passed_s: float) -> float | None:
        """Seconds so far; None: it is under."""
        if self.lasted_s is None:
            self.lasted_s = 0.0 if share >= over else None
        else:
            self.lasted_s = self.lasted_s + passed_s if share >= over - slack else None
        return self.lasted_s


@define
class Gauge:
    """One figure's past: what has been told of it, and for how long it has been where."""

    what: What
    unit: str
    told: Step | None = None
    """The gravest step so far; None: all is well."""
    _at: float | None = None
    _warn: _Span = field(factory=_Span)
    _restart: _Span = field(factory=_Span)
    _calm_s: float = 0.0

    @property
    def is_quiet(self) -> bool:
        """All is well, and no time is being counted: a look at little leaves nothing behind that the next would see."""
        return self.told is None and self._warn.lasted_s is None and self._restart.lasted_s is None

    def look(self, rule: Rule, value: float, limit: float, at: float) -> Finding | None:
        """Fold one reading in; what it leads to, if anything."""
        passed_s = 0.0 if self._at is None else min(GAP_S, max(0.0, at - self._at))
        self._at = at
        share = value / limit if limit > 0 else 0.0
        warned_s = self._warn.look(share, rule.warn, rule.slack, passed_s)
        restart_s = None
        if rule.restart is not None:
            restart_s = self._restart.look(share, rule.restart, min(rule.slack, 0.05), passed_s)
        self._calm_s = self._calm_s + passed_s if share < rule.calm else 0.0
        step, lasted_s = self._step(rule, share, warned_s, restart_s)
        if step is None:
            return None
        self.told = None if step == "calm" else step
        reason = _reason(self.what, step, value, limit, lasted_s)
        return Finding(
            what=self.what, step=step, value=value, limit=limit, unit=self.unit, reason=reason, code=CODES[self.what]
        )

    def _step(
        self, rule: Rule, share: float, warned_s: float | None, restart_s: float | None
    ) -> tuple[Step | None, float]:
        """The gravest that is due and has not been told, and for how long what leads to it has lasted."""
        if self.told == "kill":
            return None, 0.0
        if rule.kill is not None and share >= rule.kill:
            return "kill", warned_s or 0.0
        if self.told == "restart":
            return None, 0.0
        if rule.restart is not None and restart_s is not None and share >= rule.restart and restart_s >= rule.restart_s:
            return "restart", restart_s
        if self.told is None and warned_s is not None and share >= rule.warn and warned_s >= rule.warn_s:
            return "warn", warned_s
        if self.told == "warn" and share < rule.calm and self._calm_s >= rule.calm_s:
            return "calm", self._calm_s
        return None, 0.0


@define
class Watchdog:
    """Of one instance's processes, from the start of the one in charge to its end. `limits` may change."""

    limits: Limits
    _memory: Gauge = field(factory=lambda: Gauge("memory", "MiB"), init=False)
    _cpu: Gauge = field(factory=lambda: Gauge("cpu", "%"), init=False)
    _processes: Gauge = field(factory=lambda: Gauge("processes", "processes"), init=False)
    _open_files: Gauge = field(factory=lambda: Gauge("open_files", "files"), init=False)
    _disk: Gauge = field(factory=lambda: Gauge("disk", "MiB"), init=False)
    _log: Gauge = field(factory=lambda: Gauge("log_flood", "KiB/s"), init=False)
    _leak: Leak = field(factory=Leak, init=False)
    _leak_told: Step | None = field(default=None, init=False)
    _oom_kills: int | None = field(default=None, init=False)
    _is_quiet: bool = field(default=True, init=False)
    """All of the gauges are."""

    def look(self, reading: Reading) -> list[Finding]:
        """Fold one reading in; what it leads to, the gravest first."""
        if self._is_quiet and _is_little(reading, self.limits):
            found = [self._look_for_oom(reading.oom_kills), self._look_for_leak(reading)]
        else:
            found = self._look_at_all(reading)
        return sorted((one for one in found if one is not None), key=_gravity) if any(found) else []

    def _look_at_all(self, reading: Reading) -> list[Finding | None]:
        limits, at = self.limits, reading.at
        memory = HELD_MEMORY if limits.holds_memory else MEMORY
        found = [
            self._look_for_oom(reading.oom_kills),
            _gauged(self._memory, memory, reading.memory_mb, limits.memory_mb, at),
            _gauged(self._processes, PROCESSES, reading.processes, limits.processes, at),
            _gauged(self._open_files, OPEN_FILES, reading.open_files, limits.open_files, at),
            self._look_at_disk(reading),
            _gauged(self._cpu, CPU, reading.cpu_percent, limits.cpu_percent, at),
            _gauged(self._log, LOG_FLOOD, _printed(reading, limits), limits.log_kb_s, at),
            self._look_for_leak(reading),
        ]
        gauges = (self._memory, self._processes, self._open_files, self._disk, self._cpu, self._log)
        self._is_quiet = all(gauge.is_quiet for gauge in gauges)
        return found

    def _look_at_disk(self, reading: Reading) -> Finding | None:
        """What cannot be counted is ended at once: it could be anything by the time that a drain is over."""
        limit, used, beyond = self.limits.disk_mb, reading.disk_mb, reading.disk_beyond
        if used is None or beyond is None:
            return _gauged(self._disk, DISK, used, limit, reading.at)
        finding = _gauged(self._disk, DISK, max(used, limit * (DISK.kill or 1.0)), limit, reading.at)
        return None if finding is None else evolve(finding, value=used, reason=beyond)

    def _look_for_oom(self, kills: int | None) -> Finding | None:
        if kills is None:
            return None
        before, self._oom_kills = self._oom_kills, kills
        if before is None or kills <= before:
            return None
        more, limit = kills - before, self.limits.memory_mb
        reason = (
            f"lost {more} process{'' if more == 1 else 'es'} to the kernel, at its limit of {limit:g} MiB of memory"
        )
        return Finding(
            what="memory", step="warn", value=limit, limit=limit, unit="MiB", reason=reason, code=CODES["memory"]
        )

    def _look_for_leak(self, reading: Reading) -> Finding | None:
        """Only a figure that grows steadily, and would reach its limit soon."""
        if reading.memory_mb is None:
            return None
        limit, memory = self.limits.memory_mb, reading.memory_mb
        trend = self._leak.look(memory, limit, reading.at)
        step = self._leak_step(trend, memory / limit)
        if step is None:
            return None
        self._leak_told = None if step == "calm" else step
        return Finding(
            what="memory_leak", step=step, value=memory, limit=limit, unit="MiB",
            reason=trend.told(memory, limit) if trend is not None else "does not grow any more",
            code=CODES["memory_leak"],
        )  # fmt: skip

    def _leak_step(self, trend: Trend | None, share: float) -> Step | None:
        if trend is not None and share >= LEAK_RESTART and self._leak_told != "restart":
            return "restart"
        if trend is not None and self._leak_told is None:
            return "warn"
        return "calm" if self._leak_told == "warn" and self._leak.is_over else None


LEAK_RESTART = 0.85
"""Share of the memory limit at which what leaks is restarted: in peace, before the limit ends it in the midst of calls."""


def _gravity(finding: Finding) -> int:
    return ("kill", "restart", "warn", "calm").index(finding.step)


def _is_little(reading: Reading, limits: Limits) -> bool:
    """Whether every figure is far below its limit; what was not read is nothing."""
    return (
        (reading.memory_mb or 0) < QUIET * limits.memory_mb
        and (reading.cpu_percent or 0) < QUIET * limits.cpu_percent
        and (reading.processes or 0) < QUIET * limits.processes
        and (reading.open_files or 0) < QUIET * limits.open_files
        and (reading.disk_mb or 0) < QUIET * limits.disk_mb
        and (reading.log_kb_s or 0) < QUIET * limits.log_kb_s
        and not reading.dropped_lines
        and reading.disk_beyond is None
    )


def _gauged(gauge: Gauge, rule: Rule, value: float | None, limit: float, at: float) -> Finding | None:
    return None if value is None else gauge.look(rule, value, limit, at)


def _printed(reading: Reading, limits: Limits) -> float | None:
    """Many short lines are a flood too, though of few bytes."""
    if reading.log_kb_s is None or not reading.dropped_lines:
        return reading.log_kb_s
    return max(reading.log_kb_s, limits.log_kb_s)


_USES: Mapping[What, str] = {
    "memory": "uses {value} of {limit} MiB of memory{lasted}",
    "cpu": "uses {value} of {limit} % CPU{lasted}",
    "processes": "has {value} of {limit} processes and threads{lasted}",
    "open_files": "has {value} of {limit} files open in one process{lasted}",
    "disk": "uses {value} of {limit} MiB of disk{lasted}",
    "log_flood": "prints {value} KiB/s{lasted}, of which {limit} are kept",
}


def _reason(what: What, step: Step, value: float, limit: float, lasted_s: float) -> str:
    lasted = " again" if step == "calm" else f" for {lasted_s:.0f} s" if lasted_s >= 1 else ""
    return _USES[what].format(value=f"{value:.0f}", limit=f"{limit:g}", lasted=lasted)
