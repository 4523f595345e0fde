"""Keys that come faster than the screen: what is typed after `:` or `/` is text, whatever else happens meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import events

from tests.tui.driving import contexts_of, drive

if TYPE_CHECKING:
    from tests.e2e.plane import Plane
    from tests.tui.driving import Driver

NAMES = {":": "colon", "/": "slash", " ": "space", "\r": "enter"}


def all_at_once(person: Driver, text: str) -> None:
    """As a terminal hands over what was typed ahead: every key before the first is looked at."""
    for character in text:
        person.app.post_message(events.Key(NAMES.get(character, character), character))


def test_a_filter_typed_at_once_is_a_filter_and_no_verb(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        await person.sees("alpha", "live")
        all_at_once(person, "/start")  # r, s, t, a would restart, stop, start and go to the alerts
        await person.sees("/start", "0 of 3")
        assert len(person.app.screen_stack) == 1

    drive(contexts_of(fleet), script)
    assert {row["name"]: row["status"] for row in fleet.instances()} == {
        "alpha": "running", "beta": "running", "gamma": "stopped",
    }  # fmt: skip


def test_a_command_typed_before_the_first_picture_is_kept(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        all_at_once(person, ":stats")
        await person.sees("live")
        await person.sees(":stats")
        await person.press("enter")
        await person.sees("› host")

    drive(contexts_of(fleet), script)
    assert {row["status"] for row in fleet.instances() if row["name"] != "gamma"} == {"running"}
