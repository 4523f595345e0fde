"""Which screen a place's name stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tui.screens.alerts import AlertsScreen
from tui.screens.contexts import ContextsScreen
from tui.screens.deploy import DeployScreen
from tui.screens.host import HostScreen
from tui.screens.timeline import TimelineScreen
from tui.screens.tokens import TokensScreen
from tui.screens.usage import UsageScreen

if TYPE_CHECKING:
    from tui.screens.base import BoardScreen

SCREENS: Mapping[str, Callable[[], BoardScreen]] = {
    "alerts": AlertsScreen,
    "contexts": ContextsScreen,
    "deploy": DeployScreen,
    "host": HostScreen,
    "timeline": TimelineScreen,
    "tokens": TokensScreen,
    "usage": UsageScreen,
}
