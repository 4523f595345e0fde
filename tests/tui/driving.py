"""The dashboard as a test drives it: the real program without a terminal, against a real control plane.

`drive` runs a script of key presses. Whatever the script waits for is asked of the screen as a person sees it, within
a bound; nothing sleeps for a guess.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from attrs import define

from tui.app import Dashboard
from tui.contexts import Context, Contexts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from textual.pilot import Pilot

    from tests.e2e.plane import Plane

WAIT_S = 20.0
"""Bound of every wait: a hang guard."""
LOOK_AGAIN_S = 0.02
SIZE = (120, 40)


@define
class Driver:
    """A person at the dashboard."""

    app: Dashboard
    pilot: Pilot[Any]

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def type(self, text: str) -> None:
        """Type a text, character by character."""
        names = {
            " ": "space",
            "/": "slash",
            ":": "colon",
            "-": "minus",
            ".": "full_stop",
            "_": "underscore",
            "=": "equals_sign",
            "!": "exclamation_mark",
        }
        await self.pilot.press(*(names.get(character, character) for character in text))

    async def command(self, line: str) -> None:
        """Give a command on the `:` line."""
        await self.press("colon")
        await self.type(line)
        await self.press("enter")

    def lines(self) -> list[str]:
        """What is on the screen, line by line, without colours."""
        width, height = self.app.size
        strips = self.app.screen._compositor.render_strips()
        return ["".join(segment.text for segment in strip)[:width].rstrip() for strip in strips[:height]]

    def text(self) -> str:
        return "\n".join(self.lines())

    async def until(self, condition: Callable[[], Any], what: str, within_s: float = WAIT_S) -> Any:
        """Wait until a condition holds, and return what it returned.

        Raises:
            AssertionError: not within the bound; shows the screen.
        """
        deadline = time.monotonic() + within_s
        while not (value := condition()):
            assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}\n{self.text()}"
            await self.pilot.pause(LOOK_AGAIN_S)
        return value

    async def sees(self, *texts: str, within_s: float = WAIT_S) -> None:
        """Wait until all these texts are on the screen."""
        await self.until(lambda: all(text in self.text() for text in texts), f"{texts} on the screen", within_s)

    async def sees_not(self, text: str, within_s: float = WAIT_S) -> None:
        """Wait until a text is not on the screen."""
        await self.until(lambda: text not in self.text(), f"no {text!r} on the screen", within_s)

    def line_with(self, text: str) -> str:
        """The first line that has a text in it."""
        return next(line for line in self.lines() if text in line)


def contexts_of(plane: Plane, **more: Any) -> Contexts:
    """The one context of a control plane, as an administrator."""
    here = Context(**({"name": "local", "url": plane.url, "token": plane.token, "origin": "the test"} | more))
    return Contexts((here,), here)


def drive(
    contexts: Contexts,
    script: Callable[[Driver], Awaitable[None]],
    *,
    size: tuple[int, int] = SIZE,
    **options: Any,
) -> None:
    """Run a script against the dashboard, and end it as a person would."""

    async def main() -> None:
        app = Dashboard(contexts, **options)
        app.animation_level = "none"  # each key would be waited for until nothing moves any more
        async with app.run_test(size=size, notifications=True) as pilot:
            await script(Driver(app, pilot))

    asyncio.run(main())
