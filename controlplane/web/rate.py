"""How often may somebody do something: token buckets in memory, in a bounded table.

Each key costs one number, the time at which its bucket is full again (GCRA: a
bucket with the level written as a time). Pure: the clock is passed in. A key
whose bucket is full is the same as no key, so the table forgets it.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import Callable

KEYS_MAX = 10_000
"""Keys remembered at once. Beyond it the oldest is forgotten: an attacker with more addresses gains one bucket each."""
PRUNE_EVERY_S = 1.0
"""A full table is searched for forgotten keys at most this often, so that filling it costs nobody else."""


@define(eq=False)
class RateLimiter:
    """Allow `rate` per second and key, with a burst of `burst`; a rate of 0 allows everything."""

    rate: float
    burst: float
    clock: Callable[[], float] = monotonic
    _full_at: dict[str, float] = field(factory=dict, init=False, repr=False)
    _pruned_at: float = field(default=float("-inf"), init=False)

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: str) -> float:
        """Take one from the bucket of `key`; return 0 when allowed, else the seconds after which it will be."""
        if self.rate <= 0:
            return 0.0
        now = self.clock()
        interval = 1.0 / self.rate
        full_at = max(self._full_at.get(key, now), now)
        wait = full_at - now - (self.burst - 1) * interval
        if wait > 1e-9:
            return wait
        if key not in self._full_at and len(self._full_at) >= KEYS_MAX:
            self._make_room(now)
        self._full_at[key] = full_at + interval
        return 0.0

    def exhausted(self, key: str) -> float:
        """As `take`, without taking."""
        if self.rate <= 0:
            return 0.0
        now = self.clock()
        return max(0.0, self._full_at.get(key, now) - now - (self.burst - 1) / self.rate)

    def _make_room(self, now: float) -> None:
        if now - self._pruned_at >= PRUNE_EVERY_S:
            self._pruned_at = now
            self._full_at = {key: full_at for key, full_at in self._full_at.items() if full_at > now}
        while len(self._full_at) >= KEYS_MAX:
            del self._full_at[next(iter(self._full_at))]
