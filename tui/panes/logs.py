"""Its log: followed, searched, by level and by process."""

from __future__ import annotations

from typing import ClassVar

from tui.panes.base import Pane


class LogsPane(Pane):
    """Its log: followed, searched, by level and by process."""

    title: ClassVar[str] = "Logs"
