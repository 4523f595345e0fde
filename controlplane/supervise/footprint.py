"""What a pass over /proc does not tell: open files, shared memory, bytes written, and what lies in folders.

Each costs more than a line of /proc, so it is read of a share of the instances in
each pass, and more often of those that are near a limit or write much. Folders are
walked a little at a time. All of it blocks: for one worker thread at a time.
"""

from __future__ import annotations

# ruff: noqa: PTH116 - a Path per process would double the cost
import os
import time
from collections.abc import Generator, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from attrs import define, field, frozen

from controlplane.spawn.diskuse import ENTRIES_MAX, Tally, walk
from controlplane.spawn.held import Held, as_itself

if TYPE_CHECKING:
    from controlplane.spawn import proctree

LOOK_EVERY_S = 10.0
"""Open files and bytes written of an instance that is near no limit."""
NEAR = 0.7
"""Share of a limit from which an instance is looked at in every pass."""
WRITES_MUCH_BYTES = 1 << 20
"""Between two looks: the next look comes with the next pass."""
WALK_EVERY_S = 60.0
WALK_AFTER_BYTES = 16 << 20
"""Written since its folder was walked: it is walked again, before all others."""
WALK_BUDGET_S = 0.004
"""Of each pass, for folders of which nothing is known to have changed: less than half a percent of a core."""
URGENT_BUDGET_S = 0.05
"""Of each pass, for folders that are written to."""
WALKS_MAX = 16
"""Under way at one time: each has some folders open. What matters least begins anew later."""
LINKED = "app-"
"""Begins the name of a folder whose files are shared with the store of installs: those are nobody's."""


class Wanted(NamedTuple):
    """An instance to look at."""

    key: str
    roots: tuple[proctree.Root, ...]
    folder: str
    open_files: int
    """The limit; for `memory_bytes` and `disk_bytes` too."""
    memory_bytes: int
    disk_bytes: int


@frozen
class Footprint:
    """Of one instance; None: not read in this pass, `disk_bytes` not yet at all."""

    open_files: int | None = None
    memory_bytes: int | None = None
    """What its processes share counted once; read only where the sum of their own figures is near the limit."""
    disk_bytes: int | None = None
    """In its folder, and in files that have no name any more and that its processes hold open."""
    disk_beyond: str | None = None
    """Why there is more than could be counted, said of the server; None: there is not."""


@define
class _Known:
    """What was seen of one instance so far, since the process in charge was another."""

    pid: int
    seen_at: float = float("-inf")
    is_near: bool = False
    open_files: int | None = None
    written: int = 0
    """By its processes, so far; smaller than before when one has ended."""
    written_since: int = 0
    """Since its folder was walked last."""
    walked_at: float = float("-inf")
    walk: Generator[None] | None = None
    tally: Tally = field(factory=Tally)
    """What the walk under way has found in the folder."""
    held: Held = field(factory=Held)
    """And what in files without a name."""
    disk_bytes: int | None = None
    disk_beyond: str | None = None
    shared_bytes: int = 0
    """Memory that its processes have open, whether or not it has an address in any of them."""


class Index:
    """The processes of one pass by parent, session, user, and what they carry; see `proctree.trees`."""

    def __init__(self, procs: Mapping[int, proctree.Proc], carried: Mapping[int, str] | None = None) -> None:
        self._procs = procs
        self._marked: dict[str, list[int]] = {}
        for pid, marker in (carried or {}).items():
            self._marked.setdefault(marker, []).append(pid)

    @cached_property
    def _below(self) -> dict[int, list[int]]:
        return _by(((proc.ppid, pid) for pid, proc in self._procs.items()))

    @cached_property
    def _within(self) -> dict[int, list[int]]:
        return _by(((proc.sid, pid) for pid, proc in self._procs.items()))

    @cached_property
    def _of_user(self) -> dict[int, list[int]]:
        return _by(((proc.uid, pid) for pid, proc in self._procs.items()))

    def members(self, root: proctree.Root) -> set[int]:
        """Live processes of its own user, or of its session and with its marker, and below; see `proctree.trees`."""
        if root.uid is not None:
            found = set(self._of_user.get(root.uid, ()))
        else:
            marked = () if root.marker is None else self._marked.get(root.marker, ())
            found, to_do = set[int](), [root.pid, *self._within.get(root.pid, ()), *marked]
            while to_do:
                pid = to_do.pop()
                if pid not in found and pid in self._procs:
                    found.add(pid)
                    to_do += self._below.get(pid, ())
        return {pid for pid in found if self._is_its(pid, root)}

    def _is_its(self, pid: int, root: proctree.Root) -> bool:
        proc = self._procs[pid]
        return proc.is_live and (root.uid is not None or proc.start_ticks >= root.start_ticks)


def _by(pairs: Iterable[tuple[int, int]]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for key, pid in pairs:
        found.setdefault(key, []).append(pid)
    return found


@define(eq=False)
class Footprints:
    """Of all instances. `look` once in each pass."""

    _known: dict[str, _Known] = field(factory=dict, init=False)
    _looked_at: float | None = field(default=None, init=False)

    def look(
        self,
        wanted: Iterable[Wanted],
        procs: Mapping[int, proctree.Proc],
        rss: Mapping[str, int],
        index: Index,
        now: float,
    ) -> dict[str, Footprint]:
        """By key. `rss` is the sum of resident bytes of each, `now` monotonic seconds."""
        wanted = list(wanted)
        self._known = {one.key: self._known_of(one) for one in wanted}
        found: dict[str, tuple[int | None, int | None]] = {}
        due = self._due(wanted, now)
        for one in wanted:
            known = self._known[one.key]
            is_big = rss.get(one.key, 0) + known.shared_bytes >= NEAR * one.memory_bytes
            pids = _all_of(one, index) if one.key in due or is_big or known.is_near else set[int]()
            if one.key in due or known.is_near:
                self._see(one, known, pids, procs, now)
            matters = is_big and (len(pids) > 1 or known.shared_bytes > 0)
            proportional = _memory(pids, procs, known.shared_bytes) if matters else None
            found[one.key] = known.open_files if pids else None, proportional
        self._walk(wanted, procs, index, now)
        return {
            one.key: Footprint(*found[one.key], self._disk(one), self._known[one.key].disk_beyond) for one in wanted
        }

    def _disk(self, one: Wanted) -> int | None:
        """What the last walk found; or the one under way, where that is near the limit already."""
        known = self._known[one.key]
        so_far = known.tally.size_bytes
        if known.walk is None or so_far < NEAR * one.disk_bytes:
            return known.disk_bytes
        return max(so_far, known.disk_bytes or 0)

    def _known_of(self, one: Wanted) -> _Known:
        """A new process may have tidied up after the one before."""
        known = self._known.get(one.key)
        return known if known is not None and known.pid == one.roots[0].pid else _Known(one.roots[0].pid)

    def _due(self, wanted: list[Wanted], now: float) -> set[str]:
        """Those that were not looked at for longest: as many as keep everybody's turn within `LOOK_EVERY_S`."""
        passed_s = LOOK_EVERY_S if self._looked_at is None else max(0.0, now - self._looked_at)
        self._looked_at = now
        many = int(len(wanted) * min(1.0, passed_s / LOOK_EVERY_S)) + 1
        longest = sorted(wanted, key=lambda one: self._known[one.key].seen_at)[:many]
        return {one.key for one in longest}

    def _see(self, one: Wanted, known: _Known, pids: set[int], procs: Mapping[int, proctree.Proc], now: float) -> None:
        known.seen_at = now
        known.open_files = max(
            (count for pid in pids if (count := open_files(pid, procs[pid].uid)) is not None), default=None
        )
        written = sum(written_bytes(pid, procs[pid].uid) for pid in pids)
        more = max(0, written - known.written)
        known.written, known.written_since = written, known.written_since + more
        known.is_near = (
            more >= WRITES_MUCH_BYTES
            or (known.open_files or 0) >= NEAR * one.open_files
            or (known.disk_bytes or 0) >= NEAR * one.disk_bytes
        )

    # -- folders

    def _walk(self, wanted: list[Wanted], procs: Mapping[int, proctree.Proc], index: Index, now: float) -> None:
        """Go on with the walks, those first that matter most, as far as the time for this pass goes."""
        urgent = {one.key for one in wanted if self._is_urgent(one)}
        by_need = sorted(wanted, key=lambda one: (one.key not in urgent, self._known[one.key].walked_at))
        began, has_begun = time.perf_counter(), False
        for one in by_need:
            known = self._known[one.key]
            is_urgent = one.key in urgent and self._is_urgent(one)  # no more, once its walk has made room
            if known.walk is None and not is_urgent and now - known.walked_at < WALK_EVERY_S:
                continue
            until = began + (URGENT_BUDGET_S if is_urgent else WALK_BUDGET_S)
            if has_begun and time.perf_counter() >= until:
                return
            has_begun = True  # a step in each pass, whatever the time
            if known.walk is None:
                self._make_room(by_need)
                known.tally, known.held = Tally(one.roots[0].uid, LINKED, ENTRIES_MAX), Held()
                known.walk, known.written_since = walk(one.folder, known.tally), 0
            for _ in known.walk:
                if time.perf_counter() >= until:
                    return
            for pid in _all_of(one, index):
                known.held.add(pid, procs[pid].uid)
            known.walk, known.walked_at = None, now
            known.disk_bytes = known.tally.size_bytes + known.held.disk_bytes
            known.disk_beyond, known.shared_bytes = known.tally.beyond, known.held.memory_bytes

    def _make_room(self, by_need: list[Wanted]) -> None:
        under_way = [known for one in by_need if (known := self._known[one.key]).walk is not None]
        for known in under_way[WALKS_MAX - 1 :]:
            if known.walk is not None:
                known.walk.close()
                known.walk = None

    def _is_urgent(self, one: Wanted) -> bool:
        known = self._known[one.key]
        near = (known.disk_bytes or 0) >= NEAR * one.disk_bytes and known.written_since > 0
        return near or known.written_since >= WALK_AFTER_BYTES or self._finds_much(one)

    def _finds_much(self, one: Wanted) -> bool:
        """What makes files that are empty, or asks for room, is seen to write nothing."""
        known = self._known[one.key]
        expected = NEAR * one.disk_bytes if known.disk_bytes is None else known.disk_bytes + WALK_AFTER_BYTES
        return known.walk is not None and known.tally.size_bytes >= expected


def _all_of(one: Wanted, index: Index) -> set[int]:
    return set().union(*(index.members(root) for root in one.roots))


def _memory(pids: Iterable[int], procs: Mapping[int, proctree.Proc], shared_bytes: int) -> int:
    """Resident bytes, where what several processes share counts once; as much as can be read.

    Of shared memory, what has an address in a process, or what is open (`shared_bytes`), whichever is more: most is both.
    """
    own = mapped = 0
    for pid in pids:
        part, rss = proportional(pid, procs[pid].uid), procs[pid].rss_bytes
        shared = 0 if part is None else min(part.shared_bytes, rss)
        own += rss - shared if part is None else min(part.size_bytes, rss) - shared
        mapped += shared
    return own + max(mapped, shared_bytes)


# -- one process


def open_files(pid: int, uid: int) -> int | None:
    """How many files a process has open; None where that cannot be read."""
    path = f"/proc/{pid}/fd"
    try:
        size = os.stat(path).st_size
    except OSError:
        return None
    if size:  # since Linux 6.2
        return size
    return as_itself(pid, uid, lambda: len(os.listdir(path)))


def written_bytes(pid: int, uid: int) -> int:
    """What a process, and those that it has waited for, passed to write(2) so far, pipes included (proc_pid_io(5))."""
    text = as_itself(pid, uid, lambda: _read(f"/proc/{pid}/io"))
    return 0 if text is None else _figure(text, b"wchar:")


class Proportional(NamedTuple):
    """A process's resident memory, with its share of what it has in common with others (PSS)."""

    size_bytes: int
    shared_bytes: int
    """Of that, in shared memory and memory that is a file; all of it where the kernel does not tell (before Linux 5.4)."""


def proportional(pid: int, uid: int) -> Proportional | None:
    """None where it cannot be read."""
    text = as_itself(pid, uid, lambda: _read(f"/proc/{pid}/smaps_rollup"))
    if text is None:
        return None
    size = _figure(text, b"Pss:") * 1024
    return Proportional(size, _figure(text, b"Pss_Shmem:") * 1024 if b"Pss_Shmem:" in text else size)


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 8192)
    finally:
        os.close(fd)


def _figure(text: bytes, name: bytes) -> int:
    at = text.find(name)
    words = text[at + len(name) : at + len(name) + 40].split() if at >= 0 else []
    return int(words[0]) if words and words[0].isdigit() else 0
