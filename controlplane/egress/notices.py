"""Which refusals are told, so that a program that tries a thousand times is not heard a thousand times. Pure."""

from __future__ import annotations

from attrs import define, field

WINDOW_S = 60.0
"""One target is told once in this time."""
MAX_TARGETS = 20
"""Different ones that are told in this time, per instance."""


@define(eq=False)
class Notices:
    """What has been told of one instance."""

    _began: float = field(default=float("-inf"), init=False)
    _told: set[tuple[str, int]] = field(factory=set, init=False, repr=False)

    def is_news(self, host: str, port: int, now: float) -> bool:
        """Whether a refusal is told; remembers that it was. `now` is in seconds of any clock that only goes forward."""
        if now - self._began >= WINDOW_S:
            self._began = now
            self._told.clear()
        if (host, port) in self._told or len(self._told) >= MAX_TARGETS:
            return False
        self._told.add((host, port))
        return True
