"""How a job is killed: everything it ever had, until none is left, one short step at a time.

A job whose user is its own is killed as that user with one `kill(-1)`, which
no fork can outrun. Any other job is stopped process by process until no new
one appears, and only then killed, so that a fork storm stands still first.

A step never waits: the spawner calls `advance` when `due` has come, and serves
all other jobs in between. Standard library only.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from controlplane.spawn.proctree import Proc, signal_all

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

FIRST_PAUSE_S = 0.002
LONGEST_PAUSE_S = 0.05
"""Between two looks at what is left; doubles from the first, since each look is a pass over /proc."""
LATE_PAUSE_S = 1.0
"""Between two looks once `LIMIT_S` is over: something cannot be killed (a dead file server, a debugger)."""
LIMIT_S = 5.0
"""After this the job's caller is told who is left; the spawner goes on."""
CLEAN_LOOKS = 2
"""A fork during a pass over /proc can be missed by it: one empty look is not enough."""
STRAY_AGE_S = 0.25
"""Far longer than an exec that has to wait for the disk."""
STOP_ROUNDS = 10
"""Rounds of stopping before killing anyway."""
USER_KILL_LIMIT_S = 1.0
"""A helper that takes longer has been stopped by those it came for; it is replaced."""


class UserKiller:
    """Kills every process of given users, through one short-lived process at a time.

    The helper takes a user's identity to do it, and so it could be signalled by
    that user's processes: that is why the spawner itself never does.
    """

    def __init__(self) -> None:
        self.pid: int | None = None
        self._users: frozenset[int] = frozenset()
        self._wanted: set[int] = set()
        self._started_at = 0.0

    def want(self, uid: int) -> None:
        self._wanted.add(uid)

    def has_killed(self, uid: int) -> bool:
        return uid not in self._wanted and uid not in self._users

    @property
    def is_busy(self) -> bool:
        return self.pid is not None or bool(self._wanted)

    def advance(self, now: float, inherited_fds: Collection[int]) -> None:
        """Start the next helper, or end one that hangs."""
        if self.pid is not None:
            if now - self._started_at > USER_KILL_LIMIT_S:
                with suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
            return
        if not self._wanted:
            return
        self._users, self._wanted = frozenset(self._wanted), set()
        self._started_at = now
        pid = os.fork()
        if pid == 0:
            _kill_as(self._users, inherited_fds)
        self.pid = pid

    def reaped(self, pid: int) -> bool:
        """Take note of a child that ended; says whether it was the helper."""
        if pid != self.pid:
            return False
        self.pid, self._users = None, frozenset()
        return True


def _kill_as(users: Iterable[int], inherited_fds: Collection[int]) -> NoReturn:
    """In the helper. The saved user id stays 0, so that it can go on to the next user."""
    try:
        for fd in inherited_fds:
            os.close(fd)
        for uid in users:
            os.setresuid(uid, uid, 0)
            with suppress(ProcessLookupError, PermissionError):
                os.kill(-1, signal.SIGKILL)
            os.setresuid(0, 0, 0)
    finally:
        os._exit(0)


class Strays:
    """Descendants that are no job's, and since when.

    A process in the middle of an exec shows no environment for a moment, and so
    no marker: it counts as a stray only once it has been one for `STRAY_AGE_S`.
    """

    def __init__(self) -> None:
        self._since: dict[tuple[int, int], float] = {}

    @property
    def is_empty(self) -> bool:
        return not self._since

    def update(self, now: float, procs: Mapping[int, Proc], strays: Iterable[int]) -> list[int]:
        """Take one look's strays; returns those that are strays for certain."""
        seen = [(pid, procs[pid].start_ticks) for pid in strays]
        self._since = {name: self._since.get(name, now) for name in seen}
        return [pid for (pid, _start), since in self._since.items() if now - since >= STRAY_AGE_S]


class Look(NamedTuple):
    """One pass over /proc, and what it says about every job."""

    procs: Mapping[int, Proc]
    members: Mapping[str, list[int]]
    strays: list[int]
    """Orphans without a marker: nobody can say whose they were, so whoever is being killed takes them along."""
    has_suspects: bool
    """There are processes that may turn out to be strays."""


class Kill:
    """One job's kill in progress.

    Args:
        key: The job.
        uid: The user that is the job's alone; None where it has none.
        now: Monotonic seconds.
    """

    def __init__(self, key: str, uid: int | None, now: float) -> None:
        self.key = key
        self.uid = uid
        self.due = now
        self.deadline = now + LIMIT_S
        self.is_late = False
        self.left: list[int] = []
        self._is_struck = False
        self._pause = FIRST_PAUSE_S
        self._stopped: set[int] = set()
        self._rounds = 0
        self._clean = 0

    def strike(self, now: float, killer: UserKiller) -> bool:
        """As the job's own user, if it has one; says whether it is worth looking at what is left."""
        if self.uid is None:
            return True
        if not self._is_struck:
            self._is_struck = True
            killer.want(self.uid)
        if killer.has_killed(self.uid):
            return True
        self.due = now + FIRST_PAUSE_S
        return False

    def advance(self, now: float, look: Look, killer: UserKiller) -> bool:
        """Take the next step; says whether nothing is left of the job."""
        self.left = list(look.members.get(self.key, ()))
        if self.uid is None:
            self.left += look.strays
        if not self.left:
            return self._is_gone(now, look)
        self._clean = 0
        if self.uid is None:
            self._stop_or_kill(look)
        else:
            killer.want(self.uid)
            signal_all(look.procs, self.left, signal.SIGKILL)  # one that had not become that user yet
        self._pause = min(self._pause * 2, LONGEST_PAUSE_S)
        self.due = now + (LATE_PAUSE_S if self.is_late else self._pause)
        return False

    def _is_gone(self, now: float, look: Look) -> bool:
        if self.uid is not None:
            return True
        self._clean += 1
        self.due = now + (LONGEST_PAUSE_S if look.has_suspects else FIRST_PAUSE_S)
        return self._clean >= CLEAN_LOOKS and not look.has_suspects

    def _stop_or_kill(self, look: Look) -> None:
        fresh = [pid for pid in self.left if pid not in self._stopped]
        if fresh and self._rounds < STOP_ROUNDS:
            self._rounds += 1
            self._stopped.update(fresh)
            signal_all(look.procs, fresh, signal.SIGSTOP)
            self._pause = 0.0
            return
        signal_all(look.procs, self.left, signal.SIGKILL)
        self._stopped.clear()
        self._rounds = 0
        self._pause = max(self._pause, FIRST_PAUSE_S)
