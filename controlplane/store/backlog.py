"""Rows that wait to be written: bounded by number and bytes, and what goes when there are too many.

Pure: no clock, no I/O. What Corral needs to know again after a restart (observations,
incarnations, listings, what owners used) is never shed: of each instance the latest is kept, of use the sums. Of the rest, the
oldest of the least valuable kind goes first: samples, then what servers print, then
events and Corral's own lines, and who did what last of all. Within a kind the instance with most rows pays, so one
that floods loses its own history and nobody else's.
"""

from __future__ import annotations

import sys
from collections import Counter, deque
from itertools import islice
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from controlplane.store.values import Batch, EventRow, Observation

if TYPE_CHECKING:
    from datetime import date
    from uuid import UUID

    from controlplane.model import Incarnation, Listing, LogLine, Sample, Section, UsageDay
    from controlplane.store.values import AuditRow

MAX_ROWS = 20_000
"""Rows that wait: about half a minute of a busy fleet."""
MAX_BYTES = 32 * 2**20
"""Their size; long lines reach this first."""
BATCH_ROWS = 1_000
"""Rows of one transaction."""
BATCH_BYTES = 4 * 2**20
"""Size of one transaction's rows, so that one of long lines is written within its time as well."""
INCARNATIONS_PER_INSTANCE = 8
"""Of an instance that crashes through an outage, the latest processes are kept."""
ROW_BYTES = 200
"""A row beside its text: objects, references, place in the queue."""
USAGE_ROWS_MAX = 10_000
"""Days of owners that wait: each takes the place of all that was said of it, so there are as many as owners have days."""
SHED_ROWS = 256
"""Rows shed at a time, so that finding who has most is paid for rarely."""

SAMPLES, OUTPUT, EVENTS, AUDIT = "samples", "logs", "events", "audit"
SHED_ORDER = (SAMPLES, OUTPUT, EVENTS, AUDIT)


@frozen(slots=True)
class _Row:
    number: int
    size: int
    value: Any


@define(eq=False)
class _Shelf:
    """Rows of one kind, in one queue per instance."""

    queues: dict[UUID | None, deque[_Row]] = field(factory=dict)
    rows: int = 0

    def push(self, key: UUID | None, row: _Row) -> None:
        self.queues.setdefault(key, deque()).append(row)
        self.rows += 1

    def pop(self, key: UUID | None) -> _Row:
        queue = self.queues[key]
        row = queue.popleft()
        if not queue:
            del self.queues[key]
        self.rows -= 1
        return row

    def fullest(self) -> UUID | None:
        return max(self.queues, key=lambda key: len(self.queues[key]))


@define(eq=False)
class Backlog:
    """Rows by kind and instance; `push_*` never waits and never fails."""

    max_rows: int = MAX_ROWS
    max_bytes: int = MAX_BYTES
    size_bytes: int = field(default=0, init=False)
    shed: Counter[str] = field(factory=Counter, init=False)
    """Rows given up so far, by kind."""
    shed_lines: Counter[UUID] = field(factory=Counter, init=False)
    """Log lines given up since the last `take_shed_lines`, by instance."""
    _number: int = field(default=0, init=False)
    _shelves: dict[str, _Shelf] = field(factory=lambda: {kind: _Shelf() for kind in SHED_ORDER}, init=False)
    _observations: dict[UUID, Observation] = field(factory=dict, init=False)
    _incarnations: dict[UUID, dict[int, Incarnation]] = field(factory=dict, init=False)
    _listings: dict[tuple[UUID, Section], Listing] = field(factory=dict, init=False)
    """Not in `size_bytes`: the instance's catalogue holds the same bytes, and bounds them."""
    _usage: dict[tuple[str, date], UsageDay] = field(factory=dict, init=False)

    @property
    def rows(self) -> int:
        """Rows that wait and may be shed."""
        return sum(shelf.rows for shelf in self._shelves.values())

    def __len__(self) -> int:
        incarnations = sum(len(kept) for kept in self._incarnations.values())
        return self.rows + len(self._observations) + incarnations + len(self._listings) + len(self._usage)

    def push_log(self, line: LogLine) -> None:
        kind = EVENTS if line.stream == "system" else OUTPUT
        self._push(kind, line.instance_id, line, ROW_BYTES + sys.getsizeof(line.message))

    def push_sample(self, instance_id: UUID, sample: Sample) -> None:
        self._push(SAMPLES, instance_id, (instance_id, sample), ROW_BYTES)

    def push_event(self, event: EventRow) -> None:
        self._push(EVENTS, event.instance_id, event, ROW_BYTES + sys.getsizeof(event.data))

    def push_audit(self, row: AuditRow) -> None:
        self._push(AUDIT, None, row, ROW_BYTES + sys.getsizeof(row.target))

    def push_observation(self, seen: Observation) -> None:
        self._observations[seen.instance_id] = seen

    def push_incarnation(self, incarnation: Incarnation) -> None:
        kept = self._incarnations.setdefault(incarnation.instance_id, {})
        kept[incarnation.number] = incarnation
        if len(kept) > INCARNATIONS_PER_INSTANCE:
            del kept[min(kept)]
            self.shed["incarnations"] += 1

    def push_listing(self, listing: Listing) -> None:
        self._listings[listing.instance_id, listing.section] = listing

    def push_usage(self, more: UsageDay) -> None:
        kept = self._usage.get((more.owner, more.day))
        if kept is None and len(self._usage) >= USAGE_ROWS_MAX:
            self.shed["usage"] += 1
        else:
            self._usage[more.owner, more.day] = more if kept is None else kept.plus(more)

    def _push(self, kind: str, key: UUID | None, value: Any, size: int) -> None:
        self._number += 1
        self._shelves[kind].push(key, _Row(self._number, size, value))
        self.size_bytes += size
        self._shed()

    def _shed(self) -> None:
        while self.rows > self.max_rows or self.size_bytes > self.max_bytes:
            kind = next(kind for kind in SHED_ORDER if self._shelves[kind].rows)
            self._shed_some(kind)

    def _shed_some(self, kind: str) -> None:
        """Give up the older half of the fullest queue, `SHED_ROWS` at most and one at least."""
        shelf = self._shelves[kind]
        key = shelf.fullest()
        count = max(1, min(SHED_ROWS, len(shelf.queues[key]) // 2))
        for _ in range(count):
            row = shelf.pop(key)
            self.size_bytes -= row.size
            self._count_shed(kind, row.value)

    def _count_shed(self, kind: str, value: Any) -> None:
        if kind in (SAMPLES, AUDIT) or isinstance(value, EventRow):
            self.shed[kind] += 1
        else:
            self.shed[OUTPUT] += 1
            self.shed_lines[value.instance_id] += 1

    def take_shed_lines(self) -> Counter[UUID]:
        """How many lines each instance has lost since this was last asked."""
        lost, self.shed_lines = self.shed_lines, Counter()
        return lost

    def take(self, max_rows: int = BATCH_ROWS, max_bytes: int = BATCH_BYTES) -> Batch:
        """Remove a batch of the oldest rows: the most valuable kinds first, lines in the order in which they came.

        Each instance gets its turn: a long queue does not hold up the others.
        """
        room, space = max_rows, max_bytes
        taken: dict[str, list[_Row]] = {}
        for kind in reversed(SHED_ORDER):
            taken[kind] = self._take_rows(self._shelves[kind], room, space)
            room -= len(taken[kind])
            space -= sum(row.size for row in taken[kind])
        rows = sorted((*taken[EVENTS], *taken[OUTPUT]), key=lambda row: row.number)
        return Batch(
            logs=tuple(row.value for row in rows if not isinstance(row.value, EventRow)),
            events=tuple(row.value for row in rows if isinstance(row.value, EventRow)),
            audit=tuple(row.value for row in taken[AUDIT]),
            samples=tuple(row.value for row in taken[SAMPLES]),
            observations=self._take_observations(max_rows),
            incarnations=self._take_incarnations(max_rows),
            listings=self._take_listings(max_bytes),
            usage=self._take_usage(max_rows),
        )

    def _take_rows(self, shelf: _Shelf, room: int, space: int) -> list[_Row]:
        taken: list[_Row] = []
        while shelf.rows:
            for key in list(shelf.queues):
                if room <= 0 or space <= 0:
                    return taken
                row = shelf.pop(key)
                taken.append(row)
                self.size_bytes -= row.size
                room, space = room - 1, space - row.size
        return taken

    def _take_observations(self, count: int) -> tuple[Observation, ...]:
        ids = list(islice(self._observations, count))
        return tuple(self._observations.pop(instance_id) for instance_id in ids)

    def _take_incarnations(self, count: int) -> tuple[Incarnation, ...]:
        taken: list[Incarnation] = []
        while self._incarnations and len(taken) < count:
            _, kept = self._incarnations.popitem()
            taken.extend(kept.values())
        return tuple(taken)

    def _take_usage(self, count: int) -> tuple[UsageDay, ...]:
        keys = list(islice(self._usage, count))
        return tuple(self._usage.pop(key) for key in keys)

    def _take_listings(self, max_bytes: int) -> tuple[Listing, ...]:
        """The oldest, up to `max_bytes`; one at least, however large it is."""
        taken: list[Listing] = []
        while self._listings:
            key, listing = next(iter(self._listings.items()))
            max_bytes -= len(listing.items)
            if taken and max_bytes < 0:
                break
            taken.append(self._listings.pop(key))
        return tuple(taken)
