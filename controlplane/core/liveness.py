"""Whether a process that calls wait for still does anything about them. Pure: signs of life in, findings out.

A server that works on one call may have no time to answer a ping, and is given
as long as any of its calls may take. What it says meanwhile, whatever it is, is a
sign of life. Time that nobody looked counts for `GAP_S` at most.
"""

from __future__ import annotations

from attrs import define, field, frozen

from controlplane.core.watchdog import CODES, GAP_S, Finding, Step

PING_AFTER_S = 5.0
"""Calls that have waited this long in silence: time to ask whether anybody is there."""
WARN_S = 10.0
"""Of silence since that question."""
GRACE_S = 5.0
"""Beyond the longest that a call may take: what came too late for its caller is a sign of life still."""
KILL_MIN_S = 20.0
"""Of silence, however short its calls may be: first comes a warning."""
UNWAITED = 0.5
"""How much of the time counts in which its calls have timed out and it still owes the answer to the ping."""
FROZEN_LOOKS = 5
"""A process that somebody stopped (SIGSTOP) while calls wait is given up after so many looks."""
DEAF_S = 20.0
"""A process that takes not one byte for this long while bytes wait is given up."""
SPINS = 0.8
"""Share of a core, or of what it may use of one, from which a silent process is said to spin."""
FROZEN = "was stopped by a signal while calls were waiting"


@frozen(kw_only=True, slots=True)
class Signs:
    """What one look at a process and the conversation with it found."""

    at: float
    """Monotonic seconds."""
    waiting: int
    """Calls and subscriptions that it has not answered."""
    calls: int
    """Calls among them that will end by themselves, and wait for nobody but the server."""
    heard: int
    """Grows with everything that it says."""
    call_limit_s: float
    """The longest that any of its calls may take."""
    is_stopped: bool = False
    """One of its processes stands still by a signal."""
    unread_since: float | None = None
    """When it last read something, while something waits to be read."""
    can_be_asked: bool = True
    """Whether it would answer a ping without falling out of step."""
    cpu_share: float = 0.0
    """Of one core, or of what it may use of one."""


@define
class Liveness:
    """Of one process, from its start to its end."""

    told: Step | None = field(default=None, init=False)
    wants_ping: bool = field(default=False, init=False)
    """Whether it is to be asked now if it is there."""
    _at: float | None = field(default=None, init=False)
    _heard: int = field(default=-1, init=False)
    _silent_s: float = field(default=0.0, init=False)
    """Since calls began to wait after it was last heard of; slower once none does any more."""
    _is_asked: bool = field(default=False, init=False)
    _asked_s: float = field(default=0.0, init=False)
    _frozen_looks: int = field(default=0, init=False)
    _unread_since: float | None = field(default=None, init=False)
    _unread_s: float = field(default=0.0, init=False)

    def look(self, signs: Signs) -> Finding | None:
        """Fold one look in; what it leads to, if anything. Then see `wants_ping`."""
        passed_s = 0.0 if self._at is None else min(GAP_S, max(0.0, signs.at - self._at))
        self._at, self.wants_ping = signs.at, False
        if self.told == "kill":
            return None
        was_heard = self._listen(signs, passed_s)
        gone = self._frozen(signs, was_heard=was_heard) or self._deaf(signs, passed_s)
        found = gone or (self._calm() if was_heard else self._hung(signs))
        if found is not None:
            self.told = None if found.step == "calm" else found.step
        return found

    def rests(self, at: float, heard: int, unread_since: float | None) -> bool:
        """Fold in a look at a process of which nobody waits for anything: what `look` does with such signs, at less cost.

        False where there is more to it: then it is for `look`.
        """
        if self.told is not None or self._is_asked:
            return False
        self._at, self.wants_ping, self._frozen_looks = at, False, 0
        self._unread_since, self._unread_s = unread_since, 0.0
        if heard != self._heard:
            self._heard, self._silent_s, self._asked_s = heard, 0.0, 0.0
        return True

    def _listen(self, signs: Signs, passed_s: float) -> bool:
        """Count the silence; whether there was none."""
        if signs.heard != self._heard:
            self._heard, self._silent_s, self._is_asked, self._asked_s = signs.heard, 0.0, False, 0.0
            return True
        if signs.calls or self._is_asked:
            passed_s *= 1 if signs.calls else UNWAITED
            self._silent_s += passed_s
            self._asked_s += passed_s if self._is_asked else 0.0
        return False

    def _frozen(self, signs: Signs, *, was_heard: bool) -> Finding | None:
        stands_still = signs.is_stopped and signs.waiting and not was_heard
        self._frozen_looks = self._frozen_looks + 1 if stands_still else 0
        if self._frozen_looks < FROZEN_LOOKS:
            return None
        return _finding("kill", self._frozen_looks, FROZEN_LOOKS, FROZEN, unit="looks")

    def _deaf(self, signs: Signs, passed_s: float) -> Finding | None:
        if signs.unread_since is None or signs.unread_since != self._unread_since or not signs.waiting:
            self._unread_since, self._unread_s = signs.unread_since, 0.0
            return None
        self._unread_s += passed_s
        if self._unread_s <= DEAF_S:
            return None
        return _finding("kill", self._unread_s, DEAF_S, f"has read nothing for {DEAF_S:g} s while calls were waiting")

    def _hung(self, signs: Signs) -> Finding | None:
        if not signs.can_be_asked or not (signs.calls or self._is_asked):
            return None
        if not self._is_asked:
            self._is_asked = self.wants_ping = self._silent_s >= PING_AFTER_S
            return None
        limit_s = max(KILL_MIN_S, signs.call_limit_s + GRACE_S)
        spins = signs.cpu_share >= SPINS
        reason = f"has said nothing for {self._silent_s:.0f} s and does not answer a ping, while {_those(signs.calls)}"
        if spins:
            reason += f"; it spins at {signs.cpu_share * 100:.0f} % of its CPU"
        if self._asked_s > 0 and self._silent_s >= limit_s:
            return _finding("kill", self._silent_s, limit_s, reason, spins=spins)
        if self.told is None and self._asked_s >= WARN_S:
            return _finding("warn", self._silent_s, limit_s, reason, spins=spins)
        return None

    def _calm(self) -> Finding | None:
        return _finding("calm", 0.0, WARN_S, "answers again") if self.told == "warn" else None


def _those(calls: int) -> str:
    return "its calls have timed out" if not calls else f"{calls} call{' waits' if calls == 1 else 's wait'}"


def _finding(step: Step, value: float, limit: float, reason: str, *, unit: str = "s", spins: bool = False) -> Finding:
    code = CODES["cpu" if spins else "hung"]
    return Finding(what="hung", step=step, value=round(value, 1), limit=limit, unit=unit, reason=reason, code=code)
