"""Keys that do something with what is typed, in the order in which they were pressed.

A key with priority is carried out at once, while letters before it may still wait for the field that they are meant
for; over a slow line, or when pasted, they come together.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from textual.binding import Binding

if TYPE_CHECKING:
    from textual.app import App

STEPS = (
    Binding("tab", "app.focus_next", "Next field", show=False, priority=True),
    Binding("shift+tab", "app.focus_previous", "Field before", show=False, priority=True),
)
"""From field to field. The keyboard moves before the next key is looked at: without priority the field would get to tab
only when it was given the keys after it as well."""


def after_typing(app: App[Any], do: Callable[[], Awaitable[None] | None]) -> None:
    """Do something once the field in focus has taken every key before this one."""
    focused = app.focused
    if focused is None:
        app.call_later(do)
    else:
        # Not by the field itself: what is done may take the field away, which would wait for its end within itself.
        focused.call_later(app.call_later, do)
