"""Whose calls may ask their client back: one asker at a time on a shared conversation.

A legacy server's question (sampling, elicitation, roots) names no call, so on a
process that several clients share, calls that may ask run one asker at a time:
then a question has only one possible owner. Calls of the same asker run
together, unless somebody else is waiting.

Whoever waits for its own client blocks nobody: after `YIELD_AFTER_S` the others
go elsewhere, if they can, or run beside it. And a call that was given up may
ask for a while longer, as nobody knows when its server notices. In both cases
a question may have several owners; `Questions` then hands it to none of them
(docs/decisions/0006).
"""

from __future__ import annotations

from collections import Counter, deque
from enum import Enum
from typing import Any

import trio
from attrs import define, field

YIELD_AFTER_S = 0.5
"""A server's further questions of the same kind come at once, and so do the answers of programs; people take longer."""
GHOST_S = 60.0
"""How long a call that was given up may still ask: as long as calls may take, unless an instance says otherwise."""
REST_S = 2.0
"""After a call was given up nobody else's begins, until the server has surely read that, or for this long."""
BESIDE_MAX = 2
"""Askers at once, with the one that waits for its client: with more, two calls' questions would wait for each other."""
FADE_S = 0.25
"""And for this long after it has read it: what a handler asks last, it asks at once."""
GHOSTS_MAX = 256
"""Calls that were given up and are remembered; the oldest is forgotten first."""


class Turn(Enum):
    """What came of waiting for the floor."""

    GRANTED = "granted"
    LATE = "late"
    ELSEWHERE = "elsewhere"
    """The floor is held by somebody who waits for its client, and the asker said that it can go elsewhere."""


@define(eq=False)
class _Waiting:
    asker: object
    task: trio.lowlevel.Task
    can_leave: bool
    turn: Turn = Turn.LATE


@define(eq=False)
class _Ghost:
    asker: object
    until: float
    """It is remembered until then, on Trio's clock."""
    rests_until: float
    """Nobody else gets the floor before."""


@define(eq=False)
class Floor:
    """Granted in the order of asking. `close` lets everybody through, to find out that the conversation is over."""

    _running: Counter[object] = field(factory=Counter, init=False)
    """Calls by asker: of one, but for those that run beside one that waits."""
    _ghosts: dict[int, _Ghost] = field(factory=dict, init=False)
    """Calls that were given up, by their id."""
    _queue: deque[_Waiting] = field(factory=deque, init=False)
    _waits_since: float | None = field(default=None, init=False)
    _closed: bool = field(default=False, init=False)

    async def take(self, asker: object, deadline: float, *, can_leave: bool = False) -> Turn:
        """Wait for the floor; `release` gives it back if it was granted.

        Args:
            asker: Who the questions are for.
            deadline: On Trio's clock.
            can_leave: Do not run beside somebody who waits for its client, but come back with `ELSEWHERE`.
        """
        if can_leave and self.gives_way(trio.current_time()):
            return Turn.ELSEWHERE
        if self.is_free_for(asker):
            self._running[asker] += 1
            return Turn.GRANTED
        waiting = _Waiting(asker, trio.lowlevel.current_task(), can_leave)
        self._queue.append(waiting)

        def abort(_raise_cancel: Any) -> trio.lowlevel.Abort:
            self._queue.remove(waiting)
            return trio.lowlevel.Abort.SUCCEEDED

        with trio.move_on_at(deadline):
            await trio.lowlevel.wait_task_rescheduled(abort)
        return waiting.turn

    def is_free_for(self, asker: object) -> bool:
        """Whether `take` would grant it at once."""
        if self._closed:
            return True
        if self._queue or self._rests_for(asker):
            return False
        return self._running.keys() <= {asker} or (self.gives_way(trio.current_time()) and self._has_room(asker))

    def _has_room(self, asker: object) -> bool:
        return asker in self._running or len(self._running) < BESIDE_MAX

    @property
    def needs_clock(self) -> bool:
        """Whether somebody waits for a rest to end: `tick` must be called."""
        return bool(self._queue and self._ghosts)

    def release(self, asker: object, *, ghost: int | None = None) -> None:
        """A call that held the floor is over.

        Args:
            asker: As it was taken.
            ghost: The id of a call that was given up, and whose server may not know yet.
        """
        self._running[asker] -= 1
        if not self._running[asker]:
            del self._running[asker]
        if ghost is not None:
            now = trio.current_time()
            self._ghosts[ghost] = _Ghost(asker, now + GHOST_S, now + REST_S)
            if len(self._ghosts) > GHOSTS_MAX:
                del self._ghosts[next(iter(self._ghosts))]
        if not self._running:
            self._pass_on()

    def lay(self, ghost: int) -> None:
        """A call that was given up was answered nevertheless: now it is over."""
        if self._ghosts.pop(ghost, None) is not None:
            self._pass_on()

    def fade(self, ghost: int) -> None:
        """The server has read that a call was given up."""
        known = self._ghosts.get(ghost)
        if known is not None:
            known.until = known.rests_until = trio.current_time() + FADE_S

    def waits(self, *, for_client: bool) -> None:
        """Whether the server waits for what a client answers."""
        if not for_client:
            self._waits_since = None
        elif self._waits_since is None:
            self._waits_since = trio.current_time()

    def gives_way(self, now: float) -> bool:
        """Whether the floor is held by somebody who waits for its client, and has waited for a while."""
        return self._waits_since is not None and now - self._waits_since >= YIELD_AFTER_S

    def tick(self, now: float) -> None:
        """Called now and then while calls are in flight, or wait."""
        self._forget_ghosts(now)
        if self._queue and self.gives_way(now):
            self._admit_all()
        self._pass_on()

    def close(self) -> None:
        """Nobody waits any more."""
        self._closed = True
        self._admit_all()

    def ghosts(self, now: float) -> set[object]:
        """Whose calls were given up, and may ask nevertheless."""
        self._forget_ghosts(now)
        return {ghost.asker for ghost in self._ghosts.values()}

    def is_haunted(self, now: float) -> bool:
        """Whether a call was given up, and the server does not say that it knows."""
        return any(ghost.rests_until <= now < ghost.until for ghost in self._ghosts.values())

    def _forget_ghosts(self, now: float) -> None:
        for wire_id in [wire_id for wire_id, ghost in self._ghosts.items() if now >= ghost.until]:
            del self._ghosts[wire_id]

    def _rests_for(self, asker: object) -> bool:
        """Whether somebody else's call was given up just now."""
        now = trio.current_time()
        return any(ghost.asker is not asker and now < ghost.rests_until for ghost in self._ghosts.values())

    def _pass_on(self) -> None:
        """To the first who waits, and to those behind with the same asker."""
        while self._queue and self._running.keys() <= {self._queue[0].asker}:
            if self._rests_for(self._queue[0].asker):
                break
            self._admit(self._queue.popleft())

    def _admit_all(self) -> None:
        waits, self._queue = self._queue, deque()
        for waiting in waits:
            if self._closed:
                self._admit(waiting)
            elif self._rests_for(waiting.asker):
                self._queue.append(waiting)
            elif waiting.can_leave:
                waiting.turn = Turn.ELSEWHERE
                trio.lowlevel.reschedule(waiting.task)
            elif self._has_room(waiting.asker):
                self._admit(waiting)
            else:
                self._queue.append(waiting)

    def _admit(self, waiting: _Waiting) -> None:
        waiting.turn = Turn.GRANTED
        self._running[waiting.asker] += 1
        trio.lowlevel.reschedule(waiting.task)
