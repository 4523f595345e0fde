"""How much of an instance's output is kept, when it prints without end.

Pure: the clock is passed in. A bucket of lines and one of bytes fill again
each second; what does not pass is counted and announced in one line.
"""

from __future__ import annotations

from attrs import define, field

LINES_PER_S = 200.0
BYTES_PER_S = 128 * 1024.0
LINES_PER_S_MIN = 20.0
"""However few bytes a second are kept."""
BURST_S = 10.0
"""A start-up banner or a long traceback passes whole."""


@define
class Floodgate:
    """Decides line by line; `dropped` is what it held back since the last `announce`."""

    lines_per_s: float = LINES_PER_S
    bytes_per_s: float = BYTES_PER_S
    dropped: int = field(default=0, init=False)
    dropped_total: int = field(default=0, init=False)
    seen_bytes: int = field(default=0, init=False)
    """Of all lines, kept or not."""
    _lines: float = field(init=False)
    _bytes: float = field(init=False)
    _at: float = field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self._lines = self.lines_per_s * BURST_S
        self._bytes = self.bytes_per_s * BURST_S

    def admits(self, size_bytes: int, now: float) -> bool:
        """Whether a line of this size, seen at `now` seconds, is kept."""
        self._refill(now)
        self.seen_bytes += size_bytes
        if self._lines < 1 or self._bytes < size_bytes:
            self.dropped += 1
            self.dropped_total += 1
            return False
        self._lines -= 1
        self._bytes -= size_bytes
        return True

    def limit(self, kib_per_s: float) -> None:
        """Let so much pass from now on, and lines in proportion."""
        self.bytes_per_s = kib_per_s * 1024.0
        self.lines_per_s = max(LINES_PER_S_MIN, LINES_PER_S * self.bytes_per_s / BYTES_PER_S)

    def announce(self) -> int:
        """Take the count of lines held back."""
        dropped, self.dropped = self.dropped, 0
        return dropped

    def _refill(self, now: float) -> None:
        passed = max(0.0, now - self._at)
        self._at = now
        self._lines = min(self.lines_per_s * BURST_S, self._lines + passed * self.lines_per_s)
        self._bytes = min(self.bytes_per_s * BURST_S, self._bytes + passed * self.bytes_per_s)
