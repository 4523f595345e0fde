"""The tools tab: what an instance offers, found, told about and opened in the inspector."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import servers
from tests.e2e.plane import open_plane
from tests.tui.driving import contexts_of, drive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.plane import Plane
    from tests.tui.driving import Driver


@pytest.fixture(scope="module")
def offering() -> Iterator[Plane]:
    """Running: `desk`; stopped, and known from before: `gone`."""
    with open_plane() as opened:
        opened.start()
        opened.deploy("desk", servers.source("inspected.py"))
        opened.deploy("gone", servers.source("inspected.py"))
        assert opened.get("/instances/gone/tools")["tools"]
        assert opened.request("POST", "/instances/gone/stop").status_code == 200
        yield opened


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The history of a test is its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


async def open_tools(person: Driver, instance: str = "desk") -> None:
    await person.sees("live", instance)
    await person.command(f"open {instance}")
    await person.sees("1 Overview")
    await person.press("5")


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
def test_everything_on_offer_is_listed_with_what_it_says_of_itself(offering: Plane, size: tuple[int, int]) -> None:
    async def script(person: Driver) -> None:
        await open_tools(person)
        await person.sees("15 tools · 1 prompt · 1 resource", "greet", "read-only", "inputSchema")
        assert "tool" in person.line_with("▸")

    drive(contexts_of(offering), script, size=size)


def test_a_kind_and_a_filter_leave_out_the_rest_and_the_details_follow_the_cursor(offering: Plane) -> None:
    async def script(person: Driver) -> None:
        await open_tools(person)
        await person.sees("15 tools", "note://one")
        await person.press("v", "v")
        await person.sees("only prompts", "poem", "topic")
        await person.sees_not("note://one")
        await person.press("v", "v")
        await person.press("slash")
        await person.type("wait")
        await person.press("enter")
        await person.sees("1 shown", "destructive", "the wait tool")

    drive(contexts_of(offering), script)


def test_a_stopped_instance_shows_its_tools_as_last_seen(offering: Plane) -> None:
    async def script(person: Driver) -> None:
        await open_tools(person, "gone")
        await person.sees("as last seen", "greet")

    drive(contexts_of(offering), script)


def test_enter_opens_the_inspector_with_the_tool(offering: Plane) -> None:
    async def script(person: Driver) -> None:
        await open_tools(person)
        await person.sees("15 tools")
        await person.press("down", "enter")
        await person.sees("tool ask", "nothing was sent yet")
        await person.press("5", "up", "enter")
        await person.sees("tool greet", "name *")

    drive(contexts_of(offering), script)
