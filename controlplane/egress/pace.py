"""How fast one instance may ask for things that cost the process it shares with all others. Pure: the clock is passed in."""

from __future__ import annotations

from attrs import define, field


@define(eq=False)
class Pace:
    """So many a second, after so many at once.

    Args:
        per_s: In the long run.
        burst: At once, after a rest.
    """

    per_s: float
    burst: float
    _due: float = field(default=float("-inf"), init=False)
    """When the last one was due, had all come evenly."""

    def delay_s(self, now: float) -> float:
        """Count one that comes at `now` seconds; the seconds that it has to wait."""
        self._due = max(self._due, now - self.burst / self.per_s) + 1 / self.per_s
        return max(0.0, self._due - now)
