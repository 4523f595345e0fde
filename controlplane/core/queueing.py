"""Who goes next among those who wait for a scarce place: by urgency, fair between owners, and nobody for ever.

Pure: no clock, no I/O; `now` is passed in, in seconds on one monotonic clock.

The more urgent class goes first. Within a class owners take turns, and the
turn goes to the owner whose last one is longest ago, whatever class it was in;
one owner's go in the order in which they came. What is never urgent would wait
for ever beside a steady stream of what is: so at the latest every
`PATIENCE_TURNS`th turn goes to whoever has waited longest, if that is more than
`PATIENCE_S`. A block of old boots can therefore not hold up a caller for more
than one turn, and moves all the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from enum import IntEnum

from attrs import define, field

PATIENCE_S = 30.0
PATIENCE_TURNS = 4


class Priority(IntEnum):
    """Why somebody waits, the most urgent first."""

    CALL = 0
    """A caller waits for the instance."""
    COMMAND = 1
    """Its owner asked for it: a deploy, a start, a new revision."""
    RESTART = 2
    """It crashed."""
    BOOT = 3
    """It ran when the control plane last ended."""


SOMEBODY_WAITS = frozenset({Priority.CALL, Priority.COMMAND})


@define(eq=False)
class Waiting:
    """One who waits. `priority` may be changed meanwhile; `since` is when it came."""

    owner: str
    priority: Priority
    since: float


@define(eq=False)
class Line:
    """Those who wait, and whose turn it was."""

    _waiting: list[Waiting] = field(factory=list, init=False)
    """In the order in which they came."""
    _turn: int = field(default=0, init=False)
    _last_turns: dict[str, int] = field(factory=dict, init=False)
    """By owner, while anybody waits: who has just been served and comes again is not new."""
    _patience: int = field(default=PATIENCE_TURNS, init=False)
    """Turns until the longest wait counts more than urgency."""

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, one: object) -> bool:
        return one in self._waiting

    def join(self, one: Waiting) -> None:
        """Come in; by `since` among one's owner's, so whoever had to leave for a while loses nothing."""
        place = len(self._waiting)
        while place and self._waiting[place - 1].since > one.since:
            place -= 1
        self._waiting.insert(place, one)

    def leave(self, one: Waiting) -> None:
        """Give up."""
        self._waiting.remove(one)
        self._forget_if_empty()

    def next(
        self, now: float, among: Collection[Priority] = frozenset(Priority), but: Collection[str] = ()
    ) -> Waiting | None:
        """Whose turn it is.

        Args:
            now: Seconds.
            among: The classes that there is a place for.
            but: Owners who have as much as they may have.
        """
        able = [one for one in self._waiting if one.priority in among and one.owner not in but]
        if not able:
            return None
        oldest = able[0]
        if self._patience <= 1 and now - oldest.since > PATIENCE_S:
            return oldest
        return next(self._in_turn(able))

    def take(self, one: Waiting) -> None:
        """It has had its turn."""
        is_oldest = one is self._waiting[0]
        self._patience = PATIENCE_TURNS if is_oldest else max(1, self._patience - 1)
        self._turn += 1
        self._last_turns[one.owner] = self._turn
        self._waiting.remove(one)
        self._forget_if_empty()

    def order(self) -> list[Waiting]:
        """All, in the order in which they would go if nobody else came, patience left aside."""
        return list(self._in_turn(self._waiting))

    def _in_turn(self, some: Collection[Waiting]) -> Iterator[Waiting]:
        last_turns, turn = dict(self._last_turns), self._turn
        for priority in Priority:
            queues: dict[str, list[Waiting]] = {}
            for one in some:
                if one.priority is priority:
                    queues.setdefault(one.owner, []).append(one)
            owners = sorted(queues, key=lambda owner: last_turns.get(owner, 0))  # a stable sort: else who came first
            while owners:
                for owner in owners:
                    turn += 1
                    last_turns[owner] = turn
                    yield queues[owner].pop(0)
                owners = [owner for owner in owners if queues[owner]]

    def _forget_if_empty(self) -> None:
        if not self._waiting:
            self._last_turns.clear()
