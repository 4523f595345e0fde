"""The contexts: who can be reached, and switching between them; against two real control planes."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.tui.cutting import wired
from tests.tui.driving import drive
from tui.board.context_columns import CONTEXT_COLUMNS, ContextRow, about, linked
from tui.board.link import Link, LinkState
from tui.contexts import Context, Contexts

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.plane import Plane
    from tests.tui.driving import Driver


def unused_url() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def contexts(here: Plane, *others: Context) -> Contexts:
    first = Context(name="local", url=here.url, token=here.token, origin="the test")
    return Contexts((first, *others), first)


def test_each_context_says_whether_it_can_be_reached_and_none_shows_its_token(fleet: Plane) -> None:
    prod = Context(name="prod", url=unused_url(), token="hidden-token", colour="red", read_only=True)

    async def script(person: Driver) -> None:
        await person.sees("live")
        await person.press("c")
        await person.until(lambda: "● healthy" in person.line_with("→ local"), "local is reached")
        await person.until(lambda: "✗ away" in person.line_with("  prod"), "prod is away")
        assert "red" in person.line_with("  prod")
        assert "read-only" in person.line_with("  prod")
        await person.press("down")
        await person.sees(f"prod: Cannot connect to {prod.url}", "corral context add")
        assert "hidden-token" not in person.text()
        assert fleet.token not in person.text()

    drive(contexts(fleet, prod), script, size=(80, 24))


def test_enter_switches_to_the_fleet_of_another_control_plane(fleet: Plane, planes: Callable[..., Plane]) -> None:
    other = planes()
    other.deploy("faraway")
    prod = Context(name="prod", url=other.url, token=other.token, colour="red")

    async def script(person: Driver) -> None:
        await person.sees("alpha")
        await person.press("c")
        await person.until(lambda: "● healthy" in person.line_with("  prod"), "prod is reached")
        await person.press("down", "enter")
        await person.sees("corral › prod › fleet", "faraway")
        await person.sees_not("alpha")
        await person.press("enter")  # the keyboard is the table's
        await person.sees("fleet › faraway › overview")
        await person.command("contexts local")
        await person.sees("corral › local › fleet", "alpha")

    drive(contexts(fleet, prod), script)


def test_a_filter_finds_a_context_and_escape_goes_back(fleet: Plane) -> None:
    prod = Context(name="prod", url=unused_url())

    async def script(person: Driver) -> None:
        await person.sees("live")
        await person.press("c")
        await person.sees("prod", "no token")
        await person.press("slash")
        await person.type("loc")
        await person.sees_not("prod")
        await person.press("escape")
        await person.sees("prod")
        await person.press("escape")
        await person.sees("local › fleet")

    drive(contexts(fleet, prod), script)


def test_the_current_one_is_away_as_soon_as_its_connection_is_and_healthy_once_it_is_back(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        await person.sees("live")
        await person.press("c")
        await person.until(lambda: "● healthy" in person.line_with("→ local"), "local is reached")
        wire.cut()
        await person.until(lambda: "✗ away" in person.line_with("→ local"), "local is away")
        wire.mend()
        await person.until(lambda: "● healthy" in person.line_with("→ local"), "local is back")

    with wired(fleet.url) as wire:
        local = Context(name="local", url=wire.url, token=fleet.token)
        drive(Contexts((local,), local), script)


@pytest.mark.parametrize(
    ("state", "shown", "said"),
    [
        ("live", "● healthy", "2 running · up 1m"),
        ("connecting", "● healthy", "2 running · up 1m"),
        ("away", "✗ away", "no route"),
        ("refused", "✗ refused", "no route"),
    ],
)
def test_the_current_one_is_as_its_connection_is_whatever_a_probe_found(
    state: LinkState, shown: str, said: str
) -> None:
    found = ContextRow(name="local", url="http://localhost", current=True, state="healthy", instances=2, uptime_s=60)
    row = linked(found, Link(state, reason="no route"))
    cell = next(column for column in CONTEXT_COLUMNS if column.key == "state").cell(row, 0.0)
    assert cell.text == shown
    assert about(row).text.startswith(said)
