"""The overview of an instance, and the screen around it, driven by keys against a real control plane."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.e2e.plane import open_plane
from tests.tui.driving import contexts_of, drive
from tests.tui.pasts import crash, deploy_doomed, ended, redeploy
from tui.panes.logs import LogsPane
from tui.screens.instance import InstanceScreen
from tui.widgets.grid import Grid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.plane import Plane
    from tests.tui.driving import Driver


@pytest.fixture(scope="module")
def past() -> Iterator[Plane]:
    """`worn` has crashed once and been redeployed with other labels; `doomed` never came up."""
    with open_plane() as opened:
        opened.start()
        opened.deploy("worn", labels={"team": "one"}, environment_vars={"API_KEY": "hush-hush"})
        crash(opened, "worn", last_words="Traceback: \x1b[31mboom\u202e")
        ended(opened, "worn")
        redeploy(opened, "worn", labels={"team": "two"})
        deploy_doomed(opened, "doomed")
        yield opened


async def open_tab(person: Driver, name: str, tab: str = "open") -> InstanceScreen:
    await person.sees(name, "live")
    await person.command(f"{tab} {name}")
    screen = await person.until(
        lambda: isinstance(person.app.screen, InstanceScreen) and person.app.screen, "the instance's screen"
    )
    assert isinstance(screen, InstanceScreen)
    return screen


def test_all_of_an_instance_is_on_one_page(past: Plane) -> None:
    async def script(person: Driver) -> None:
        await open_tab(person, "worn")
        await person.sees(
            "Limits and use", "of 1024M", "API_KEY", "team=two", "direct", "on-failure", "echo 1", "primary"
        )
        await person.sees("Revisions", "superseded", "active", "Processes", "● runs", "✗ exit 7")
        assert "hush-hush" not in person.text()

    drive(contexts_of(past), script, size=(200, 60))


def test_the_last_post_mortem_is_told_whole_and_can_do_no_harm(past: Plane) -> None:
    async def script(person: Driver) -> None:
        await open_tab(person, "worn")
        await person.sees("The last post-mortem", "exited", "Traceback: ", "boom\\u202e", "exit 7, after serving")

    drive(contexts_of(past), script, size=(120, 80))


def test_why_an_instance_fails_is_the_first_thing_on_a_small_terminal(past: Plane) -> None:
    async def script(person: Driver) -> None:
        await open_tab(person, "doomed")
        await person.sees("Why it fails", "status 3", "no such table", "✗ failed")
        await person.sees("→ 2 shows its log, r restarts it, u builds it anew", "r Restart s Stop t Start u Redeploy")

    drive(contexts_of(past), script, size=(80, 24))


def test_the_page_scrolls_to_what_a_small_terminal_has_no_room_for(past: Plane) -> None:
    async def script(person: Driver) -> None:
        await open_tab(person, "worn")
        await person.sees("Now", "last failure")
        assert "The last post-mortem" not in person.text()
        await person.press("tab")
        await person.until(lambda: person.app.focused and person.app.focused.id == "revisions", "the first table")
        await person.sees("Revisions (b rolls back)")
        await person.press("shift+tab", "G")
        await person.sees("The last post-mortem")
        await person.press("g")
        await person.sees("last failure")

    drive(contexts_of(past), script, size=(80, 24))


def test_enter_on_a_process_tells_why_that_one_ended_and_l_opens_its_log(past: Plane) -> None:
    crashed = ended(past, "worn")["number"]

    async def script(person: Driver) -> None:
        screen = await open_tab(person, "worn")
        await person.sees("✗ exit 7", "● runs")
        grid = screen.query_one("#processes", Grid)
        grid.focus()
        grid.move_to(str(crashed))
        await person.press("enter")
        await person.sees(f"Post-mortem of process {crashed}")
        await person.press("home", "enter")
        await person.sees("not yet")
        grid.move_to(str(crashed))
        await person.press("l")
        await person.until(lambda: screen.crumbs[2] == "logs", "the log's tab")
        await person.sees("Traceback: ")
        assert screen.query_one(LogsPane).sieve.incarnation == crashed

    drive(contexts_of(past), script, size=(120, 60))


def test_a_rollback_is_asked_for_and_followed(past: Plane) -> None:
    past.deploy("turned", labels={"team": "one"})
    redeploy(past, "turned", labels={"team": "two"})

    async def script(person: Driver) -> None:
        screen = await open_tab(person, "turned")
        await person.sees("superseded", "team=two")
        await person.press("b")
        await person.sees("Choose an earlier revision")
        await person.press("down", "b")
        await person.sees("Roll back to revision 1?")
        await person.press("n")
        await person.sees_not("Roll back to revision 1?")
        assert past.instance("turned")["revision"] == 2
        await person.press("b")
        await person.sees("Roll back to revision 1?")
        await person.press("y")
        await person.sees("rollback to 1", "r3 · process")
        assert screen.row is not None
        assert screen.row.revision == 3

    drive(contexts_of(past), script, size=(160, 60))


def test_in_read_only_nothing_is_rolled_back(past: Plane) -> None:
    async def script(person: Driver) -> None:
        await open_tab(person, "worn")
        await person.sees("superseded")
        await person.press("b")
        await person.sees("Read-only: nothing is rolled back from here")

    drive(contexts_of(past), script, size=(160, 60), read_only=True)


def test_a_deleted_instance_is_shown_as_such_and_keeps_what_is_known_of_it(past: Plane) -> None:
    past.deploy("brief", labels={"team": "gone"})

    async def script(person: Driver) -> None:
        screen = await open_tab(person, "brief")
        await person.sees("team=gone", "● runs")
        gone = await asyncio.to_thread(past.request, "DELETE", f"/instances/{screen.instance_id}")
        assert gone.status_code == 200, gone.text
        await person.sees("deleted: what is left is its history", "Deleted. What was read of it", "team=gone")
        await person.press("b")
        await person.sees("It is deleted")
        for key, sign in (("3", "deleted: nothing is left of it"), ("4", "CPU")):
            await person.press(key)
            await person.sees(sign)

    drive(contexts_of(past), script, size=(120, 60))


def test_tabs_are_chosen_by_number_and_brackets_and_only_the_one_in_view_follows(past: Plane) -> None:
    async def script(person: Driver) -> None:
        screen = await open_tab(person, "worn", "metrics")

        def following() -> list[str]:
            workers = [worker for worker in person.app.workers if worker.group == "view" and worker.is_running]
            views = {name for name, pane in screen.panes() if any(worker.node is pane for worker in workers)}
            return sorted(views | {name for name, pane in screen.panes() if pane.in_view})

        for key, name in (
            ("1", "overview"),
            ("3", "events"),
            ("right_square_bracket", "metrics"),
            ("left_square_bracket", "events"),
        ):
            await person.press(key)
            await person.until(lambda name=name: following() == [name], f"only {name} following")
            assert screen.crumbs[2] == name
        await person.press("question_mark")
        await person.until(lambda: person.app.screen is not screen, "the keys")
        assert following() == ["events"]
        await person.press("escape")
        await person.until(lambda: person.app.screen is screen, "no keys")
        await person.press("escape")
        await person.until(lambda: person.app.screen is not screen, "the fleet")
        await person.until(lambda: not [w for w in person.app.workers if w.group == "view"], "nobody following")

    drive(contexts_of(past), script)
