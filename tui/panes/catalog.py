"""Which tabs an instance has, in order; their places are the keys `1` to `7`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tui.panes.events import EventsPane
from tui.panes.inspector import InspectorPane
from tui.panes.logs import LogsPane
from tui.panes.metrics import MetricsPane
from tui.panes.overview import OverviewPane
from tui.panes.tools import ToolsPane
from tui.panes.wire import WirePane

if TYPE_CHECKING:
    from tui.panes.base import Pane

PANES: Mapping[str, type[Pane]] = {
    "overview": OverviewPane,
    "logs": LogsPane,
    "events": EventsPane,
    "metrics": MetricsPane,
    "tools": ToolsPane,
    "inspector": InspectorPane,
    "wire": WirePane,
}
