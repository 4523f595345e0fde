"""Whose calls may ask their client back: one asker at a time on a shared conversation.

A legacy server's question (sampling, elicitation, roots) names no call, so on a
process that several clients share, calls that may ask run one asker at a time:
then a question has only one possible owner. Calls of the same asker run
together, unless somebody else is waiting.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import trio
from attrs import define, field


@define(eq=False)
class _Waiting:
    asker: object
    task: trio.lowlevel.Task
    granted: bool = False


@define(eq=False)
class Floor:
    """Granted in the order of asking. `close` lets everybody through, to find out that the conversation is over."""

    _holder: object | None = field(default=None, init=False)
    _holds: int = field(default=0, init=False)
    _queue: deque[_Waiting] = field(factory=deque, init=False)
    _closed: bool = field(default=False, init=False)

    async def take(self, asker: object, deadline: float) -> bool:
        """Wait for the floor until `deadline` on Trio's clock; whether it came. `release` gives it back."""
        if self._closed or self._is_free_for(asker):
            self._grant(asker)
            return True
        waiting = _Waiting(asker, trio.lowlevel.current_task())
        self._queue.append(waiting)

        def abort(_raise_cancel: Any) -> trio.lowlevel.Abort:
            self._queue.remove(waiting)
            return trio.lowlevel.Abort.SUCCEEDED

        with trio.move_on_at(deadline):
            await trio.lowlevel.wait_task_rescheduled(abort)
        return waiting.granted

    def release(self) -> None:
        """A call that held the floor is over."""
        self._holds -= 1
        if self._holds == 0:
            self._holder = None
            self._pass_on()

    def close(self) -> None:
        """Nobody waits any more."""
        self._closed = True
        while self._queue:
            self._admit(self._queue.popleft())

    def _is_free_for(self, asker: object) -> bool:
        return self._holder is None or (self._holder is asker and not self._queue)

    def _grant(self, asker: object) -> None:
        self._holder = asker
        self._holds += 1

    def _pass_on(self) -> None:
        """To the first who waits, and to those behind with the same asker."""
        while self._queue and self._holder in (None, self._queue[0].asker):
            self._admit(self._queue.popleft())

    def _admit(self, waiting: _Waiting) -> None:
        waiting.granted = True
        self._grant(waiting.asker)
        trio.lowlevel.reschedule(waiting.task)
