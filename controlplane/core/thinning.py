"""Of things that somebody can repeat without end, the first few as they are and the rest as a number; pure.

A window begins with the first of its kind and lasts as long as it is said. What is
told is bounded whatever comes: for each kind `burst` and one number per window, for
`keys_max` kinds at the same time, and one number for all kinds beyond those.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from attrs import define, field

K = TypeVar("K", bound=Hashable)


@define
class _Window:
    ends: float
    told: int = 0
    untold: int = 0


@define(eq=False)
class Thinning(Generic[K]):
    """Times are monotonic seconds; `rest` is the kind that all those are counted under for which there is no room."""

    burst: int
    window_s: float
    keys_max: int
    rest: K
    _windows: dict[K, _Window] = field(factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self._windows)

    def tells(self, key: K, now: float) -> bool:
        """Whether this one is told by itself; if not, it is counted. What `due` has to say must have been taken before."""
        window = self._windows.get(key)
        if window is None:
            if len(self._windows) >= self.keys_max:
                self._windows.setdefault(self.rest, _Window(now + self.window_s)).untold += 1
                return False
            window = self._windows[key] = _Window(now + self.window_s)
        if window.told < self.burst:
            window.told += 1
            return True
        window.untold += 1
        return False

    def due(self, now: float) -> list[tuple[K, int]]:
        """What was not told in windows that have ended by now, and how often; it is forgotten here."""
        ended = [(key, window) for key, window in self._windows.items() if window.ends <= now]
        for key, _ in ended:
            del self._windows[key]
        return [(key, window.untold) for key, window in ended if window.untold]
