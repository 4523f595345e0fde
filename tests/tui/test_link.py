"""The dashboard while its control plane is away, back, refusing, or was never there."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from tests.tui.driving import contexts_of, drive
from tui.contexts import Context, Contexts
from tui.screens.fleet import FleetScreen

if TYPE_CHECKING:
    from tests.e2e.plane import Plane
    from tests.tui.driving import Driver

BACK_S = 60.0
"""For a control plane to be started again and to be found: a hang guard."""


def test_a_control_plane_that_is_killed_leaves_its_last_picture_and_comes_back_by_itself(plane: Plane) -> None:
    plane.deploy("alpha")

    async def script(person: Driver) -> None:
        await person.sees("live", "alpha", "● running")
        await asyncio.to_thread(plane.kill)
        await person.sees("away for", "attempt 2", "This is the last picture", "Is it running?")
        assert "alpha" in person.text()
        assert person.app.screen.has_class("-stale")
        await person.press("enter")
        await person.sees("fleet › alpha", "away for")
        await person.press("escape", "s", "y")
        await person.sees("Cannot connect to")
        await person.press("ctrl+r")
        await asyncio.to_thread(plane.start)
        await person.sees("● live", "Back after", within_s=BACK_S)
        assert not person.app.screen.has_class("-stale")
        assert "This is the last picture" not in person.text()
        await person.until(lambda: "● running" in person.line_with("alpha"), "alpha runs again", BACK_S)
        await person.until(lambda: person.app.plane.board.rows, "rows")

    drive(contexts_of(plane), script)


def test_what_came_and_went_while_it_was_away_is_in_the_next_picture(plane: Plane) -> None:
    plane.deploy("stays")
    plane.deploy("goes")

    async def script(person: Driver) -> None:
        await person.sees("live", "stays", "goes")
        await asyncio.to_thread(plane.stop)
        await person.sees("away for")
        await asyncio.to_thread(plane.start)
        await asyncio.to_thread(plane.request, "DELETE", "/instances/goes")
        await asyncio.to_thread(plane.deploy, "comes")
        await person.sees("● live", "comes", within_s=BACK_S)
        await person.until(lambda: plane.get("/instances") and "goes" not in person.text(), "goes gone")

    drive(contexts_of(plane), script)


def test_a_token_that_is_revoked_is_refused_with_where_it_came_from(plane: Plane) -> None:
    made = plane.request("POST", "/tokens", json={"name": "passing", "role": "viewer"}).json()
    plane.deploy("beta")

    async def script(person: Driver) -> None:
        await person.sees("live", "beta")
        answer = await asyncio.to_thread(plane.request, "DELETE", f"/tokens/{made['token_id']}")
        assert answer.is_success, answer.text
        await person.sees("✗ refused", "The token came from", "beta", within_s=BACK_S)

    drive(contexts_of(plane, token=made["token"], origin="a file of mine"), script)


def test_a_token_that_was_never_let_in_is_said_in_place_of_a_table(plane: Plane) -> None:
    async def script(person: Driver) -> None:
        await person.sees("✗ refused", "A valid bearer token is needed", "The token came from CORRAL_TOKEN")
        assert "NAME" not in person.text()
        await person.press("enter", "l", "s", "a")
        await person.press("escape")
        assert isinstance(person.app.screen, FleetScreen)

    drive(contexts_of(plane, token="wrong", origin="CORRAL_TOKEN"), script)


def test_without_a_control_plane_it_is_said_what_to_do_and_one_that_comes_is_noticed(plane: Plane) -> None:
    plane.stop()

    async def script(person: Driver) -> None:
        await person.sees("◌ away for", "Cannot connect to", "Is it running?", "corral up", "attempt 2")
        assert "NAME" not in person.text()
        await asyncio.to_thread(plane.start)
        await person.sees("● live", "NAME", within_s=BACK_S)

    drive(contexts_of(plane), script, size=(80, 24))


def test_something_that_is_not_corral_is_refused_and_not_read(plane: Plane) -> None:
    async def script(person: Driver) -> None:
        await person.sees("✗ refused", "There is no such path")

    drive(contexts_of(plane, url=f"{plane.url}/docs"), script)


def test_a_server_that_accepts_and_says_nothing_does_not_hold_up_leaving() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        context = Context(name="mute", url=f"http://127.0.0.1:{mute.getsockname()[1]}", token="x")

        async def script(person: Driver) -> None:
            await person.sees("◌ connecting to http://127.0.0.1")
            await person.press("q")

        drive(Contexts((context,), context), script)
