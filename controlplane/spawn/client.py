"""The Trio side of the spawner: start processes, hear how they end, kill all they ever had.

`open_spawner` starts the spawner process, starts it again should it die, and
ends it. While it is away every job is lost, whatever reparented to the control
plane is killed, and `spawn` waits. Refuses to fork by itself, to touch a
process that is not a descendant, and to reap a child that somebody else waits for.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import secrets
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal

import trio
from attrs import define, field, frozen

from controlplane.spawn import linux, messages, proctree
from controlplane.spawn.burial import bury
from controlplane.spawn.link import Link, open_link
from controlplane.spawn.pool import is_pooled
from controlplane.spawn.sweep import LeftOvers, sweep

if TYPE_CHECKING:
    from controlplane.spawn.uids import UidPool

__all__ = [
    "Exit",
    "Features",
    "Job",
    "JobSpec",
    "LeftOvers",
    "SpawnFailed",
    "Spawner",
    "SpawnerStatistics",
    "open_spawner",
]

log = logging.getLogger(__name__)

SPAWN_LIMIT_S = 15.0
"""From request to exec: milliseconds, unless the host is out of memory or a file server is dead."""
READY_LIMIT_S = 10.0
"""How long a `spawn` waits for a spawner that is being started again."""
KILL_LIMIT_S = 7.0
"""For the spawner's answer to a kill, which comes after 5 s at the latest."""
CLOSE_LIMIT_S = 4.0
"""For the spawner to end once its socket is closed; it takes 2 s at the most."""
EXIT_LIMIT_S = 1.0
"""From the end of its messages to the end of the process."""
FIRST_RETRY_S = 0.1
LONGEST_RETRY_S = 5.0
"""Pause before a spawner that cannot be started is tried again; doubles."""


@frozen(kw_only=True)
class JobSpec:
    """One process to start.

    Args:
        argv: The command; a name without a slash is looked up on `env["PATH"]` by the target user.
        env: The whole environment; `CORRAL_OWNER` and `CORRAL_JOB` are added.
        cwd: Absolute; entered as the target user.
        uid: User (and group) id to run as when Corral is root; then needed for every instance and build.
        rlimits: Soft and hard limit by name without `RLIMIT_`; never above the host's hard limit. CORE is always 0.
        private_tmp: A folder that the process sees as /tmp; ignored where `Spawner.features` lacks it.
        stop_signal: For a service: its first signal when the control plane goes.
        userns_root: For a service, as root: see itself as `nobody` in a user namespace of its own.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    cwd: str
    kind: Literal["instance", "build", "service"] = "instance"
    uid: int | None = None
    rlimits: Mapping[str, int] = field(factory=dict)
    private_tmp: str | None = None
    stop_signal: int = signal.SIGTERM
    userns_root: bool = False


@frozen
class Exit:
    """How a job's leader ended.

    Args:
        code: Exit status; negative is minus the signal number.
        lost: The spawner died, and the job with it; `code` is -9.
        max_rss_bytes: The most memory that the leader, or one child it waited for, had; None if lost.
    """

    code: int
    lost: bool = False
    max_rss_bytes: int | None = None


LOST = Exit(-signal.SIGKILL, lost=True)


@define
class SpawnFailed(Exception):
    """Nothing runs. `stage` is the step that failed, `message` one sentence for a person."""

    stage: str
    errno: int
    message: str

    def __str__(self) -> str:
        return f"{self.stage}: {self.message}"


@frozen
class Features:
    """What this host lets the spawner do."""

    private_tmp: bool = False
    userns_root: bool = False


@frozen(kw_only=True)
class SpawnerStatistics:
    """Figures since `open_spawner`."""

    jobs: int
    """Jobs whose leader runs."""
    spawned: int
    orphans: int
    """Processes of ours that belong to no live job, at the last look: must read 0."""
    orphans_killed: int
    restarts: int
    """Times the spawner died and was started again."""


@define(eq=False)
class Job:
    """A process and all that it starts.

    The descriptors are our ends of its standard streams, non-blocking. Whoever
    takes the job owns them, and closes them.
    """

    id: str
    spec: JobSpec
    stdin_fd: int
    stdout_fd: int
    stderr_fd: int
    _spawner: Spawner = field(repr=False)
    pid: int = 0
    start_ticks: int = 0
    exit: Exit | None = field(default=None, init=False)
    """How the leader ended; None while it runs."""
    _failure: SpawnFailed | None = field(default=None, init=False, repr=False)
    _settled: trio.Event = field(factory=trio.Event, init=False, repr=False)
    _ended: trio.Event = field(factory=trio.Event, init=False, repr=False)
    _is_gone: bool = field(default=False, init=False)
    _left: list[int] = field(factory=list, init=False, repr=False)
    _kills: list[trio.Event] = field(factory=list, init=False, repr=False)

    async def wait(self) -> Exit:
        """Until the leader has ended, whoever still holds its streams. Any number of tasks may wait."""
        await self._ended.wait()
        assert self.exit is not None
        return self.exit

    def signal_nowait(self, sig: int) -> None:
        """Signal the process group; does nothing once it is gone."""
        if not self._is_gone:
            self._spawner._tell(op="signal", job=self.id, sig=int(sig))

    async def kill_all(self) -> None:
        """SIGKILL everything the job ever had, until none is left; a second time does nothing.

        Raises:
            LeftOvers: some cannot be killed (after 5 s); the spawner goes on trying.
        """
        if not self._is_gone:
            answered = trio.Event()
            self._kills.append(answered)
            self._spawner._tell(op="kill", job=self.id)
            with trio.move_on_after(KILL_LIMIT_S):
                await answered.wait()
        if not self._is_gone:
            raise LeftOvers(self._left or [self.pid])

    async def census(self) -> int:
        """Count the job's live processes; costs one pass over /proc, in a thread."""
        return await self._spawner._count(self)

    def close_stdin(self) -> None:
        """End of file for the process; the other streams stay open."""
        self.stdin_fd = _close(self.stdin_fd)

    def close_fds(self) -> None:
        """Close our ends of all three streams; those closed already stay so."""
        self.close_stdin()
        self.stdout_fd = _close(self.stdout_fd)
        self.stderr_fd = _close(self.stderr_fd)

    def _on_started(self, failure: SpawnFailed | None = None) -> None:
        self._failure = failure
        self._settled.set()

    def _on_exit(self, exit_: Exit) -> None:
        self.exit = self.exit or exit_
        self._ended.set()

    def _on_killed(self, left: list[int]) -> None:
        self._left = left
        self._is_gone = not left
        while self._kills:
            self._kills.pop().set()


@define(eq=False)
class Spawner:
    """Starts jobs. Made by `open_spawner`; `marker` is the owner id in every child's environment."""

    marker: str
    features: Features = field(factory=Features, init=False)
    _held_fds: tuple[int, ...] = field(default=(), repr=False)
    _jobs: dict[str, Job] = field(factory=dict, init=False, repr=False)
    _link: Link | None = field(default=None, init=False, repr=False)
    _ready: trio.Event = field(factory=trio.Event, init=False, repr=False)
    _scope: trio.CancelScope = field(factory=lambda: trio.CancelScope(shield=True), init=False, repr=False)
    _finished: trio.Event = field(factory=trio.Event, init=False, repr=False)
    _has_served: bool = field(default=False, init=False)
    _is_closing: bool = field(default=False, init=False)
    _spawned: int = field(default=0, init=False)
    _restarts: int = field(default=0, init=False)
    _orphans: int = field(default=0, init=False)
    _killed: list[int] = field(factory=lambda: [0], init=False, repr=False)
    """Orphans killed, by each spawner process in turn."""

    async def spawn(self, spec: JobSpec) -> Job:
        """Start a process; returns once it has become its program.

        Raises:
            SpawnFailed: it did not; nothing is left of it.
        """
        link = await self._ready_link()
        job, child_ends = self._new_job(spec)
        try:
            self._send_order(link, job, child_ends)
            with trio.move_on_after(SPAWN_LIMIT_S):
                await job._settled.wait()
            if not job._settled.is_set():
                raise SpawnFailed("timeout", errno.ETIMEDOUT, f"nothing runs after {SPAWN_LIMIT_S:g} s")
            if job._failure is not None:
                raise job._failure
        except BaseException:
            self._abandon(job)
            raise
        self._spawned += 1
        return job

    def statistics(self) -> SpawnerStatistics:
        """The figures as of now; those about orphans as of the spawner's last look, each second."""
        return SpawnerStatistics(
            jobs=sum(job.pid > 0 and job.exit is None for job in self._jobs.values()),
            spawned=self._spawned,
            orphans=self._orphans,
            orphans_killed=sum(self._killed),
            restarts=self._restarts,
        )

    def roots(self) -> list[proctree.Root]:
        """Where every job's tree begins, for `proctree.trees`; the key is `Job.id`."""
        live = [job for job in self._jobs.values() if job.pid]
        users = Counter(_own_user(job) for job in live if job.exit is None)
        roots = []
        for job in live:
            uid = _own_user(job)
            is_alone = users[uid] <= (job.exit is None)
            roots.append(proctree.Root(job.id, job.pid, job.start_ticks, uid if is_alone else None))
        return roots

    # Asking

    async def _ready_link(self) -> Link:
        with trio.move_on_after(READY_LIMIT_S):
            while not self._is_closing:
                if self._link is not None and self._link.is_ready:
                    return self._link
                await self._ready.wait()
        raise SpawnFailed("spawner", errno.EAGAIN, "the spawner is not there; it is being started again")

    def _new_job(self, spec: JobSpec) -> tuple[Job, list[int]]:
        ours: list[int] = []
        theirs: list[int] = []
        try:
            for our_end in (1, 0, 0):
                pair = os.pipe2(os.O_CLOEXEC)
                ours.append(pair[our_end])
                theirs.append(pair[1 - our_end])
        except OSError as error:
            for fd in (*ours, *theirs):
                os.close(fd)
            raise SpawnFailed("descriptors", error.errno or 0, f"no pipes for the process: {error.strerror}") from error
        for fd in ours:
            os.set_blocking(fd, False)
        stdin, stdout, stderr = ours
        job = Job(secrets.token_hex(8), spec, stdin, stdout, stderr, self)
        self._jobs[job.id] = job
        return job, theirs

    def _send_order(self, link: Link, job: Job, child_ends: list[int]) -> None:
        spec = job.spec
        order = messages.Order(
            argv=list(spec.argv),
            env={**spec.env, messages.OWNER_VARIABLE: self.marker, messages.JOB_VARIABLE: job.id},
            cwd=spec.cwd,
            kind=spec.kind,
            uid=spec.uid,
            rlimits=dict(spec.rlimits),
            private_tmp=spec.private_tmp,
            stop_signal=int(spec.stop_signal),
            userns_root=spec.userns_root,
        )
        try:
            child_ends.insert(0, messages.to_memfd(order))
            link.send_nowait(messages.encode({"op": "spawn", "job": job.id}), child_ends)
        except OSError as error:
            raise SpawnFailed("spawner", error.errno or 0, f"the spawner cannot be asked: {error.strerror}") from error
        finally:
            for fd in child_ends:
                os.close(fd)

    def _abandon(self, job: Job) -> None:
        """Nobody will take it: whatever runs of it is killed."""
        job.close_fds()
        if self._link is not None and not job._is_gone:
            self._tell(op="kill", job=job.id)
        else:
            self._jobs.pop(job.id, None)

    def _tell(self, **message: Any) -> None:
        """To a spawner that is not there, nothing need be said: its jobs are being buried."""
        if self._link is not None:
            with suppress(OSError):
                self._link.send_nowait(messages.encode(message))

    async def _count(self, job: Job) -> int:
        roots = self.roots()
        if self._link is None or all(root.key != job.id for root in roots):
            return 0
        reaper = self._link.pid

        def count() -> int:
            procs = proctree.scan()
            members = proctree.assign(procs, reaper, roots, _job_of).members[job.id]
            return sum(procs[pid].is_live for pid in members)

        return await trio.to_thread.run_sync(count)

    # Hearing

    def _on_message(self, message: dict[str, Any]) -> None:
        job = self._jobs.get(message.get("job", ""))
        match message["ev"]:
            case "hello":
                self.features = Features(**message["features"])
                self._ready.set()
            case "stats":
                self._orphans = message["orphans"]
                self._killed[-1] = message["orphans_killed"]
            case "spawned" if job:
                job.pid, job.start_ticks = message["pid"], message["start_ticks"]
                job._on_started()
            case "failed" if job:
                job._on_started(SpawnFailed(message["stage"], message["errno"], message["message"]))
                self._bury_job(job)
            case "exit" if job:
                job._on_exit(Exit(message["code"], max_rss_bytes=message["max_rss_bytes"]))
            case "gone" if job:
                if not message["left"]:
                    self._jobs.pop(job.id, None)
                job._on_killed(message["left"])

    def _bury_job(self, job: Job) -> None:
        self._jobs.pop(job.id, None)
        job._on_exit(LOST)
        job._on_killed([])

    # Running

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        """Keep one spawner process alive until `_close`. Shielded: `_close` ends it, always."""
        try:
            with self._scope:
                await self._serve_link(task_status.started)
                if not self._has_served:
                    raise SpawnFailed("spawner", errno.EPIPE, "the spawner ended at once; its last words are above")
                pause = FIRST_RETRY_S
                while not self._is_closing:
                    self._restarts += 1
                    self._killed.append(0)
                    log.error("the spawner died; starting another (time %d)", self._restarts)
                    began = trio.current_time()
                    try:
                        await self._serve_link(lambda: None)
                    except OSError as error:
                        log.error("the spawner cannot be started: %s", error)
                    if trio.current_time() - began > LONGEST_RETRY_S:
                        pause = FIRST_RETRY_S
                    elif not self._is_closing:
                        await trio.sleep(pause)
                        pause = min(pause * 2, LONGEST_RETRY_S)
        finally:
            self._finished.set()

    async def _serve_link(self, on_ready: Callable[[], None]) -> None:
        """One spawner process, from its start to the burial of what it left."""
        link = self._link = open_link(self.marker, self._held_fds)

        def on_message(message: dict[str, Any]) -> None:
            self._on_message(message)
            if message["ev"] == "hello":
                hello.deadline = math.inf
                link.is_ready = self._has_served = True
                on_ready()

        try:
            with trio.move_on_after(READY_LIMIT_S) as hello:
                await link.run(on_message)
        finally:
            if self._ready.is_set():
                self._ready = trio.Event()
            self._link = None
            with trio.CancelScope(shield=True):
                await self._bury(link)

    async def _bury(self, link: Link) -> None:
        """The spawner has closed its end: make sure that it is dead, and all it had with it."""
        await link.reap(EXIT_LIMIT_S if self._is_closing else 0)
        roots = self.roots()
        jobs = list(self._jobs.values())
        for job in jobs:
            job._on_started(SpawnFailed("spawner", errno.EPIPE, "the spawner died"))
            job._on_exit(LOST)
        try:
            await trio.to_thread.run_sync(bury, self.marker, roots, link.start_ticks)
        except LeftOvers as left:
            log.error("after the spawner's end: %s", left)
            self._orphans = len(left.pids)
        for job in jobs:
            self._bury_job(job)

    async def _close(self) -> None:
        self._is_closing = True
        self._ready.set()
        if self._link is not None:
            self._link.shut_down()
        with trio.move_on_after(CLOSE_LIMIT_S):
            await self._finished.wait()
        self._scope.cancel()
        await self._finished.wait()


def _close(fd: int) -> int:
    if fd >= 0:
        os.close(fd)
    return -1


def _own_user(job: Job) -> int | None:
    spec = job.spec
    return spec.uid if spec.kind != "service" and is_pooled(spec.uid) else None


def _job_of(pid: int) -> str | None:
    return proctree.variable(pid, messages.JOB_VARIABLE)


@asynccontextmanager
async def open_spawner(*, marker: str, uids: UidPool | None = None) -> AsyncIterator[Spawner]:
    """Start the spawner; kills the leftovers of an earlier life first, and everything at the end.

    The caller holds the lock of the home that `marker` belongs to.

    Args:
        marker: The owner id, `CORRAL_OWNER` in every child's environment.
        uids: The pool that jobs' user ids are claimed from: the spawner keeps the claims for as long as it has
            anything to kill, even if the control plane is gone.

    Raises:
        OSError, SpawnFailed: the spawner cannot be started.
    """
    was_subreaper = linux.is_subreaper()
    linux.set_subreaper(True)
    try:
        await _sweep(marker)
        spawner = Spawner(marker, held_fds=uids.held_fds if uids is not None else ())
        async with trio.open_nursery() as nursery:
            await nursery.start(spawner._run)
            try:
                yield spawner
            finally:
                with trio.CancelScope(shield=True):  # bounded by CLOSE_LIMIT_S and the burial's own limit
                    await spawner._close()
    finally:
        linux.set_subreaper(was_subreaper)


async def _sweep(marker: str) -> None:
    try:
        killed = await trio.to_thread.run_sync(sweep, marker)
    except LeftOvers as left:
        # They have been sent SIGKILL and run no code any more: no reason not to start.
        log.error("of an earlier life: %s", left)
    else:
        if killed:
            log.warning("killed %d processes that an earlier life of this control plane had left", killed)
