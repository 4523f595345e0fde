"""CPU and memory against their limits, calls, latency."""

from __future__ import annotations

from typing import ClassVar

from tui.panes.base import Pane


class MetricsPane(Pane):
    """CPU and memory against their limits, calls, latency."""

    title: ClassVar[str] = "Metrics"
