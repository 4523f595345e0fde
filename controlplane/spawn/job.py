"""What a job is to whoever starts one: what to run, how it ended, and the handle in between."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import trio
from attrs import define, field, frozen

from controlplane.spawn.cgroups import Hierarchy
from controlplane.spawn.confinement import Confinement
from controlplane.spawn.pool import is_pooled
from controlplane.spawn.sweep import LeftOvers

KILL_LIMIT_S = 7.0
"""For the spawner's answer to a kill, which comes after 5 s at the latest."""


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
        userns_root: For a service that refuses to be root: see itself as `nobody` in a user namespace of its own.
        stdin_socket: Its standard input is one end of a SOCK_SEQPACKET pair, `Job.stdin_fd` the other: both may talk.
        confinement: How far it is shut in; a level that `Spawner.features` lacks fails.
        gate: Where it may go, for whoever keeps the gate (`Spawner.gatekeeper`), if its network is gated.
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
    stdin_socket: bool = False
    confinement: Confinement = Confinement()
    gate: object = field(default=None, repr=False)

    @property
    def own_user(self) -> int | None:
        """The user id that is given to one instance alone; None for a service, and where there is none."""
        return self.uid if self.kind != "service" and is_pooled(self.uid) else None


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
class Level:
    """Whether this host can give an isolation level.

    Args:
        name: One of `confinement.LEVELS`.
        available: Whether it was tried, and worked.
        why: What is missing, in a sentence; empty where nothing is.
        unlock: What an operator can do about that.
    """

    name: str
    available: bool
    why: str = ""
    unlock: str = ""


@frozen
class Features:
    """What this host lets the spawner do.

    Args:
        levels: All of `confinement.LEVELS`, from the weakest to the strongest.
        landlock: The kernel's Landlock ABI; 0: none.
        hierarchy: Where control groups are made; None: nowhere.
    """

    private_tmp: bool = False
    userns_root: bool = False
    levels: tuple[Level, ...] = (Level("process", available=True),)
    landlock: int = 0
    hierarchy: Hierarchy | None = None

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Features:
        """Read what the spawner says in its `hello`."""
        levels = tuple(Level(**level) for level in document["levels"])
        hierarchy = None if document["hierarchy"] is None else Hierarchy(**document["hierarchy"])
        return cls(**dict(document) | {"levels": levels, "hierarchy": hierarchy})

    def can_give(self, level: str) -> bool:
        """Whether a level of this name is available."""
        return any(one.name == level and one.available for one in self.levels)


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
    _tell: Callable[..., None] = field(repr=False)
    _count: Callable[[Job], Awaitable[int]] = field(repr=False)
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
            self._tell(op="signal", job=self.id, sig=int(sig))

    async def kill_all(self) -> None:
        """SIGKILL everything the job ever had, until none is left; a second time does nothing.

        Raises:
            LeftOvers: some cannot be killed (after 5 s); the spawner goes on trying.
        """
        if not self._is_gone:
            answered = trio.Event()
            self._kills.append(answered)
            self._tell(op="kill", job=self.id)
            with trio.move_on_after(KILL_LIMIT_S):
                await answered.wait()
        if not self._is_gone:
            raise LeftOvers(self._left or [self.pid])

    async def census(self) -> int:
        """Count the job's live processes; costs one pass over /proc, in a thread."""
        return await self._count(self)

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


def _close(fd: int) -> int:
    if fd >= 0:
        os.close(fd)
    return -1
