"""Who runs on this host and whose descendant it is, from one pass over /proc.

`parse_stat`, `assign` and `trees` are pure; `scan`, `children`, `variable` and
`signal_exactly` do the I/O. A process is always named by its pid together with
its start time, since a pid alone may be somebody else's a moment later.

Standard library only: the spawner runs without site-packages.
"""

from __future__ import annotations

# ruff: noqa: PTH116 - a Path per process would double the cost of a pass
import os
import signal
from typing import TYPE_CHECKING, NamedTuple

from controlplane.spawn import linux

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
STAT_BYTES = 1024
"""A stat line has 52 numbers and a name of at most 64 bytes."""
FIELDS_READ = 22
"""Of those after the name: the rest of the line is left as it is."""
ENVIRON_BYTES = 4 << 20
"""As much of an environment as is searched for a marker; the kernel's own limit is lower by default."""


class Proc(NamedTuple):
    """One process. `cpu_ticks` includes what its waited-for children used, so a tree's sum only grows."""

    ppid: int
    pgid: int
    sid: int
    cpu_ticks: int
    rss_bytes: int
    start_ticks: int
    uid: int
    state: str
    threads: int

    @property
    def is_live(self) -> bool:
        """Not a zombie; a process whose main thread has ended and others run looks like one, and lives."""
        return self.state not in "ZX" or self.threads > 1


class Root(NamedTuple):
    """Where a job's tree begins. `uid` is given only where every process of that user is the job's.

    `marker` is what the job's processes carry in their environment, for `trees`.
    """

    key: str
    pid: int
    start_ticks: int
    uid: int | None = None
    marker: str | None = None


class Usage(NamedTuple):
    """What the live processes of one tree use together."""

    cpu_ticks: int = 0
    rss_bytes: int = 0
    processes: int = 0
    threads: int = 0


class Assignment(NamedTuple):
    """Which process is whose: job key to pids, and the descendants that are nobody's."""

    members: dict[str, list[int]]
    strays: list[int]


def parse_stat(line: bytes, uid: int) -> Proc:
    """Read a line of /proc/PID/stat (proc_pid_stat(5)); the name in it may hold spaces and brackets.

    Raises:
        ValueError, IndexError: it is not such a line.
    """
    fields = line[line.rindex(b")") + 2 :].split(None, FIELDS_READ)
    return Proc(
        ppid=int(fields[1]),
        pgid=int(fields[2]),
        sid=int(fields[3]),
        cpu_ticks=int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14]),
        rss_bytes=int(fields[21]) * PAGE_BYTES,
        start_ticks=int(fields[19]),
        uid=uid,
        state=fields[0].decode("ascii"),
        threads=int(fields[17]),
    )


def _read(path: str, limit: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, limit)
    finally:
        os.close(fd)


def look(pid: int) -> Proc | None:
    """One process, or None when there is none of that pid."""
    folder = f"/proc/{pid}"
    try:
        return parse_stat(_read(f"{folder}/stat", STAT_BYTES), os.stat(folder).st_uid)
    except (OSError, ValueError, IndexError):
        return None


def scan() -> dict[int, Proc]:
    """Every process of the host, in one pass: about 25 ms for 1,600."""
    found = {}
    for name in os.listdir("/proc"):
        if name[0] in "123456789":
            pid = int(name)
            proc = look(pid)
            if proc is not None:
                found[pid] = proc
    return found


def children() -> list[int]:
    """The calling (single-threaded) process's children, zombies included, without a pass over /proc."""
    me = os.getpid()
    try:
        return [int(word) for word in _read(f"/proc/{me}/task/{me}/children", 1 << 20).split()]
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return [pid for pid, proc in scan().items() if proc.ppid == me]


def _environ(pid: int) -> bytes:
    return _read(f"/proc/{pid}/environ", ENVIRON_BYTES)


def _environ_as(pid: int, uid: int) -> bytes:
    """As root without CAP_SYS_PTRACE (a default container): look with the process's own file system ids."""
    linux.set_filesystem_ids(uid, os.stat(f"/proc/{pid}").st_gid)
    try:
        return _environ(pid)
    finally:
        linux.set_filesystem_ids(0, 0)


def variable(pid: int, name: str) -> str | None:
    """A variable of a process's environment as it was at exec; None if unset, unreadable or gone."""
    try:
        block = _environ(pid)
    except PermissionError:
        if os.geteuid() != 0:
            return None
        try:
            block = _environ_as(pid, os.stat(f"/proc/{pid}").st_uid)
        except OSError:
            return None
    except OSError:
        return None
    prefix = name.encode() + b"="
    for entry in block.split(b"\0"):
        if entry.startswith(prefix):
            return os.fsdecode(entry[len(prefix) :])
    return None


def signal_exactly(pid: int, start_ticks: int, sig: int) -> bool:
    """Signal a process if it is still the one that started at `start_ticks`; says whether it was.

    Raises:
        PermissionError: it is, and belongs to somebody else.
    """
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        proc = look(pid)  # after the open: whoever this shows is who the descriptor stands for
        if proc is None or proc.start_ticks != start_ticks:
            return False
        signal.pidfd_send_signal(fd, sig)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def signal_all(procs: Mapping[int, Proc], pids: Iterable[int], sig: int) -> None:
    """Signal each of `pids` as `procs` shows it; one that cannot be signalled is left to the next look."""
    for pid in pids:
        try:
            signal_exactly(pid, procs[pid].start_ticks, sig)
        except OSError:
            continue


class _Claims:
    """What a process says by itself about whose it is."""

    def __init__(self, roots: Iterable[Root], carried: Mapping[int, str] | None = None) -> None:
        self.sessions: dict[int, Root] = {}
        self.users: dict[int, list[str]] = {}
        self._carried = carried or {}
        self._marked: dict[str, str] = {}
        for root in roots:
            self.sessions[root.pid] = root
            if root.marker is not None:
                self._marked[root.marker] = root.key
            if root.uid is not None:
                self.users.setdefault(root.uid, []).append(root.key)

    def by_session(self, pid: int, proc: Proc) -> str | None:
        for number in (proc.sid, proc.pgid, pid):
            root = self.sessions.get(number)
            if root is not None and proc.start_ticks >= root.start_ticks:
                return root.key
        return None

    def by_marker(self, pid: int) -> str | None:
        return self._marked.get(self._carried.get(pid, ""))


_STRAY = ""
"""Below the reaper, and no job's. A key is never empty; None stands for what is not below the reaper at all."""


def _verdicts(
    procs: Mapping[int, Proc], claims: _Claims, reaper: int | None, orphan: Callable[[int], str]
) -> dict[int, str | None]:
    """Pid to job key, walking down from the oldest ancestor; each process is looked at once."""
    verdict: dict[int, str | None] = {}

    def judge(pid: int, proc: Proc) -> str | None:
        if proc.uid in claims.users:
            return claims.users[proc.uid][0]
        above = verdict.get(proc.ppid)
        is_top = proc.ppid == reaper
        if reaper is not None and not is_top and above is None:
            return None
        claim = claims.by_session(pid, proc) or claims.by_marker(pid) or above
        if claim is not None or not is_top:
            return claim
        return orphan(pid) if proc.is_live else None  # a zombie is about to be reaped

    for start in procs:
        chain = []
        pid = start
        while pid not in verdict and pid in procs:
            verdict[pid] = None  # ends the walk should a reused pid have made a ring of this snapshot
            chain.append(pid)
            pid = procs[pid].ppid
        for link in reversed(chain):
            verdict[link] = judge(link, procs[link])
    return verdict


def assign(
    procs: Mapping[int, Proc], reaper: int, roots: Iterable[Root], marker_of: Callable[[int], str | None]
) -> Assignment:
    """Say for every descendant of `reaper` which job it belongs to.

    Nothing leaves the tree below a child subreaper, so a process is a job's if
    it runs as the job's own user, is in the leader's session, descends from a
    process of the job, or, once its parents are gone, carries the job's marker.

    Args:
        procs: One `scan`.
        reaper: The subreaper's pid.
        roots: The jobs' leaders; one that has ended still owns its session.
        marker_of: Reads the job marker from a process's environment; asked only for orphans.
    """
    roots = list(roots)
    claims = _Claims(roots)
    members: dict[str, list[int]] = {root.key: [] for root in roots}

    def orphan(pid: int) -> str:
        marker = marker_of(pid)
        return marker if marker in members else _STRAY

    strays = []
    for pid, key in _verdicts(procs, claims, reaper, orphan).items():
        if key == _STRAY:
            strays.append(pid)
        elif key is not None:
            for name in claims.users.get(procs[pid].uid, (key,)):
                members[name].append(pid)
    return Assignment(members, strays)


def trees(
    procs: Mapping[int, Proc], roots: Iterable[Root], carried: Mapping[int, str] | None = None
) -> dict[str, Usage]:
    """Sum what each job's live processes use: by its own user, else by session, descent and marker.

    Args:
        procs: One `scan`, or those of it that can be of a job.
        roots: The jobs' leaders.
        carried: The markers of processes whose parents are gone, by pid; None: nobody has looked.
    """
    roots = list(roots)
    sums = {root.key: [0, 0, 0, 0] for root in roots}
    for pid, key in _verdicts(procs, _Claims(roots, carried), None, lambda _pid: _STRAY).items():
        proc = procs[pid]
        if key and proc.is_live:
            total = sums[key]
            total[0] += proc.cpu_ticks
            total[1] += proc.rss_bytes
            total[2] += 1
            total[3] += proc.threads
    return {key: Usage(*total) for key, total in sums.items()}
