"""When a child process ends, decide whether it runs again and how long to wait.

Pure: no clock, no randomness, no I/O. The caller passes `now` and `jitter`, so
every path is a table test. All times are seconds on one monotonic clock.

The burst window is a sliding list of crash times, as in OTP's `supervisor`;
two bursts either side of a fixed interval's edge cannot slip past it. The
delay doubles with every crash since the last healthy run.
"""

from __future__ import annotations

from enum import Enum

from attrs import evolve, field, frozen
from attrs import validators as v

HEALTHY_RUN_S = 60.0
"""A run that served this long forgives all earlier crashes."""


class RestartMode(Enum):
    """After which exits a server is started again."""

    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    NEVER = "never"


@frozen(kw_only=True)
class RestartPolicy:
    """What an owner asks for. Delays and windows are seconds."""

    mode: RestartMode = RestartMode.ON_FAILURE
    burst: int = field(default=5, validator=v.ge(1))
    window_s: float = field(default=60.0, validator=v.gt(0))
    base_delay_s: float = field(default=0.5, validator=v.gt(0))
    max_delay_s: float = field(default=30.0, validator=v.gt(0))


@frozen
class RestartAfter:
    """Start the next incarnation after `delay_s` seconds; `reason` is for the event."""

    delay_s: float
    attempt: int
    reason: str


@frozen
class Stop:
    """Do not start again. `failed` is what the operator sees as red."""

    reason: str
    failed: bool
    crash_loop: bool = False


@frozen
class RestartState:
    """Crash times still inside the window, oldest first, and crashes since the last healthy run."""

    policy: RestartPolicy
    crashes: tuple[float, ...] = ()
    streak: int = 0

    def on_exit(
        self, code: int, *, ran_s: float, now: float, jitter: float
    ) -> tuple[RestartState, RestartAfter | Stop]:
        """Fold one exit into the state.

        Args:
            code: Exit status; negative is minus the signal number.
            ran_s: How long the process had been serving, in seconds; 0 if it never did.
            now: When it ended, in seconds.
            jitter: A draw from [0, 1); up to a quarter is added to the delay, so
                instances felled together do not return together.
        """
        policy = self.policy
        if policy.mode is RestartMode.NEVER:
            return self, Stop("restart mode is never", failed=code != 0)
        if policy.mode is RestartMode.ON_FAILURE and code == 0 and ran_s > 0:
            return self, Stop("ended by itself with status 0", failed=False)

        forgiven = ran_s >= HEALTHY_RUN_S
        earlier = () if forgiven else tuple(t for t in self.crashes if t > now - policy.window_s)
        crashes = (*earlier, now)
        streak = 1 if forgiven else self.streak + 1
        state = evolve(self, crashes=crashes, streak=streak)
        if len(crashes) > policy.burst:
            reason = f"{len(crashes)} exits in {policy.window_s:g} s"
            return state, Stop(reason, failed=True, crash_loop=True)

        # 2.0 ** 64 is already far beyond any ceiling; the bound keeps a float from overflowing.
        delay = min(policy.max_delay_s, policy.base_delay_s * 2.0 ** min(streak - 1, 64))
        delay *= 1 + jitter / 4
        return state, RestartAfter(
            delay, streak, f"exit {len(crashes)} of {policy.burst} allowed in {policy.window_s:g} s"
        )
