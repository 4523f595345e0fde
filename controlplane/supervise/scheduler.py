"""Who may start now, and who may build: a bounded number at a time, the most urgent first, fair between owners.

A fleet that starts all at once starves itself: every handshake runs into its
time limit. With a few at a time each one is quick. There are two bounds. A
*start* slot is held from finding what to launch to the handshake, which is
seconds. Whoever finds that it has to fetch or build first, which is minutes,
gives it back and takes a *build* slot for that. So builds wait for builds, and
what is ready starts past them. Of the build slots one owner never has all: a build may
take its whole time limit and do nothing.

One slot more of each is there for those that somebody waits for (a caller, an
owner's command): a boot whose servers are slow to answer does not hold them up.
While memory is short nothing begins that is not the only one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import inf
from pathlib import Path

import trio
from attrs import define, field

from controlplane.core.queueing import SOMEBODY_WAITS, Line, Priority, Waiting

MEMORY_FLOOR_MB = 512.0
"""Available memory below which a start waits for the one before it: a Node server takes 100 MiB to come up, npm more."""
MEMORY_LOOK_S = 1.0
"""Between two looks at the memory while it is short."""
MEMINFO = Path("/proc/meminfo")


def available_memory_mb() -> float:
    """What the kernel says can be had without swapping (`MemAvailable`), MiB; infinite where it does not say."""
    try:
        for line in MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) / 1024
    except (OSError, ValueError, IndexError):
        pass
    return inf


def plenty() -> float:
    """For those who do not look at the memory."""
    return inf


def _nobody(_told: str) -> None:
    pass


@define(eq=False)
class _Gate:
    """Slots of one kind. `places` are for everybody, and one is for those that somebody waits for.

    That one stays a place apart, or a steady stream of them would have every place in the end.
    """

    kind: str
    places: int
    most: int | None = None
    """What one owner may hold at the same time; None: all."""
    line: Line = field(factory=Line, init=False)
    holders: set[StartSlot] = field(factory=set, init=False)
    apart: StartSlot | None = field(default=None, init=False)
    """Who has the place apart."""
    slots: dict[Waiting, StartSlot] = field(factory=dict, init=False)

    @property
    def held(self) -> int:
        return len(self.holders) + (self.apart is not None)

    def next(self, now: float) -> StartSlot | None:
        """Whose turn it is; None also when there is no place."""
        if len(self.holders) < self.places:
            waiting = self.line.next(now, but=self._served())
        elif self.apart is None:
            waiting = self.line.next(now, SOMEBODY_WAITS, self._served())
        else:
            waiting = None
        return None if waiting is None else self.slots[waiting]

    def _served(self) -> set[str]:
        """Owners who have as much as they may have."""
        if self.most is None:
            return set()
        held = Counter(slot.owner for slot in (*self.holders, *([self.apart] if self.apart else ())))
        return {owner for owner, number in held.items() if number >= self.most}

    def has_place(self, priority: Priority) -> bool:
        """Whether one that came now would go at once."""
        is_free = len(self.holders) < self.places or (self.apart is None and priority in SOMEBODY_WAITS)
        return is_free and not any(waiting.priority <= priority for waiting in self.slots)

    def join(self, slot: StartSlot, waiting: Waiting) -> None:
        self.line.join(waiting)
        self.slots[waiting] = slot

    def leave(self, waiting: Waiting) -> None:
        self.line.leave(waiting)
        del self.slots[waiting]

    def take(self, slot: StartSlot, waiting: Waiting) -> None:
        self.line.take(waiting)
        del self.slots[waiting]
        if len(self.holders) < self.places:
            self.holders.add(slot)
        else:
            self.apart = slot

    def give_back(self, slot: StartSlot) -> None:
        self.holders.discard(slot)
        if self.apart is slot:
            self.apart = None


@define(eq=False)
class StartSlot:
    """One instance's claim, for one start. `told` hears what it waits for, whenever that is news.

    Holds one slot at a time: to acquire the other kind gives back the first. `release` may be called any number of times.
    """

    owner: str
    _scheduler: StartScheduler
    _priority: Priority
    _told: Callable[[str], None]
    _since: float = field(factory=trio.current_time, init=False)
    _held: _Gate | None = field(default=None, init=False)
    _gate: _Gate | None = field(default=None, init=False)
    """The one that it waits at."""
    _waiting: Waiting | None = field(default=None, init=False)
    _wake: trio.Event = field(factory=trio.Event, init=False)
    _announced: tuple[str, int] | None = field(default=None, init=False)

    @property
    def must_wait(self) -> bool:
        """Whether others have to go first before it may start."""
        return self._held is None and not self._scheduler.has_place(self._priority)

    @property
    def position(self) -> int | None:
        """How many go before it, as things are; None while it does not wait."""
        if self._gate is None or self._waiting is None:
            return None
        return self._gate.line.order().index(self._waiting)

    async def acquire(self) -> None:
        """Wait for a start slot; at once if it is held already."""
        await self._take(self._scheduler.starts)

    async def acquire_build(self) -> None:
        """Give back the start slot, and wait for one to build in; at once if it is held already."""
        await self._take(self._scheduler.builds)

    def release(self) -> None:
        """Let the next one go, or give up waiting."""
        gate, waiting = self._gate, self._waiting
        if gate is not None and waiting is not None:
            gate.leave(waiting)
        elif self._held is not None:
            self._held.give_back(self)
        else:
            return
        self._held = self._gate = self._waiting = None
        self._scheduler.admit()

    def promote(self, priority: Priority) -> None:
        """It has become this urgent; never less."""
        if priority >= self._priority:
            return
        self._priority = priority
        if self._waiting is not None:
            self._waiting.priority = priority
            self._scheduler.admit()

    async def _take(self, gate: _Gate) -> None:
        if self._held is gate:
            return
        self.release()
        self._gate, self._waiting = gate, Waiting(self.owner, self._priority, self._since)
        gate.join(self, self._waiting)
        self._announced = None
        self._scheduler.admit()
        try:
            while self._waiting is not None:
                self._wake = trio.Event()
                with trio.move_on_after(MEMORY_LOOK_S if self._scheduler.watcher is self else inf):
                    await self._wake.wait()
                if self._scheduler.watcher is self:
                    self._scheduler.admit()
        except BaseException:
            self.release()
            raise

    # -- for the scheduler

    def grant(self) -> None:
        """It is its turn."""
        gate, waiting = self._gate, self._waiting
        assert gate is not None
        assert waiting is not None
        gate.take(self, waiting)
        self._held, self._gate, self._waiting = gate, None, None
        self._wake.set()

    def wake(self) -> None:
        """Have it look whether it is the one to watch the memory."""
        self._wake.set()

    def tell(self, why: str, before: int) -> None:
        """Say what it waits for: at first, for another reason, and whenever half of those before it have gone."""
        if self._announced is not None:
            reason, then = self._announced
            if reason == why and (before >= then or before > then // 2):
                return
        self._announced = (why, before)
        self._told(f"waiting for {why} ({before} before it)" if before else f"waiting for {why}")


@define(eq=False)
class StartScheduler:
    """Hands out slots.

    Args:
        concurrency: Starts at a time, and one more that somebody waits for.
        build_concurrency: Builds at a time, likewise; None: as many as starts.
        available_mb: Says how much memory can be had, MiB.
        floor_mb: Below this nothing begins beside another.
    """

    concurrency: int
    build_concurrency: int | None = None
    available_mb: Callable[[], float] = plenty
    floor_mb: float = MEMORY_FLOOR_MB
    starts: _Gate = field(init=False)
    builds: _Gate = field(init=False)
    watcher: StartSlot | None = field(default=None, init=False)
    """The one that looks at the memory now and then, while that is short; whoever waits might."""

    def __attrs_post_init__(self) -> None:
        self.starts = _Gate("a start slot", self.concurrency)
        builds = self.build_concurrency or self.concurrency
        self.builds = _Gate("a build slot", builds, most=builds)  # of one more than that

    def slot(self, owner: str, priority: Priority, told: Callable[[str], None] = _nobody) -> StartSlot:
        """A new claim, not yet held."""
        return StartSlot(owner, self, priority, told)

    @property
    def waiting(self) -> int:
        return len(self.starts.line) + len(self.builds.line)

    def building(self, owner: str) -> int:
        """Builds that this owner has under way."""
        slots = (*self.builds.holders, *([self.builds.apart] if self.builds.apart else ()))
        return sum(slot.owner == owner for slot in slots)

    def has_place(self, priority: Priority) -> bool:
        """Whether somebody who came now could start at once."""
        return self.starts.has_place(priority) and not self._is_short()

    def admit(self) -> None:
        """Let in whoever may go now, and tell the others."""
        now, before = trio.current_time(), self.watcher
        self.watcher = None
        for gate in (self.starts, self.builds):
            while (slot := gate.next(now)) is not None:
                if self._is_short():
                    self.watcher = slot
                    break
                slot.grant()
            self._tell(gate)
        if self.watcher is not None and self.watcher is not before:
            self.watcher.wake()

    def _is_short(self) -> bool:
        """Whether there is too little memory for one more; the only one is always let in."""
        return self.starts.held + self.builds.held > 0 and self.available_mb() < self.floor_mb

    def _tell(self, gate: _Gate) -> None:
        why = "memory" if self.watcher is not None else gate.kind
        for before, waiting in enumerate(gate.line.order()):
            gate.slots[waiting].tell(why, before)
