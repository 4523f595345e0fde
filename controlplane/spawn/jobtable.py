"""The spawner's table of jobs: how each ends, what is killed, and what belongs to none.

It forks nothing but the killer's helper, and knows no socket: what it has to say goes to `tell`.
Standard library only.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from controlplane.spawn import confine, ladder, messages, proctree
from controlplane.spawn.pool import is_pooled

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from controlplane.spawn.groups import Groups

TICK_S = 1.0
"""How often orphans are looked for; the look is one small file unless there are any."""
SUSPECT_TICK_S = 0.1
"""The same while there is one that may be nobody's."""
LINGER_S = 10.0
"""A job whose leader has ended and that nobody killed is killed after this."""
SIGNALLED = 128
"""Above it, a status of bubblewrap's stands for a signal."""
LEFT_SHOWN = 50
"""Pids named in a message about processes that cannot be killed."""


class Job:
    """One process started here, and all that came of it. `uid` is set where the user is Corral's to empty."""

    def __init__(self, key: str, order: messages.Order, pid: int, report_fd: int) -> None:
        self.key = key
        self.kind = order.kind
        self.stop_signal = order.stop_signal
        self.uid = order.uid if order.kind != "service" and is_pooled(order.uid) else None
        self.is_shut_in = order.confinement.level == "namespaced"
        self.pid = pid
        found = proctree.look(pid)
        self.start_ticks = found.start_ticks if found is not None else 0
        self.report_fd: int | None = report_fd
        self.has_failed = False
        self.exited_at: float | None = None
        self.kill: ladder.Kill | None = None

    @property
    def is_live(self) -> bool:
        """Whether its leader has not been reaped."""
        return self.exited_at is None

    def own_code(self, code: int) -> int:
        """How the program ended; bubblewrap ends with 128 + the signal that ended what it ran, as a shell does."""
        return SIGNALLED - code if self.is_shut_in and SIGNALLED < code < SIGNALLED + signal.NSIG else code


class Jobs:
    """All jobs from fork to the last process gone.

    Args:
        tell: Sends a message to the control plane.
        forget_fd: Called before a report's descriptor is closed: its number is soon another's.
        private_fds: Descriptors that a helper process must not keep.
        groups: The jobs' control groups; None where there are none.
    """

    def __init__(
        self,
        tell: Callable[..., None],
        forget_fd: Callable[[int], object],
        private_fds: Collection[int],
        groups: Groups | None = None,
    ) -> None:
        self.tell = tell
        self.forget_fd = forget_fd
        self.private_fds = private_fds
        self.groups = groups
        self.table: dict[str, Job] = {}
        self.killer = ladder.UserKiller()
        self.strays = ladder.Strays()
        self.adopted: dict[int, str] = {}  # orphan to the live job it belongs to
        self.orphans = self.orphans_killed = 0
        self.told = (0, 0)
        self.tick_at = time.monotonic() + TICK_S
        self.look_after = 0.0

    @property
    def is_empty(self) -> bool:
        return not self.table and not proctree.children()

    def next_due(self, now: float) -> float:
        """When `advance` wants to be called next, if no child ends before, in monotonic seconds."""
        kills = [job.kill.due for job in self.table.values() if job.kill is not None]
        dues = [max(min(kills), self.look_after)] if kills else []
        if self.killer.is_busy:
            dues.append(now + ladder.FIRST_PAUSE_S)
        return min([self.tick_at, *dues])

    def advance(self, now: float) -> None:
        """Do what is due. Never waits."""
        self._advance_kills(now)
        self.killer.advance(now, self.private_fds)
        if now >= self.tick_at:
            self._tick(now)

    # How a job begins and ends

    def settle(self, job: Job) -> None:
        """Read the child's report: end of file, it has become its program; else why it could not."""
        if job.report_fd is None:
            return
        try:
            report = os.read(job.report_fd, confine.REPORT_BYTES)
        except BlockingIOError:
            return
        self.forget_fd(job.report_fd)
        os.close(job.report_fd)
        job.report_fd = None
        if report:
            job.has_failed = True
            self.tell(ev="failed", job=job.key, **json.loads(report))
        else:
            self.tell(ev="spawned", job=job.key, pid=job.pid, start_ticks=job.start_ticks)

    def reap(self) -> None:
        """Take the status of every child that has ended: leaders, orphans, helpers."""
        by_pid = {job.pid: job for job in self.table.values() if job.is_live}
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.adopted.pop(pid, None)
            job = by_pid.pop(pid, None)
            if job is not None:
                self._ended(job, os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024)
            else:
                self.killer.reaped(pid)

    def _ended(self, job: Job, code: int, max_rss_bytes: int) -> None:
        self.settle(job)
        job.exited_at = time.monotonic()
        if not job.has_failed:
            self.tell(ev="exit", job=job.key, code=job.own_code(code), max_rss_bytes=max_rss_bytes)
            return
        self._drop(job)
        if job.kill is not None:
            self.tell(ev="gone", job=job.key, left=[])

    def _drop(self, job: Job) -> None:
        """Nothing is left of it. Its control group goes with the last job that was in it."""
        del self.table[job.key]
        if self.groups is not None:
            self.groups.dismiss(job.key)

    # Killing

    def signal(self, key: str, sig: int) -> None:
        """To the process group; once the leader has been reaped, only to members that are surely its own.

        The leader of a job in namespaces is bubblewrap, which takes all along when it ends, and so does its init: they
        are passed over, that what they look after can end by itself.
        """
        job = self.table.get(key)
        if job is None:
            return
        if job.is_shut_in and job.is_live:
            procs = proctree.scan()
            inits = {pid for pid, proc in procs.items() if proc.ppid == job.pid}
            proctree.signal_all(procs, [pid for pid, proc in procs.items() if proc.ppid in inits], sig)
            return
        if job.is_live:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(job.pid, sig)
            return
        look = self._look(time.monotonic())
        group = [pid for pid in look.members[key] if look.procs[pid].pgid == job.pid]
        proctree.signal_all(look.procs, group, sig)

    def kill(self, key: str) -> None:
        """Begin to kill all that a job ever had; `gone` is told once it is, or when it takes too long."""
        job = self.table.get(key)
        if job is None:
            self.tell(ev="gone", job=key, left=[])
        elif job.kill is None:
            self._begin_kill(job)
        elif job.kill.is_late:
            self.tell(ev="gone", job=key, left=job.kill.left[:LEFT_SHOWN])

    def _begin_kill(self, job: Job) -> None:
        """As the job's user if no other job needs that user (a build beside the instance it is for)."""
        others = [other for other in self.table.values() if other is not job and other.uid == job.uid is not None]
        is_shared = any(other.is_live or other.kill is not None for other in others)
        uid = None if is_shared else job.uid
        for one in (job, *([] if is_shared else others)):  # what ended jobs of the user left goes along
            one.kill = ladder.Kill(one.key, uid, time.monotonic())
        if job.is_live:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(job.pid, signal.SIGKILL)  # most jobs are gone with this; then comes the rest of it

    def is_emptying(self, uid: int | None) -> bool:
        """Whether a process started now as that user would be killed along with its predecessors."""
        emptied = {job.kill.uid for job in self.table.values() if job.kill is not None}
        return uid is not None and uid in emptied

    def _roots(self) -> list[proctree.Root]:
        users = Counter(job.uid for job in self.table.values())
        roots = []
        for job in self.table.values():
            # The user tells whose a process is if one job has it, or if all that have it are being killed.
            is_telling = users[job.uid] == 1 or self.is_emptying(job.uid)
            roots.append(proctree.Root(job.key, job.pid, job.start_ticks, job.uid if is_telling else None))
        return roots

    def _look(self, now: float) -> ladder.Look:
        procs = proctree.scan()
        members, strays = proctree.assign(procs, os.getpid(), self._roots(), _job_of)
        strays = [pid for pid in strays if pid != self.killer.pid]
        ripe = self.strays.update(now, procs, strays)
        # A pass costs CPU by the number of processes; half of a core is enough for looking.
        end = time.monotonic()
        self.look_after = end + (end - now)
        return ladder.Look(procs, members, ripe, len(strays) > len(ripe))

    def _advance_kills(self, now: float) -> None:
        kills = [(job, job.kill) for job in self.table.values() if job.kill is not None]
        due = [(job, kill) for job, kill in kills if kill.due <= now and kill.strike(now, self.killer)]
        if not due or now < self.look_after:
            return
        look = self._look(now)
        for job, kill in due:
            if kill.advance(now, look, self.killer):
                self._drop(job)
                self.tell(ev="gone", job=job.key, left=[])
            elif now >= kill.deadline and not kill.is_late:
                kill.is_late = True
                self.tell(ev="gone", job=job.key, left=kill.left[:LEFT_SHOWN])

    # What is left behind

    def _tick(self, now: float) -> None:
        for job in list(self.table.values()):
            if job.kill is None and job.exited_at is not None and now - job.exited_at > LINGER_S:
                self.kill(job.key)
        self._kill_orphans(now)
        if self.groups is not None:
            self.groups.advance()
        self.tick_at = now + (TICK_S if self.strays.is_empty else SUSPECT_TICK_S)
        if self.told != (self.orphans, self.orphans_killed):
            self.told = (self.orphans, self.orphans_killed)
            self.tell(ev="stats", orphans=self.orphans, orphans_killed=self.orphans_killed)

    def _kill_orphans(self, now: float) -> None:
        kills = [job.kill for job in self.table.values() if job.kill is not None]
        self.orphans = sum(len(kill.left) for kill in kills if kill.is_late)
        known = {job.pid for job in self.table.values() if job.is_live} | {self.killer.pid}
        known |= {pid for pid, key in self.adopted.items() if key in self.table}
        if known.issuperset(proctree.children()):
            self.strays.update(now, {}, ())
            return
        look = self._look(now)
        me = os.getpid()
        for key, pids in look.members.items():
            self.adopted.update({pid: key for pid in pids if look.procs[pid].ppid == me})
        proctree.signal_all(look.procs, look.strays, signal.SIGKILL)
        self.orphans += len(look.strays)
        self.orphans_killed += len(look.strays)


def _job_of(pid: int) -> str | None:
    return proctree.variable(pid, messages.JOB_VARIABLE)
