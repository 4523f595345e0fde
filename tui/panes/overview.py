"""What it is, what it may use, and how its processes ended."""

from __future__ import annotations

from typing import ClassVar

from tui.panes.base import Pane


class OverviewPane(Pane):
    """What it is, what it may use, and how its processes ended."""

    title: ClassVar[str] = "Overview"
