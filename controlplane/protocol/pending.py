"""Calls in flight on one session, and what each one waits for.

A call costs a slot in a dict and one reschedule: no task, channel or cancel
scope. Time limits and vanished callers are checked for all slots together, by
`expire`, which the session's clock calls every `TICK_S` while anything waits.

A caller that wants to hear more than the answer takes it piece by piece, with
`Pending.next`: notifications that belong to the call, and what the server asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from math import inf
from typing import Any

import trio
from attrs import define, field, frozen

from controlplane.errors import CallTimeout, CorralError

TICK_S = 0.05
"""How exact a call's time limit is."""
PATIENCE_S = 0.25
"""Younger calls are not asked whether their caller is still there."""
TIMED_OUT = "timed out"
CALLER_GONE = "the caller went away"


AFTERGLOW_S = 2.0
"""A server may write a log line or two more of a call that it is told to give up."""
AFTERGLOWS_MAX = 256
CANCELLED = b'"error":{"code":-32800,"message":"the request was cancelled"}'
"""The answer to a call that its own caller cancelled; the code is the one that language servers use."""
INBOX_MAX = 256
"""Notifications of one call that wait for its caller; what does not fit is dropped, questions and the answer never are."""
INBOX_MAX_BYTES = 2 * 2**20
"""And their size, for a caller that reads slowly; a larger one passes alone."""


@frozen(slots=True)
class Told:
    """A notification of the server that belongs to a call; `params` is raw JSON."""

    method: str
    params: bytes | None


@frozen(slots=True)
class Asked:
    """A request of the server that belongs to a call; `id` is the server's own, raw."""

    id: bytes
    method: str
    params: bytes | None


@define(eq=False, slots=True)
class Call:
    """One request on its way. `outcome` is set exactly once: the response's raw member, or an error.

    Args:
        method: The JSON-RPC method.
        started: Trio time.
        deadline: Trio time; infinite for a subscription.
        is_gone: Asked now and then; True ends the call, because nobody waits for it.
        hears: Whether the caller takes notifications and questions.
        asker: Who the server's questions during this call are for; calls of one asker may run together.
        logs: Whether log lines of the server may be this call's.
        token: The caller's own progress token, raw; None if it gave none.
        counts: Whether it is one of the instance's calls in flight; not while it waits for its client to come back.
    """

    method: str
    started: float
    deadline: float
    is_gone: Callable[[], bool] | None = None
    hears: bool = False
    asker: object | None = None
    logs: bool = True
    token: bytes | None = None
    counts: bool = True
    is_own: bool = False
    """Corral asks on its own account: no log line is this call's, and none is withheld from others because of it."""
    owed_until: float = 0.0
    """Trio time until which, in order, the answer keeps its place, whoever still wants it."""
    wire_id: int = -1
    task: trio.lowlevel.Task | None = None
    outcome: bytes | CorralError | None = None
    inbox: deque[Told | Asked] | None = None
    inbox_bytes: int = 0
    nudge_at: float = inf
    on_end: Callable[[], None] | None = None
    """Called once, when the call is over: answered, given up or failed. Set by `when_over`."""
    dropped: int = 0
    """Notifications that its caller did not take in time."""

    def settle(self, outcome: bytes | CorralError) -> None:
        """Hand the outcome to whoever waits; the first one counts."""
        if self.outcome is None:
            self.outcome = outcome
        self.end()
        self.wake()

    def when_over(self, callback: Callable[[], None]) -> None:
        """Have this called too when the call is over, before what was asked for earlier."""
        earlier = self.on_end
        if earlier is None:
            self.on_end = callback
            return

        def both() -> None:
            callback()
            earlier()

        self.on_end = both

    def end(self) -> None:
        """Nothing more comes of it."""
        if self.on_end is not None:
            on_end, self.on_end = self.on_end, None
            on_end()

    def hear(self, message: Told | Asked) -> None:
        """Hand something over that comes before the answer."""
        if self.inbox is None:
            self.inbox = deque()
        size = len(message.params or b"")
        if isinstance(message, Told) and self._is_full(size):
            self.dropped += 1
            return
        self.inbox.append(message)
        self.inbox_bytes += size
        self.wake()

    def _is_full(self, size: int) -> bool:
        assert self.inbox is not None
        return len(self.inbox) >= INBOX_MAX or (bool(self.inbox) and self.inbox_bytes + size > INBOX_MAX_BYTES)

    def heard(self) -> Told | Asked | None:
        """Take what was handed over first."""
        if not self.inbox:
            return None
        message = self.inbox.popleft()
        self.inbox_bytes -= len(message.params or b"")
        return message

    def forget(self, method: str) -> None:
        """Drop the notifications of this kind that its caller has not taken."""
        if self.inbox:
            self.inbox = deque(m for m in self.inbox if isinstance(m, Asked) or m.method != method)

    def wake(self) -> None:
        """Let the caller look."""
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
    _given_up: dict[int, tuple[Call, float]] = field(factory=dict, init=False)
    """Calls that ended without an answer, and until when a log line may be theirs, the first first."""
    late: int = field(default=0, init=False)
    """Answers that came after nobody waited any more."""

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[Call]:
        return iter(self._calls.values())

    @property
    def needs_clock(self) -> bool:
        """Whether a time limit or a caller has to be watched; Corral's own subscription has neither."""
        return any(call.deadline < inf or call.is_gone is not None or call.asker is not None for call in self)

    def add(self, call: Call) -> None:
        self._calls[call.wire_id] = call

    def owe(self, wire_id: int, *, until: float) -> None:
        """Keep a place for an answer that nobody waits for; `until` is on Trio's clock."""
        self.add(Call("", trio.current_time(), until, wire_id=wire_id))

    def pop(self, wire_id: int) -> Call | None:
        """Take out the call that an answer belongs to; a late answer is counted and dropped."""
        call = self._calls.pop(wire_id, None)
        if call is None:
            self.late += 1
            self._given_up.pop(wire_id, None)
        return call

    def given_up(self) -> list[Call]:
        """The calls that ended without an answer a moment ago: a log line may be theirs."""
        now = trio.current_time()
        while self._given_up and now >= next(iter(self._given_up.values()))[1]:
            del self._given_up[next(iter(self._given_up))]
        return [call for call, until in self._given_up.values() if now < until]

    def fade(self, wire_id: int, until: float) -> None:
        """The server has read that this call was given up: after `until`, Trio time, no log line is its any more."""
        known = self._given_up.get(wire_id)
        if known is not None:
            self._given_up[wire_id] = known[0], min(known[1], until)

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
        while call.outcome is None:
            await self._park(call)
        if isinstance(call.outcome, CorralError):
            raise call.outcome
        return call.outcome

    async def next(self, call: Call, nudge_at: float = inf) -> bytes | Told | Asked | None:
        """Wait for what comes next of a call that hears: a notification, a question, and at last the answer.

        Args:
            call: One of this table's.
            nudge_at: Trio time at which to return None, should nothing have come (`TICK_S` late at most).

        Raises:
            CorralError: the call timed out, or the session failed it.
        """
        if not call.inbox and call.outcome is None:
            call.nudge_at = nudge_at
            await self._park(call)
            call.nudge_at = inf
        if (heard := call.heard()) is not None:
            return heard
        if isinstance(call.outcome, CorralError):
            raise call.outcome
        return call.outcome

    async def _park(self, call: Call) -> None:
        call.task = trio.lowlevel.current_task()

        def abort(_raise_cancel: Any) -> trio.lowlevel.Abort:
            call.task = None
            if call.wire_id in self._calls:
                self._desert(call, CALLER_GONE)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def expire(self, now: float) -> None:
        """End the calls whose time is up, and those whose caller has gone; wake those that asked for it."""
        for call in list(self._calls.values()):
            if now >= call.deadline:
                limit = call.deadline - call.started
                self._time_out(call, now)
                call.settle(CallTimeout(f"no answer to {call.method} within {limit:g} s"))
            elif call.is_gone is not None and now - call.started > PATIENCE_S and call.is_gone():
                self._desert(call, CALLER_GONE)
                call.settle(CallTimeout(CALLER_GONE))
            elif now >= call.nudge_at:
                call.wake()

    def give_up(self, call: Call, why: str) -> None:
        """End a call that its caller does not want any more; the server is told. Nothing if it has ended."""
        if call.wire_id in self._calls:
            self._desert(call, why)
            call.settle(CANCELLED)

    def fail_all(self, error: Callable[[Call], CorralError]) -> None:
        """End every call: the session is over."""
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.settle(error(call))

    def _time_out(self, call: Call, now: float) -> None:
        if self.in_order and now < call.owed_until:
            call.deadline, call.is_gone = call.owed_until, None
        else:
            self._drop(call, TIMED_OUT)

    def _desert(self, call: Call, why: str) -> None:
        if self.in_order:
            call.is_gone = None
        else:
            self._drop(call, why)

    def _drop(self, call: Call, why: str) -> None:
        del self._calls[call.wire_id]
        self._given_up[call.wire_id] = call, trio.current_time() + AFTERGLOW_S
        if len(self._given_up) > AFTERGLOWS_MAX:
            del self._given_up[next(iter(self._given_up))]
        call.end()
        self.cancel(call, why)
