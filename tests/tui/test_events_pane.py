"""An instance's events, in words: what was kept and what comes, driven by keys against a real control plane."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.plane import open_plane
from tests.tui.driving import contexts_of, drive
from tests.tui.pasts import crash, deploy_doomed, ended
from tui.board.event_columns import KINDS
from tui.screens.instance import InstanceScreen
from tui.widgets.grid import Grid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.plane import Plane
    from tests.tui.driving import Driver


@pytest.fixture(scope="module")
def past() -> Iterator[Plane]:
    """`worn` has crashed once; `doomed` never came up."""
    with open_plane() as opened:
        opened.start()
        opened.deploy("worn")
        crash(opened, "worn")
        ended(opened, "worn")
        deploy_doomed(opened, "doomed")
        yield opened


async def open_events(person: Driver, name: str) -> Grid[object]:
    await person.sees(name, "live")
    await person.command(f"events {name}")
    await person.until(lambda: isinstance(person.app.screen, InstanceScreen), "the instance's screen")
    await person.sees("deployed as revision 1")
    return person.app.screen.query_one(
        "#events",
    ).query_one(Grid)


def test_what_happened_is_told_in_words_oldest_first(past: Plane) -> None:
    async def script(person: Driver) -> None:
        await open_events(person, "worn")
        await person.sees("running → restarting: ", "starting → running: process", "status 7", "(exited)", "▼ follows")
        text = person.text()
        assert text.index("deployed as revision 1") < text.index("status 7")

    drive(contexts_of(past), script, size=(120, 40))


def test_what_comes_is_at_the_bottom_while_following_and_out_of_sight_while_not(past: Plane) -> None:
    async def script(person: Driver) -> None:
        grid = await open_events(person, "worn")
        await person.press("g")
        await person.sees("stands still")
        assert past.request("PATCH", "/instances/worn", json={"labels": {"team": "quiet"}}).status_code == 200
        await person.until(lambda: "labels team=quiet" in last(grid), "the change, told")
        assert "deployed" in person.line_with("▸")
        await person.press("f")
        await person.until(lambda: "team=quiet" in person.line_with("▸"), "the cursor on the newest")
        assert past.request("PATCH", "/instances/worn", json={"labels": {"team": "loud"}}).status_code == 200
        await person.until(lambda: "team=loud" in person.line_with("▸"), "the cursor on the newest again")

    drive(contexts_of(past), script, size=(120, 40))


def last(grid: Grid[object]) -> str:
    return str(grid.rows[-1]) if grid.rows else ""


def test_kinds_and_filters_choose_what_is_shown(past: Plane) -> None:
    async def script(person: Driver) -> None:
        await open_events(person, "doomed")
        await person.press("e")
        await person.sees("only trouble", "(exited)")
        await person.sees_not("deployed as revision 1")
        await person.press(*"e" * (len(KINDS) - 1))
        await person.sees("deployed as revision 1")
        await person.press("slash")
        await person.type("type:post")
        await person.sees_not("deployed as revision 1")
        await person.sees("(exited)", "/type:post")
        await person.press("escape")
        await person.sees("deployed as revision 1")

    drive(contexts_of(past), script, size=(120, 40))


def test_enter_shows_all_of_an_event_and_escape_only_closes_that(past: Plane) -> None:
    async def script(person: Driver) -> None:
        await open_events(person, "worn")
        await person.press("g", "enter")
        await person.sees('"source_type": "direct"')
        await person.press("down")
        await person.sees('"status": "pending"')
        await person.press("escape")
        await person.sees_not('"status": "pending"')
        assert isinstance(person.app.screen, InstanceScreen)
        await person.press("escape")
        await person.until(lambda: not isinstance(person.app.screen, InstanceScreen), "the fleet")

    drive(contexts_of(past), script, size=(120, 50))


def test_older_events_are_read_when_the_cursor_comes_to_the_top(past: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tui.panes.events.PAGE_ROWS", 6)

    async def script(person: Driver) -> None:
        await person.sees("worn", "live")
        await person.command("events worn")
        await person.sees("6 events", "older ones at the top")
        grid = person.app.screen.query_one("#events").query_one(Grid)
        while "older ones at the top" in person.text():
            known = len(grid.rows)
            await person.press("g")
            await person.until(
                lambda known=known: len(grid.rows) > known or "older ones" not in person.text(), "older events"
            )
        await person.press("g")
        await person.sees("deployed as revision 1")

    drive(contexts_of(past), script, size=(120, 40))


def test_a_history_that_cannot_be_read_says_so_and_is_tried_again(planes: Callable[..., Plane]) -> None:
    plane = planes()
    plane.deploy("worn")

    async def script(person: Driver) -> None:
        await person.sees("worn", "live")
        plane.stop()
        await person.sees("away")
        await person.command("events worn")
        await person.sees("Cannot connect", "ctrl+r tries again")
        plane.start()
        await person.sees("deployed as revision 1", within_s=40)
        await person.sees_not("Cannot connect")

    drive(contexts_of(plane), script)
