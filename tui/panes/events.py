"""What happened to it."""

from __future__ import annotations

from typing import ClassVar

from tui.panes.base import Pane


class EventsPane(Pane):
    """What happened to it."""

    title: ClassVar[str] = "Events"
