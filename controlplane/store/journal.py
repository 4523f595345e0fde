"""The writer of history: takes rows without waiting, writes them in batches, keeps them while Postgres is away.

What waits is bounded (`backlog`); what is lost is counted, and a gap in an instance's
log says so in the log itself. A batch is tried until it is written. One row that Postgres
refuses does not take the others with it: the batch is halved until the row is alone.

A row is written at least once: when the connection breaks under a commit nobody can
tell whether it happened, and the batch is written again.
"""

from __future__ import annotations

import logging
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import attrs
import trio
from attrs import define, field

from controlplane.errors import StorageUnavailable
from controlplane.model import Incarnation, Instance, Listing, LogLine, Sample, UsageDay
from controlplane.store.backlog import BATCH_ROWS, Backlog
from controlplane.store.base import DataRefused, Store
from controlplane.store.text import cut_line, json_text
from controlplane.store.values import KINDS, AuditRow, Batch, EventLike, EventRow, JournalStatistics, observation

if TYPE_CHECKING:
    from uuid import UUID

log = logging.getLogger(__name__)

FLUSH_S = 0.25
"""A row waits this long at most while Postgres is there: with the write, it is less than the half second of history
that a SIGKILL may cost."""
RETRY_S = 0.5
"""After a batch could not be written; the store answers at once while Postgres is away."""


@define(eq=False)
class Journal:
    """Takes rows from anywhere in the Trio thread; `run` writes them."""

    store: Store
    backlog: Backlog = field(factory=Backlog)
    _under_way: deque[Batch] = field(factory=deque, init=False)
    """Taken from the backlog and not yet written, in order."""
    _taken_at: float = field(default=0.0, init=False)
    _full: trio.Event = field(factory=trio.Event, init=False)
    """There is reason to write before `FLUSH_S` is over."""
    _running: bool = field(default=False, init=False)
    _sweeps: int = field(default=0, init=False)
    """How often all that waited was taken; `_swept`: the last of these that is written."""
    _swept: int = field(default=0, init=False)
    _written_some: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)
    _turn: trio.Lock = field(factory=trio.Lock, init=False)
    _written: int = field(default=0, init=False)
    _refused: int = field(default=0, init=False)
    _cut: int = field(default=0, init=False)
    _failures: int = field(default=0, init=False)

    def log(self, line: LogLine) -> None:
        """Keep a line; one that is too long is cut, visibly."""
        message = cut_line(line.message)
        if message is not line.message:
            self._cut += 1
            line = attrs.evolve(line, message=message)
        self.backlog.push_log(line)
        self._wake()

    def sample(self, instance_id: UUID, sample: Sample) -> None:
        """Keep a sample of one instance."""
        self.backlog.push_sample(instance_id, sample)
        self._wake()

    def event(self, event: EventLike) -> None:
        """Keep an event; its data is turned into JSON here and may change afterwards."""
        row = EventRow(
            at=event.at,
            type=event.type,
            instance_id=event.instance_id,
            owner=event.owner,
            data=json_text(event.data),
        )
        self.backlog.push_event(row)
        self._wake()

    def audit(self, row: AuditRow) -> None:
        """Keep what somebody did; of all that waits it is given up last."""
        self.backlog.push_audit(row)
        self._wake()

    def observe(self, instance: Instance, *, phase: str = "") -> None:
        """Keep what was last seen of an instance; only the latest is written."""
        self.backlog.push_observation(observation(instance, phase=phase))

    def incarnation(self, incarnation: Incarnation) -> None:
        """Keep a process of an instance: once when it starts, once when it has ended."""
        self.backlog.push_incarnation(incarnation)

    def listing(self, listing: Listing) -> None:
        """Keep what an instance offers in one section; only the latest is written."""
        self.backlog.push_listing(listing)

    def usage(self, more: UsageDay) -> None:
        """Keep what an owner has used; added to what there is."""
        self.backlog.push_usage(more)

    def statistics(self) -> JournalStatistics:
        """What waits, and what was lost."""
        return JournalStatistics(
            rows=len(self),
            size_bytes=self.backlog.size_bytes,
            written=self._written,
            shed=dict(self.backlog.shed),
            refused=self._refused,
            cut=self._cut,
            failures=self._failures,
            oldest_s=trio.current_time() - self._taken_at if self._under_way else 0.0,
        )

    def __len__(self) -> int:
        return len(self.backlog) + sum(len(batch) for batch in self._under_way)

    def _wake(self) -> None:
        if self.backlog.rows >= BATCH_ROWS:
            self._full.set()

    async def run(self) -> None:
        """Write what comes in, for ever."""
        self._running = True
        try:
            while True:
                with trio.move_on_after(FLUSH_S):
                    await self._full.wait()
                self._full = trio.Event()
                more = len(self) > 0
                while more:
                    if not await self._write_next():
                        await trio.sleep(RETRY_S)
                    more = len(self._under_way) > 0 or self.backlog.rows >= BATCH_ROWS
        finally:
            self._running = False
            self._written_some.unpark_all()

    async def flush(self, timeout_s: float) -> bool:
        """Wait until all that came in so far is written, within `timeout_s`; tells whether it is.

        Any number may wait; what is being written is not broken off when one of them has waited
        long enough. Gives up at once while Postgres is known to be away. Without `run`, it writes itself.
        """
        sweep = self._sweeps + (1 if len(self.backlog) else 0)
        with trio.move_on_after(timeout_s):
            while self._swept < sweep:
                if not self._running:
                    if not await self._write_next():
                        await trio.sleep(RETRY_S)
                    continue
                if not self.store.statistics().available:
                    return False
                self._full.set()
                await self._written_some.park()
        return self._swept >= sweep

    async def _write_next(self) -> bool:
        """Write one batch, or a part of one; False if that is to be tried again later."""
        async with self._turn:
            if not self._under_way:
                self._take()
            batch = self._under_way[0]
            try:
                await self.store.write(batch)
            except StorageUnavailable:
                self._failures += 1
                return False
            except DataRefused:
                self._split(batch)
            else:
                self._under_way.popleft()
                self._written += len(batch)
            finally:
                if not self._under_way:
                    self._swept = self._sweeps
                self._written_some.unpark_all()
            return True

    def _take(self) -> None:
        lost = self.backlog.take_shed_lines()
        batch = self.backlog.take()
        if lost:
            gaps = tuple(_gap(instance_id, count) for instance_id, count in lost.items())
            batch = attrs.evolve(batch, logs=(*gaps, *batch.logs))
        self._under_way.append(batch)
        self._taken_at = trio.current_time()
        if not len(self.backlog):
            self._sweeps += 1

    def _split(self, batch: Batch) -> None:
        """A row of it is refused: go on with its halves, and give up a row that stands alone."""
        self._under_way.popleft()
        if len(batch) > 1:
            self._under_way.extendleft(reversed(batch.halves()))
            return
        self._refused += 1
        kind = next(kind for kind in KINDS if getattr(batch, kind))
        log.error("journal: Postgres refuses a row of %s; it is given up", kind)


def _gap(instance_id: UUID, count: int) -> LogLine:
    return LogLine(
        instance_id=instance_id,
        at=datetime.now(UTC),
        level="warning",
        stream="system",
        incarnation=0,
        message=f"{count} lines are missing here: the database was away or too slow to keep them",
    )
