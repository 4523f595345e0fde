"""What it offers."""

from __future__ import annotations

from typing import ClassVar

from tui.panes.base import Pane


class ToolsPane(Pane):
    """What it offers."""

    title: ClassVar[str] = "Tools"
