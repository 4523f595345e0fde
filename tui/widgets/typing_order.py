"""Keys that do something with what is typed, in the order in which they were pressed.

A key with priority is carried out at once, while letters before it may still wait for the field that they are meant
for; over a slow line, or when pasted, they come together.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from textual.app import App


def after_typing(app: App[Any], do: Callable[[], Awaitable[None] | None]) -> None:
    """Do something once the field in focus has taken every key before this one."""
    focused = app.focused
    if focused is None:
        app.call_later(do)
    else:
        # Not by the field itself: what is done may take the field away, which would wait for its end within itself.
        focused.call_later(app.call_later, do)
