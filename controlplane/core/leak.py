"""Whether memory grows without end: a slope that noise and garbage collection do not make. Pure.

A process that is collected now and then rises and falls like a saw; what leaks
raises the saw's foot. So of each stretch of time only the lowest value counts,
and the slope is the median of those between all pairs of them (Theil and Sen),
which a few odd values cannot move.
"""

from __future__ import annotations

from collections import deque
from itertools import combinations, pairwise
from statistics import median

from attrs import define, field, frozen

STRETCH_S = 60.0
"""Of each, the lowest value counts."""
STRETCHES = 10
"""So many are looked at: what a server needs to warm up, it has by then mostly."""
RISES_MIN = 8
"""Of the steps between neighbouring stretches; chance has 8 of 9 go up in one case of fifty."""
FALL_MAX = 0.25
"""Of the growth: what falls by more in one step was collected, and may be again."""
STEADY_MIN = 0.4
"""Growth of the later half, as a share of that of the earlier one; a cache that fills up slows down."""
GROWTH_MIN_MB = 16.0
GROWTH_MIN_SHARE = 0.05
"""Of the limit: growth by less than both is noise."""
SOON_S = 1800.0
"""A limit that is reached later than this is not worth a warning yet."""


@frozen
class Trend:
    """Steady growth. `left_s` is when the limit is reached, if it goes on like this."""

    mb_per_s: float
    over_s: float
    left_s: float

    def told(self, memory_mb: float, limit_mb: float) -> str:
        """One sentence, with the numbers."""
        grows = f"grows by {self.mb_per_s * 60:.1f} MiB a minute for {self.over_s / 60:.0f} min"
        if self.left_s <= 0:
            return f"{grows}, and uses {memory_mb:.0f} of {limit_mb:g} MiB of memory"
        return f"{grows}: it uses {memory_mb:.0f} of {limit_mb:g} MiB of memory, and all of it in {self.left_s / 60:.0f} min"


@define
class Leak:
    """The lowest values of the last stretches of one instance's time."""

    stretch_s: float = STRETCH_S
    _lows: deque[float] = field(factory=lambda: deque(maxlen=STRETCHES), init=False)
    _low: float = field(default=float("inf"), init=False)
    _ends: float | None = field(default=None, init=False)
    _trend: Trend | None = field(default=None, init=False)

    @property
    def is_over(self) -> bool:
        """Whether it has been looked at for long enough to say that it does not grow."""
        return self._trend is None and len(self._lows) == STRETCHES

    def look(self, memory_mb: float, limit_mb: float, at: float) -> Trend | None:
        """Fold one reading in; the growth there is, None for none that matters."""
        if self._ends is None:
            self._ends = at + self.stretch_s
        if at >= self._ends:
            if self._low < float("inf"):
                self._lows.append(self._low)
            self._low, self._ends = float("inf"), at + self.stretch_s
            self._trend = self._judge(memory_mb, limit_mb)
        self._low = min(self._low, memory_mb)
        return self._trend

    def _judge(self, memory_mb: float, limit_mb: float) -> Trend | None:
        lows = list(self._lows)
        if len(lows) < STRETCHES or not _grows(lows, limit_mb):
            return None
        slopes = [(b - a) / ((j - i) * self.stretch_s) for (i, a), (j, b) in combinations(enumerate(lows), 2)]
        mb_per_s = median(slopes)
        left_s = max(0.0, limit_mb - memory_mb) / mb_per_s if mb_per_s > 0 else float("inf")
        return Trend(mb_per_s, STRETCHES * self.stretch_s, left_s) if left_s <= SOON_S else None


def _grows(lows: list[float], limit_mb: float) -> bool:
    """By enough, in most steps, never back by much, and not ever more slowly."""
    growth, middle = lows[-1] - lows[0], lows[len(lows) // 2]
    if growth < max(GROWTH_MIN_MB, GROWTH_MIN_SHARE * limit_mb):
        return False
    if sum(later > earlier for earlier, later in pairwise(lows)) < RISES_MIN:
        return False
    if max(earlier - later for earlier, later in pairwise(lows)) > FALL_MAX * growth:
        return False
    return lows[-1] - middle >= STEADY_MIN * (middle - lows[0])
