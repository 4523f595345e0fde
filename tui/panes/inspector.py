"""Its tools, called by hand."""

from __future__ import annotations

from typing import ClassVar

from tui.panes.base import Pane


class InspectorPane(Pane):
    """Its tools, called by hand."""

    title: ClassVar[str] = "Inspector"
