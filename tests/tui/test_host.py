"""The host page: what runs the fleet, and on what, read from a real control plane while it is in front."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.tui.driving import contexts_of, drive
from tui.board.host_facts import control_plane, host_isolation, languages, machine, services, store

if TYPE_CHECKING:
    from tests.e2e.plane import Plane
    from tests.tui.driving import Driver


def test_an_administrator_sees_the_control_plane_its_services_and_its_machine(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        await person.sees("live")
        await person.command("host")
        await person.sees("Control plane", "● healthy", f"pid {fleet.pid}", "orphans", "● 0: no process is left behind")
        await person.sees("Postgres", "● connected", "spawner", "disk", "kernel", "Runtimes", "python", "Install store")

    drive(contexts_of(fleet), script, size=(200, 60))


def test_it_fits_a_small_terminal_with_what_matters_most_in_sight(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        await person.sees("live")
        await person.command("host")
        await person.sees("● healthy", "● 0: no process is left behind", "subscribers")
        await person.press("G")
        await person.sees("Install store")

    drive(contexts_of(fleet), script, size=(80, 24))


def test_who_is_no_administrator_sees_what_he_may_and_is_told_of_the_rest(fleet: Plane) -> None:
    made = fleet.request("POST", "/tokens", json={"name": "looker", "role": "viewer"})

    async def script(person: Driver) -> None:
        await person.sees("live")
        await person.command("host")
        await person.sees("● healthy", "only administrators see this", "Runtimes", "3: ")
        assert "kernel" not in person.text()

    drive(contexts_of(fleet, token=made.json()["token"]), script)


def test_numbers_are_read_again_while_the_page_is_in_front(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        await person.sees("live")
        await person.command("host")
        before = await person.until(lambda: "requests" in person.text() and person.line_with("requests"), "requests")
        await person.until(lambda: person.line_with("requests") != before, "another number of requests")

    drive(contexts_of(fleet), script)


def test_orphans_and_lost_rows_are_loud() -> None:
    health = {"status": "degraded", "version": "1", "uptime_s": 5}
    section = control_plane(health, {"orphans": 2, "dropped": {"log_lines": 3, "refused": 0}}, {"pid": 1})
    cells = {fact.name: fact.cell for fact in section.facts}
    assert cells["orphans"].tone == "bad"
    assert "2 PROCESSES BELONG TO NOTHING" in cells["orphans"].text
    assert (cells["dropped"].tone, cells["dropped"].text) == ("warn", "! 3 log lines")
    assert (cells["status"].tone, cells["status"].text) == ("warn", "! degraded")


def test_a_service_that_is_away_is_said_with_what_it_says() -> None:
    section = services(
        {"services": {"postgres": "disconnected", "redis": "connected"}}, {"postgres": {"problem": "no route\x1b[2J"}}
    )
    cells = {fact.name: fact.cell for fact in section.facts}
    assert (cells["Postgres"].text, cells["Postgres"].tone) == ("✗ disconnected", "bad")
    assert cells["Postgres says"].text == "! no route\\x1b[2J"


def test_isolation_says_what_is_there_what_is_not_and_what_holds_limits() -> None:
    document = {
        "levels": [
            {"name": "process", "available": True, "why": None, "unlock": None},
            {"name": "namespaced", "available": False, "why": "no bwrap", "unlock": "install it"},
        ],
        "auto": "process",
        "minimum": "process",
        "limits": {
            "driver": None,
            "enforcement": {"memory_mb": "soft", "open_files": "hard"},
            "unlock": "Delegate=yes",
        },
    }
    cells = {fact.name: fact.cell for fact in host_isolation(document).facts}
    assert (cells["process"].text, cells["process"].tone) == ("● available", "good")
    assert cells["namespaced"].text == "○ no bwrap → install it"
    assert cells["hard limits"].text == "open files"
    assert (cells["soft limits"].text, cells["soft limits"].tone) == ("! memory → Delegate=yes", "warn")
    assert host_isolation(document | {"auto": None}).facts[2].cell.tone == "warn"
    assert host_isolation({}).facts[0].cell.text == "this server does not say"


def test_a_language_says_how_to_get_what_it_lacks() -> None:
    rows = [
        {"language": "deno", "usable": False, "tools": [], "missing": ["deno"], "hint": "npm install -g deno"},
        {
            "language": "php",
            "usable": True,
            "tools": [{"name": "php", "version": "8"}],
            "missing": ["composer"],
            "hint": None,
        },
    ]
    first, second = languages({"runtimes": rows}).facts
    assert first.cell.text == "○ needs deno → npm install -g deno"
    assert second.cell.text == "● php 8; without composer"


def test_facts_that_are_not_there_are_no_trouble() -> None:
    assert machine({}).facts[0].cell.text == "only administrators see this"
    assert store(None).facts[0].cell.text == "only administrators see this"
    assert store({}).facts[0].name == "installs"
