"""What the web layer counts: requests by route and status, and connections.

Plain numbers that only grow (but for `connections`), written by both doors and
read by `/stats` and `/metrics`. Routes are a closed set of names, never paths,
so that no client can add a label.
"""

from __future__ import annotations

from typing import Literal, get_args

from attrs import define, field

Route = Literal["execute", "mcp", "stream", "events", "api"]
"""`mcp`: the endpoint in all its forms, streams included. `api`: everything that Quart answers."""
HandedOn = Literal["answered", "broken", "unreachable", "left", "unheld"]
"""What became of a request that another node must answer: its answer came whole, or broke off; that node does not answer;
the client left; nobody holds the instance."""


@define(eq=False)
class Meters:
    """Totals since start."""

    requests: dict[tuple[Route, int], int] = field(factory=dict)
    """Answers by route and status."""
    seconds: dict[Route, float] = field(factory=dict)
    """Time from a request's head to the end of its answer, summed by route."""
    connections: int = 0
    """Open now."""
    accepted: int = 0
    refused: int = 0
    """Turned away at MAX_CONNECTIONS, or because no file descriptor was left."""
    cut: int = 0
    """Ended for being too slow or idle."""
    hot: int = 0
    """Requests that the hot lane answered."""
    handed_on: dict[HandedOn, int] = field(factory=lambda: dict.fromkeys(get_args(HandedOn), 0))

    def count(self, route: Route, status: int, seconds: float) -> None:
        """Note one answer."""
        key = (route, status)
        self.requests[key] = self.requests.get(key, 0) + 1
        self.seconds[route] = self.seconds.get(route, 0.0) + seconds
