"""Deploying from the dashboard: each way of saying what, the phases live, refusals beside their fields."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from textual.events import Paste
from textual.widgets import Input, TextArea

from tests import servers
from tests.e2e.plane import ROOT
from tests.e2e.sources import origin
from tests.tui.driving import contexts_of, drive
from tui.deploying.draft import Draft
from tui.widgets.form import FormLine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.e2e.plane import Plane
    from tests.e2e.sources import Origin
    from tests.tui.driving import Driver

__all__ = ["origin"]
DEPLOY_S = 60
"""A build on a busy machine: a hang guard."""
ECHO = ROOT / "tests" / "servers" / "echo.py"


@pytest.fixture(autouse=True)
def tidy(plane: Plane) -> Iterator[None]:
    """Each test begins with an empty fleet."""
    yield
    for instance in plane.instances():
        plane.request("DELETE", f"/instances/{instance['instance_id']}")


async def opened(person: Driver, way: int = 0) -> None:
    """The form, with a way chosen."""
    await person.sees("live")
    await person.press("n")
    await person.sees("mcpServers JSON", "ctrl+j deploys it")
    for _ in range(way):
        await person.press("ctrl+t")


async def fill(person: Driver, key: str, text: str) -> None:
    """Go to a field and paste into it."""
    person.app.screen.query_one(f"#line-{key}", FormLine).take_focus()
    await person.pilot.pause()
    await paste(person, text)


async def paste(person: Driver, text: str) -> None:
    """Paste into what has the keyboard, as a terminal does."""
    person.app.post_message(Paste(text))
    await person.pilot.pause()


def value(person: Driver, key: str) -> str:
    return person.app.screen.query_one(f"#line-{key}", FormLine).value


def test_a_command_is_deployed_with_its_phases_live_and_can_be_opened(plane: Plane) -> None:
    async def script(person: Driver) -> None:
        await opened(person)
        await paste(person, f"python3 {ECHO}")
        await fill(person, "name", "")
        await person.type("quick")  # q and c are letters here, and no keys
        await fill(person, "labels", "team=search")
        await person.sees(f"$ corral deploy quick -l team=search -- python3 {ECHO}")
        await person.press("ctrl+j")
        await person.sees("● quick runs", "spawning", within_s=DEPLOY_S)
        await person.press("enter")
        await person.sees("fleet › quick › overview")

    drive(contexts_of(plane), script)
    assert plane.instance("quick")["labels"] == {"team": "search"}


def test_variables_reach_the_server_and_their_values_are_never_on_the_screen(plane: Plane) -> None:
    async def script(person: Driver) -> None:
        await opened(person)
        await paste(person, f"python3 {ECHO}")
        await fill(person, "name", "secretive")
        await fill(person, "env", "API_KEY=hunter2")
        await person.sees("API_KEY", "•••••••", "-e API_KEY")
        await person.press("ctrl+j")
        await person.sees("● secretive runs", within_s=DEPLOY_S)
        assert "hunter2" not in person.text()

    drive(contexts_of(plane), script)
    assert json.loads(plane.tool("secretive", "env"))["API_KEY"] == "hunter2"


def test_a_folder_is_packed_and_sent(plane: Plane, tmp_path: Path) -> None:
    (tmp_path / "weather").mkdir()
    (tmp_path / "weather" / "server.py").write_bytes(servers.source("echo.py"))

    async def script(person: Driver) -> None:
        await opened(person, way=2)
        await paste(person, str(tmp_path / "weather"))
        await person.sees("$ corral deploy weather")
        await person.press("ctrl+j")
        await person.sees("● weather runs", "packed 1 files", within_s=DEPLOY_S)

    drive(contexts_of(plane), script)
    assert plane.instance("weather")["source_type"] == "tar"


def test_a_folder_that_may_hold_a_secret_is_sent_only_when_that_is_wanted(plane: Plane, tmp_path: Path) -> None:
    folder = tmp_path / "weather"
    folder.mkdir()
    (folder / "server.py").write_bytes(servers.source("echo.py"))
    (folder / ".env").write_text("KEY=hunter2")

    async def script(person: Driver) -> None:
        await opened(person, way=2)
        await paste(person, str(folder))
        await person.press("ctrl+j")
        await person.sees("may hold a secret", ".env")
        assert plane.instances() == []
        await person.press("n")
        await person.sees("ctrl+j deploys it")
        assert value(person, "path") == str(folder)
        assert plane.instances() == []
        await person.press("ctrl+j")
        await person.sees("may hold a secret", ".env")
        await person.press("y")
        await person.sees("● weather runs", ".env: it may hold a secret", within_s=DEPLOY_S)

    drive(contexts_of(plane), script)


def test_a_single_file_is_sent_as_it_is(plane: Plane) -> None:
    async def script(person: Driver) -> None:
        await opened(person, way=2)
        await paste(person, str(ROOT / "examples" / "calculator.py"))
        await person.press("ctrl+j")
        await person.sees("● calculator runs", within_s=DEPLOY_S)

    drive(contexts_of(plane), script)
    assert plane.instance("calculator")["source_type"] == "direct"


def test_what_is_wrong_stands_beside_its_field_before_anything_is_sent(plane: Plane) -> None:
    async def script(person: Driver) -> None:
        await opened(person)
        await paste(person, "python3 'x")
        await fill(person, "name", "-no-")
        await person.press("ctrl+j")
        await person.sees("✗ as a shell would read it: no closing quotation", "✗ 1 to 63 of a-z 0-9 -")

    drive(contexts_of(plane), script)
    assert plane.instances() == []


def test_what_the_server_refuses_stands_beside_its_field_and_nothing_is_lost(plane: Plane) -> None:
    async def script(person: Driver) -> None:
        await opened(person)
        await paste(person, f"python3 {ECHO}")
        await fill(person, "name", "tight")
        await person.press("ctrl+o")
        await fill(person, "memory_mb", "3")
        await person.press("ctrl+j")
        await person.sees("✗ must be at least 16")
        await person.press("escape")
        await person.sees("instances")
        await person.press("n")
        await person.sees("tight", "mcpServers JSON")
        assert value(person, "command") == f"python3 {ECHO}"

    drive(contexts_of(plane), script)
    assert plane.instances() == []


def test_a_name_that_is_taken_is_said_beside_the_name(plane: Plane) -> None:
    plane.deploy("alpha")

    async def script(person: Driver) -> None:
        await opened(person)
        await person.type("python3 x.py")
        await fill(person, "name", "Alpha")
        await person.sees("✗ there is a alpha already")
        await person.press("ctrl+j")
        await person.until(lambda: "✗" in person.text() and "alpha" in person.text(), "a refusal")
        await person.sees("mcpServers JSON")

    drive(contexts_of(plane), script)


def test_a_build_that_fails_shows_its_evidence_and_is_tried_again_after_a_change(plane: Plane, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "server.py").write_bytes(servers.source("echo.py"))

    async def script(person: Driver) -> None:
        await opened(person, way=2)
        await paste(person, str(folder))
        await person.press("ctrl+o")
        await fill(person, "build", "echo half way; echo no luck >&2; exit 3")
        await person.press("ctrl+j")
        await person.sees("✗ broken failed", "The build failed", "no luck", "exit status 3", within_s=DEPLOY_S)
        await person.press("e")
        await person.sees("mcpServers JSON")
        assert value(person, "path") == str(folder)
        line = person.app.screen.query_one("#line-build", FormLine)
        line.query_one(Input).value = "echo all the way"
        await person.press("ctrl+j")
        await person.sees("● broken runs", "all the way", within_s=DEPLOY_S)

    drive(contexts_of(plane), script)
    assert plane.instance("broken")["status"] == "running"


def test_going_away_leaves_a_deploy_running_and_says_so(plane: Plane) -> None:
    async def script(person: Driver) -> None:
        await opened(person)
        await paste(person, f"sh -c 'sleep 1; exec python3 {ECHO}'")
        await fill(person, "name", "patient")
        await person.press("ctrl+j")
        await person.sees("◐ patient under way", within_s=DEPLOY_S)
        await person.press("escape")
        await person.sees("patient goes on by itself")
        await person.sees("● patient runs", within_s=DEPLOY_S)  # told in passing, above the fleet
        await person.until(lambda: "● running" in person.line_with("patient"), "the fleet shows it")

    drive(contexts_of(plane), script)


def test_the_servers_of_a_pasted_file_are_ticked_and_deployed_one_after_the_other(plane: Plane) -> None:
    plane.deploy("beta")
    command = {"command": "python3", "args": [str(ECHO)]}
    pasted = {
        "one": command | {"env": {"TOKEN": "hunter2"}},
        "Beta": command,
        "two": {"command": "no-such-program"},
        "far": {"url": "https://example.com/mcp"},
    }
    text = json.dumps({"mcpServers": pasted})[:-1] + ", // as editors write it\n}"

    async def script(person: Driver) -> None:
        await opened(person, way=3)
        await person.until(lambda: isinstance(person.app.focused, TextArea), "a place to paste into")
        await paste(person, text)
        await person.sees("4 servers in it", "with TOKEN", "far: a remote server", "beta (there is one already)")
        assert "hunter2" not in person.text()
        await person.press("a")
        await person.press("ctrl+j")
        await person.sees("1 running, 1 skipped, 1 failed", within_s=DEPLOY_S)
        assert "● running" in person.line_with("one ")
        assert "there is one of this name already" in person.line_with("beta")
        await person.press("down", "down")
        await person.sees("command not found on PATH: no-such-program", "→ commands are looked up")

    drive(contexts_of(plane), script)
    assert {i["name"]: i["status"] for i in plane.instances()} == {"one": "running", "beta": "running", "two": "failed"}


def test_a_paste_that_is_no_such_file_is_said(plane: Plane) -> None:
    async def script(person: Driver) -> None:
        await opened(person, way=3)
        await paste(person, '{"other": {}}')
        await person.sees('✗ there is no "mcpServers"')

    drive(contexts_of(plane), script)


def test_the_form_fits_a_small_terminal(plane: Plane) -> None:
    async def script(person: Driver) -> None:
        await opened(person)
        await person.sees(
            "Command", "Name", "Variables", "Labels", "$ corral deploy", "ctrl+j deploys it", "more: limits"
        )

    drive(contexts_of(plane), script, size=(80, 24))


def test_a_read_only_dashboard_deploys_nothing_and_says_so(plane: Plane) -> None:
    async def script(person: Driver) -> None:
        await person.sees("live")
        await person.command("deploy")
        await person.sees("Read-only: nothing is deployed from here")
        await person.type("python3 x.py")
        await person.press("ctrl+j")
        await person.pilot.pause()
        assert person.app.plane.kept["deploy"] == Draft(texts={"command": "python3 x.py"})

    drive(contexts_of(plane, read_only=True), script)
    assert plane.instances() == []


def test_a_redeploy_shows_its_phases_while_the_revision_before_goes_on(plane: Plane) -> None:
    plane.deploy("steady")

    async def script(person: Driver) -> None:
        await person.sees("live", "steady")
        await person.press("u")
        await person.sees("Redeploy steady?")
        await person.press("y")
        await person.sees("fleet › redeploy › steady", "● steady runs", "handshake", within_s=DEPLOY_S)
        await person.press("escape")
        await person.command("redeploy nobody")
        await person.sees("There is no instance nobody")

    drive(contexts_of(plane), script)
    assert plane.instance("steady")["revision"] == 2


def test_a_repository_is_fetched_at_the_ref_that_was_named(planes: Callable[..., Plane], origin: Origin) -> None:
    url = origin.publish("weather", {"server.py": servers.source("echo.py")}, branch="stable")
    there = planes(**origin.settings)

    async def script(person: Driver) -> None:
        await opened(person, way=1)
        await paste(person, url)
        await fill(person, "ref", "stable")
        await person.sees("$ corral deploy weather --ref stable")
        await person.press("ctrl+j")
        await person.sees("● weather runs", within_s=DEPLOY_S)

    drive(contexts_of(there), script)
    assert there.instance("weather")["resolved"]["commit"] == origin.commit_of("weather", "stable")
