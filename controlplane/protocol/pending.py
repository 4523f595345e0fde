"""Calls in flight on one session, and what each one waits for.

A call costs a slot in a dict and one reschedule: no task, channel or cancel
scope. Time limits and vanished callers are checked for all slots together, by
`expire`, which the session's clock calls every `TICK_S` while anything waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio
from attrs import define, field

from controlplane.errors import CallTimeout, CorralError

TICK_S = 0.05
"""How exact a call's time limit is."""
PATIENCE_S = 0.25
"""Younger calls are not asked whether their caller is still there."""
TIMED_OUT = "timed out"
CALLER_GONE = "the caller went away"


@define(eq=False, slots=True)
class Call:
    """One request on its way. `outcome` is set exactly once: the response's raw member, or an error."""

    method: str
    started: float
    deadline: float
    is_gone: Callable[[], bool] | None = None
    on_notification: Callable[[str, bytes | None], None] | None = None
    wire_id: int = -1
    task: trio.lowlevel.Task | None = None
    outcome: bytes | CorralError | None = None

    def settle(self, outcome: bytes | CorralError) -> None:
        """Hand the outcome to whoever waits; the first one counts."""
        if self.outcome is None:
            self.outcome = outcome
        if self.task is not None:
            trio.lowlevel.reschedule(self.task)
            self.task = None


@define(eq=False)
class Pending:
    """The table of calls in flight. `cancel` is told of every call that ends without an answer.

    With `in_order` the server answers in order and without ids. It still owes the
    answer of a call whose caller has left, so such a call keeps its place.
    """

    cancel: Callable[[Call, str], None]
    in_order: bool = field(default=False, init=False)
    _calls: dict[int, Call] = field(factory=dict, init=False)
    late: int = field(default=0, init=False)
    """Answers that came after nobody waited any more."""

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Any:
        return iter(self._calls.values())

    def add(self, call: Call) -> None:
        self._calls[call.wire_id] = call

    def owe(self, wire_id: int, *, until: float) -> None:
        """Keep a place for an answer that nobody waits for; `until` is on Trio's clock."""
        self.add(Call("", trio.current_time(), until, wire_id=wire_id))

    def pop(self, wire_id: int) -> Call | None:
        """Take out the call that an answer belongs to; a late answer is counted and dropped."""
        call = self._calls.pop(wire_id, None)
        self.late += call is None
        return call

    def first(self) -> Call | None:
        """The oldest call."""
        return next(iter(self._calls.values()), None)

    def get(self, wire_id: int) -> Call | None:
        return self._calls.get(wire_id)

    async def wait(self, call: Call) -> bytes:
        """Wait for the answer.

        Raises:
            CorralError: the call timed out, or the session failed it.
        """
        if call.outcome is None:
            call.task = trio.lowlevel.current_task()

            def abort(_raise_cancel: Any) -> trio.lowlevel.Abort:
                call.task = None
                if call.wire_id in self._calls:
                    self._desert(call)
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)
        if isinstance(call.outcome, CorralError):
            raise call.outcome
        assert call.outcome is not None
        return call.outcome

    def expire(self, now: float) -> None:
        """End the calls whose time is up, and those whose caller has gone."""
        for call in list(self._calls.values()):
            if now >= call.deadline:
                limit = call.deadline - call.started
                self._drop(call, TIMED_OUT)
                call.settle(CallTimeout(f"no answer to {call.method} within {limit:g} s"))
            elif call.is_gone is not None and now - call.started > PATIENCE_S and call.is_gone():
                self._desert(call)
                call.settle(CallTimeout(CALLER_GONE))

    def fail_all(self, error: Callable[[Call], CorralError]) -> None:
        """End every call: the session is over."""
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.settle(error(call))

    def _desert(self, call: Call) -> None:
        if self.in_order:
            call.is_gone = None
        else:
            self._drop(call, CALLER_GONE)

    def _drop(self, call: Call, why: str) -> None:
        del self._calls[call.wire_id]
        self.cancel(call, why)
