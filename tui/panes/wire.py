"""Its JSON-RPC traffic, live."""

from __future__ import annotations

from typing import ClassVar

from tui.panes.base import Pane


class WirePane(Pane):
    """Its JSON-RPC traffic, live."""

    title: ClassVar[str] = "Wire"
