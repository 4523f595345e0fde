"""Several real control planes on one Postgres and one Valkey, and a watch over which of them has processes of what."""

from __future__ import annotations

import secrets
import threading
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Self

from attrs import define, field

from tests.e2e.plane import Plane, _bytes, everybody, open_plane

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services import Postgres, Valkey

SAMPLE_S = 0.02
"""Between two looks of the watch; one takes some milliseconds."""
LOOKS_TO_BE_SURE = 25
"""A process becomes its program within so many."""
NAME = "WATCHED"
"""Variable by which the watch knows an instance's processes."""


@contextmanager
def open_nodes(postgres: Postgres, valkey: Valkey, count: int = 2, **settings: str) -> Iterator[list[Plane]]:
    """Control planes with homes of their own and one SECRET_KEY and ADMIN_TOKEN; `start` is the caller's."""
    shared = {"DATABASE_URL": postgres.url("postgres"), "REDIS_URL": valkey.url, "SECRET_KEY": secrets.token_hex(32)}
    token = secrets.token_urlsafe(32)
    with ExitStack() as stack:
        planes = [stack.enter_context(open_plane(first_start=True, **shared, **settings)) for _ in range(count)]
        for plane in planes:
            plane.token = token
        yield planes


@define(eq=False)
class Watch:
    """Looks all the time which control plane has processes of which instance, by what their environment says.

    Entered, it looks; what it found is read afterwards. Times are monotonic seconds.
    """

    planes: list[Plane]
    seen: dict[tuple[str, str], tuple[float, float]] = field(factory=dict, init=False)
    """(instance, owner id) to when a process of it was first and last seen there."""
    both: list[tuple[str, float]] = field(factory=list, init=False)
    """When an instance had processes of two."""
    looks: int = field(default=0, init=False)
    longest_s: float = field(default=0.0, init=False)
    """Between two looks."""
    _over: threading.Event = field(factory=threading.Event, init=False)
    _thread: threading.Thread = field(init=False)
    _known: dict[tuple[int, int], tuple[str, str] | int] = field(factory=dict, init=False)
    """Of a process: whose it is, or how often it was found to be nobody's."""

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(10)

    def first(self, name: str, plane: Plane) -> float:
        """When the instance was first seen at this one."""
        return self.seen[name, plane.owner_id][0]

    def last(self, name: str, plane: Plane) -> float:
        return self.seen[name, plane.owner_id][1]

    def forget(self, plane: Plane) -> None:
        """What was seen at this one so far; what runs there is seen anew."""
        for key in [key for key in list(self.seen) if key[1] == plane.owner_id]:
            self.seen.pop(key, None)

    def assert_never_both(self) -> None:
        assert self.looks > 10
        assert self.both == [], f"processes of two control planes at once: {self.both[:5]}"

    def _run(self) -> None:
        before = time.monotonic()
        while not self._over.wait(SAMPLE_S):
            now = time.monotonic()
            self.longest_s = max(self.longest_s, now - before)
            before = now
            self._look(now)
            self.looks += 1

    def _look(self, now: float) -> None:
        owners: dict[str, set[str]] = defaultdict(set)
        living: dict[tuple[int, int], tuple[str, str] | int] = {}
        for process in everybody().values():
            key = (process.pid, process.start_ticks)
            known = self._known.get(key, 0)
            if isinstance(known, int) and known < LOOKS_TO_BE_SURE:
                known = _whose(process.pid) or known + 1
            living[key] = known
            if not isinstance(known, int):
                whose = known
                owners[whose[0]].add(whose[1])
                first, _ = self.seen.get(whose, (now, now))
                self.seen[whose] = (first, now)
        self._known = living
        self.both += [(name, now) for name, found in owners.items() if len(found) > 1]


def _whose(pid: int) -> tuple[str, str] | None:
    found = dict(part.split(b"=", 1) for part in _bytes(pid, "environ").split(b"\0") if b"=" in part)
    name, owner = found.get(NAME.encode()), found.get(b"CORRAL_OWNER")
    return (name.decode(), owner.decode()) if name and owner else None
