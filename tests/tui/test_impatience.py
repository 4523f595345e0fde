"""Keys that come before what they are meant for has been put together: none is lost, none ends the dashboard."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from textual import events

from tests.tui.driving import contexts_of, drive
from tui.screens.instance import InstanceScreen

if TYPE_CHECKING:
    from tests.e2e.plane import Plane
    from tests.tui.driving import Driver


def test_a_tab_that_is_asked_for_before_the_screen_is_laid_out_is_shown(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        await person.sees("live", "alpha")
        for _ in range(2):
            person.app.post_message(events.Key("enter", "\r"))
        await person.until(lambda: isinstance(person.app.screen, InstanceScreen), "the instance")
        person.app.post_message(events.Key("2", "2"))
        await person.sees("fleet › alpha › logs", "● following")

    drive(contexts_of(fleet), script)


def test_an_instance_that_is_opened_and_left_at_once(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        await person.sees("live", "alpha")
        for _ in range(10):
            for key, character in (("enter", "\r"), ("right_square_bracket", "]"), ("escape", None), ("j", "j")):
                person.app.post_message(events.Key(key, character))
        await person.sees("NAME", "alpha", "live")
        await person.press("q")

    drive(contexts_of(fleet), script)


def test_tabs_that_are_asked_for_one_after_the_other_end_with_the_last(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        await person.sees("live", "alpha")
        await person.press("enter")
        await person.sees("1 Overview")
        for key in ("2", "4", "5", "3", "4", "7"):
            person.app.post_message(events.Key(key, key))
            await asyncio.sleep(0)
        await person.sees("fleet › alpha › wire", "following")
        for _ in range(5):
            await person.pilot.pause()
        assert "› wire" in person.text()

    drive(contexts_of(fleet), script)


def test_a_stroke_that_comes_while_the_dashboard_ends_paints_nothing(fleet: Plane) -> None:
    apps = []

    async def script(person: Driver) -> None:
        await person.sees("live", "alpha")
        apps.append(person.app)

    drive(contexts_of(fleet), script)
    assert not apps[0].screen_stack
    apps[0]._repaint()
