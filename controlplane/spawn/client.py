"""The Trio side of the spawner: start processes, hear how they end, kill all they ever had.

`open_spawner` starts the spawner process, starts it again should it die or no
longer answer, and ends it. While it is away every job is lost, whatever reparented to the control
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
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

import trio
from attrs import define, field

from controlplane.spawn import cgroups, linux, messages, proctree
from controlplane.spawn.burial import bury
from controlplane.spawn.confinement import GATED_NETWORK
from controlplane.spawn.job import LOST, Exit, Features, Job, JobSpec, SpawnerStatistics, SpawnFailed
from controlplane.spawn.link import Link, open_link
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
CLOSE_LIMIT_S = 4.0
"""For the spawner to end once its socket is closed; it takes 2 s at the most."""
EXIT_LIMIT_S = 1.0
"""From the end of its messages to the end of the process."""
SHELL_SIGNALS = 128
FIRST_RETRY_S = 0.1
LONGEST_RETRY_S = 5.0
"""Pause before a spawner that cannot be started is tried again; doubles."""


class Gatekeeper(Protocol):
    """Who lets jobs out to the network, each as its `JobSpec.gate` says."""

    def admit(self, key: str, gate: Any, /) -> int:
        """A descriptor for the job to send its sockets over; the caller closes it. Raises OSError: too many files."""
        ...

    def drop(self, key: str, /) -> None:
        """The job is gone; one that is not known is fine."""


@define(eq=False)
class Spawner:
    """Starts jobs. Made by `open_spawner`; `marker` is the owner id in every child's environment."""

    marker: str
    features: Features = field(factory=Features, init=False)
    gatekeeper: Gatekeeper | None = field(default=None, init=False)
    """For jobs whose network is gated; set once it is there."""
    on_fenced: Callable[[], None] | None = field(default=None, init=False)
    """Called before anybody hears of an end that came when the fence had fallen."""
    _held_fds: tuple[int, ...] = field(default=(), repr=False)
    _jobs: dict[str, Job] = field(factory=dict, init=False, repr=False)
    _link: Link | None = field(default=None, init=False, repr=False)
    _ready: trio.Event = field(factory=trio.Event, init=False, repr=False)
    _scope: trio.CancelScope = field(factory=lambda: trio.CancelScope(shield=True), init=False, repr=False)
    _finished: trio.Event = field(factory=trio.Event, init=False, repr=False)
    _has_served: bool = field(default=False, init=False)
    _failure: OSError | SpawnFailed | None = field(default=None, init=False)
    """Why the first spawner process never served."""
    _is_closing: bool = field(default=False, init=False)
    _spawned: int = field(default=0, init=False)
    _restarts: int = field(default=0, init=False)
    _fence: float | None = field(default=None, init=False)
    _orphans: int = field(default=0, init=False)
    _killed: list[int] = field(factory=lambda: [0], init=False, repr=False)
    """Orphans killed, by each spawner process in turn."""

    @property
    def pid(self) -> int | None:
        """Of the process that starts all jobs and inherits their orphans; None while there is none."""
        return None if self._link is None else self._link.pid

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
        started = [job for job in self._jobs.values() if job.pid]
        users = Counter(job.spec.own_user for job in started)
        return [
            proctree.Root(job.id, job.pid, job.start_ticks, uid if users[uid] == 1 else None)
            for job in started
            for uid in [job.spec.own_user]
        ]

    def set_fence(self, until: float | None) -> None:
        """Jobs other than services may live until then, by `messages.fence_clock`, and are killed whatever we do.

        None: without an end. A spawner that takes the place of one that died is told as well, before it starts anything.
        """
        self._fence = until
        self._tell(op="fence", until=until)

    @property
    def _is_fenced(self) -> bool:
        return self._fence is not None and messages.fence_clock() >= self._fence

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
                pair = _socket_pair() if spec.stdin_socket and not ours else os.pipe2(os.O_CLOEXEC)
                ours.append(pair[our_end])
                theirs.append(pair[1 - our_end])
        except OSError as error:
            for fd in (*ours, *theirs):
                os.close(fd)
            raise SpawnFailed("descriptors", error.errno or 0, f"no pipes for the process: {error.strerror}") from error
        for fd in ours:
            os.set_blocking(fd, False)
        stdin, stdout, stderr = ours
        job = Job(secrets.token_hex(8), spec, stdin, stdout, stderr, self._tell, self._count)
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
            confinement=spec.confinement,
        )
        try:
            child_ends.insert(0, messages.to_memfd(order))
            if spec.confinement.network == GATED_NETWORK:
                child_ends.append(self._gate(job))
            link.send_nowait(messages.encode({"op": "spawn", "job": job.id}), child_ends)
        except OSError as error:
            raise SpawnFailed("spawner", error.errno or 0, f"the spawner cannot be asked: {error.strerror}") from error
        finally:
            for fd in child_ends:
                os.close(fd)

    def _gate(self, job: Job) -> int:
        if self.gatekeeper is None:
            raise SpawnFailed("gate", errno.EAGAIN, "nobody keeps the gate to the network")
        return self.gatekeeper.admit(job.id, job.spec.gate)

    def _close_gate(self, job: Job) -> None:
        if self.gatekeeper is not None and job.spec.confinement.network == GATED_NETWORK:
            self.gatekeeper.drop(job.id)

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
        if message["ev"] in ("exit", "failed") and self._is_fenced and self.on_fenced is not None:
            self.on_fenced()
        match message["ev"]:
            case "hello":
                self.features = Features.from_document(message["features"])
                self._tell(op="fence", until=self._fence)
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
                code = _code_inside(job.spec, message["code"])
                job._on_exit(Exit(code, max_rss_bytes=message["max_rss_bytes"]))
            case "gone" if job:
                if not message["left"]:
                    self._jobs.pop(job.id, None)
                    self._close_gate(job)
                job._on_killed(message["left"])

    def _bury_job(self, job: Job) -> None:
        self._jobs.pop(job.id, None)
        self._close_gate(job)
        job._on_exit(LOST)
        job._on_killed([])

    # Running

    async def _run(self) -> None:
        """Keep one spawner process alive until `_close`. Shielded: `_close` ends it, always."""
        try:
            with self._scope:
                await self._serve_first_link()
                pause = FIRST_RETRY_S
                while not self._is_closing and self._failure is None:
                    self._restarts += 1
                    self._killed.append(0)
                    log.error("the spawner died; starting another (time %d)", self._restarts)
                    began = trio.current_time()
                    try:
                        await self._serve_link()
                    except OSError as error:
                        log.error("the spawner cannot be started: %s", error)
                    if trio.current_time() - began > LONGEST_RETRY_S:
                        pause = FIRST_RETRY_S
                    elif not self._is_closing:
                        await trio.sleep(pause)
                        pause = min(pause * 2, LONGEST_RETRY_S)
        finally:
            self._ready.set()
            self._finished.set()

    async def _serve_first_link(self) -> None:
        if self._is_closing:
            return
        try:
            await self._serve_link()
        except OSError as error:
            self._failure = error
        else:
            if not self._has_served and not self._is_closing:
                self._failure = SpawnFailed(
                    "spawner", errno.EPIPE, "the spawner ended at once; its last words are above"
                )

    async def _serve_link(self) -> None:
        """One spawner process, from its start to the burial of what it left."""
        link = self._link = open_link(self.marker, self._held_fds)

        def on_message(message: dict[str, Any]) -> None:
            self._on_message(message)
            if message["ev"] == "hello":
                hello.deadline = math.inf
                link.is_ready = self._has_served = True

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
            await trio.to_thread.run_sync(cgroups.sweep, self.marker)
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


def _socket_pair() -> tuple[int, int]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return one.detach(), other.detach()


def _code_inside(spec: JobSpec, code: int) -> int:
    """How the job's own program ended: bubblewrap makes 128 + n of a signal, as a shell does."""
    is_signal = spec.confinement.level == "namespaced" and SHELL_SIGNALS < code <= SHELL_SIGNALS + signal.SIGRTMAX
    return SHELL_SIGNALS - code if is_signal else code


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
            # Not `nursery.start`: a cancel would not reach the shielded task, and the nursery would wait for ever.
            nursery.start_soon(spawner._run)
            try:
                await spawner._ready.wait()
                if spawner._failure is None:
                    yield spawner
            finally:
                with trio.CancelScope(shield=True):  # bounded by CLOSE_LIMIT_S and the burial's own limit
                    await spawner._close()
        if spawner._failure is not None:
            raise spawner._failure  # outside the nursery, which would wrap it
    finally:
        linux.set_subreaper(was_subreaper)


async def _sweep(marker: str) -> None:
    try:
        killed = await trio.to_thread.run_sync(sweep, marker)
        await trio.to_thread.run_sync(cgroups.sweep, marker)
    except LeftOvers as left:
        # They have been sent SIGKILL and run no code any more: no reason not to start.
        log.error("of an earlier life: %s", left)
    else:
        if killed:
            log.warning("killed %d processes that an earlier life of this control plane had left", killed)
