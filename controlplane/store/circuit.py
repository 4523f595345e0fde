"""Whether calls are sent to Postgres at all; pure.

While it is known to be away, a call fails at once instead of waiting out its
timeouts with all others. Whoever owns a circuit probes in the background and
reports what it sees; calls never probe.
"""

from __future__ import annotations

from attrs import define

RETRY_AFTER_S = 2.0
"""What callers are told: a probe runs at least every second, so the answer is known by then."""


@define
class Circuit:
    """Open means away: no call is sent. Times are monotonic seconds."""

    problem: str | None = None
    """Why it is open."""
    away_since: float | None = None
    refusing: str | None = None
    """Why the database, though there, refuses to write."""

    @property
    def is_open(self) -> bool:
        return self.problem is not None

    def open(self, problem: str, now: float) -> bool:
        """Stop sending calls; tells whether that is news."""
        news = self.problem is None
        self.problem = problem
        if news:
            self.away_since = now
        return news

    def close(self) -> bool:
        """Send calls again; tells whether that is news."""
        news = self.problem is not None
        self.problem = None
        self.away_since = None
        return news

    def write_refused(self, problem: str) -> bool:
        """Note that it refuses to write; tells whether that is news."""
        news = self.refusing is None
        self.refusing = problem
        return news

    def write_accepted(self) -> bool:
        """Note that it writes; tells whether that is news."""
        news = self.refusing is not None
        self.refusing = None
        return news
