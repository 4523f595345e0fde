"""Which screen a place's name stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tui.screens.base import BoardScreen

SCREENS: Mapping[str, Callable[[], BoardScreen]] = {}
