"""The fleet screen: what it shows, finds, sorts, marks and does, driven by keys against a real control plane."""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING

import pytest

from tests.tui.driving import contexts_of, drive
from tui.contexts import Context, Contexts
from tui.screens.confirm import ConfirmScreen
from tui.screens.fleet import FleetScreen
from tui.screens.instance import InstanceScreen
from tui.screens.keys import KeysScreen
from tui.widgets.grid import Grid

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.plane import Plane
    from tests.tui.driving import Driver

ALL = ["alpha", "beta", "gamma"]


def grid(person: Driver) -> Grid[object]:
    return person.app.screen.query_one(Grid)


def names(person: Driver) -> list[str]:
    """The names in the table, from above."""
    return [word for line in person.lines() for word in line.split()[:2] if word.lstrip("▸▌") in ALL or word in ALL]


def order(person: Driver) -> list[str]:
    return [name.lstrip("▸▌") for name in names(person)]


async def ready(person: Driver) -> None:
    await person.sees("live", "3 instances", *ALL)


def test_every_instance_is_in_the_table_with_its_status(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        await ready(person)
        assert "● running" in person.line_with("alpha")
        assert "○ stopped" in person.line_with("gamma")
        await person.until(lambda: "%" in person.line_with("beta"), "a sample of beta")
        await person.until(lambda: "▁" in person.line_with("beta"), "a trend of beta")

    drive(contexts_of(fleet), script)


def test_in_80_cells_the_columns_and_keys_that_matter_are_there(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        await ready(person)
        assert person.line_with("NAME").split() == [
            "NAME▲",
            "STATUS",
            "CPU",
            "MEM",
            "CALLS/S",
            "P95",
            "ERR",
            "RST",
            "UP",
        ]
        await person.until(lambda: "? Keys" in person.lines()[-1], "the keys' line")
        assert "⏎ Open" in person.lines()[-1]
        assert all(len(line) <= 80 for line in person.lines())

    drive(contexts_of(fleet), script, size=(80, 24))


def test_a_filter_takes_effect_as_it_is_typed_and_escape_takes_it_back(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        await ready(person)
        await person.press("slash")
        await person.sees("-l key=value")
        await person.type("bet")
        await person.sees_not("alpha")
        await person.sees("1 of 3")
        await person.press("escape")
        await person.sees("alpha", "gamma")

    drive(contexts_of(fleet), script)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("!alpha", ["beta", "gamma"]),
        ("-l team=search", ["alpha"]),
        ("-f gma", ["gamma"]),
        ("running", ["alpha", "beta"]),
        ("nothing like it", []),
    ],
)
def test_a_filter_that_is_entered_stays_until_escape(fleet: Plane, text: str, left: list[str]) -> None:
    async def script(person: Driver) -> None:
        await ready(person)
        await person.press("slash")
        await person.type(text)
        await person.press("enter")
        await person.until(lambda: order(person) == left, f"only {left}")
        await person.sees(f"{len(left)} of 3")
        await person.press("slash", "up", "down", "enter")
        await person.press("escape")
        await person.until(lambda: order(person) == ALL, "all of them")

    drive(contexts_of(fleet), script)


def test_rows_are_sorted_by_letters_by_arrows_and_by_the_mouse(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        await ready(person)
        await person.press("N")
        await person.until(lambda: order(person) == ALL[::-1], "by name, the last first")
        await person.sees("NAME▼")
        await person.press("O")
        await person.until(lambda: order(person) == ALL, "by name again")
        await person.press("right")
        await person.sees("STATUS▲")
        await person.press("left", "left")
        await person.until(lambda: "▼UP" in person.text(), "around the corner, the last one")
        place = next(line.index("STATUS") for line in person.lines() if "STATUS" in line)
        await person.pilot.click(Grid, offset=(place + 1, 0))
        await person.sees("STATUS▲")
        await person.pilot.click(Grid, offset=(place + 1, 0))
        await person.until(lambda: order(person)[0] == "gamma", "by status, the last first")

    drive(contexts_of(fleet), script)


def test_enter_opens_an_instance_and_escape_leaves_it_and_minus_opens_it_again(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        await ready(person)
        await person.press("down", "enter")
        await person.sees("fleet › beta › overview")
        await person.press("escape")
        await person.until(lambda: isinstance(person.app.screen, FleetScreen), "the fleet")
        await person.press("l")
        await person.sees("fleet › beta › logs")
        await person.press("escape")
        await person.sees_not("beta › logs")
        await person.press("minus")
        await person.sees("fleet › beta › logs")
        await person.press("minus")
        await person.until(lambda: isinstance(person.app.screen, FleetScreen), "the fleet")

    drive(contexts_of(fleet), script)


def test_commands_go_everywhere_and_are_remembered_and_completed(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        await ready(person)
        await person.command("logs gamma")
        await person.sees("fleet › gamma › logs")
        await person.command("fleet beta")
        await person.sees("1 of 3")
        await person.press("escape", "colon", "up", "up")
        await person.sees(":logs gamma")
        await person.press("enter")
        await person.sees("fleet › gamma › logs")
        await person.command("nonsense")
        await person.sees("There is no command nonsense")
        await person.command("open delta")
        await person.sees("There is no instance delta")
        await person.press("colon")
        await person.type("open al")
        await person.sees("open alpha")
        await person.press("tab", "enter")
        await person.sees("fleet › alpha › overview")

    drive(contexts_of(fleet), script)


def test_the_palette_finds_instances_and_commands(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        await ready(person)
        await person.press("ctrl+p")
        await person.type("gamma")
        await person.until(lambda: "stopped" in person.text() and "gamma" in person.text(), "gamma found")
        await person.press("enter")
        await person.until(lambda: isinstance(person.app.screen, InstanceScreen), "gamma open")
        await person.sees("fleet › gamma")

    drive(contexts_of(fleet), script)


def test_question_mark_lists_the_keys_and_closes_again(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        await ready(person)
        await person.press("question_mark")
        await person.until(lambda: isinstance(person.app.screen, KeysScreen), "the keys")
        await person.sees("In this list", "^space", "Mark range")
        await person.press("end")
        await person.sees("quit q q! exit")
        await person.press("question_mark")
        await person.until(lambda: isinstance(person.app.screen, FleetScreen), "the fleet")

    drive(contexts_of(fleet), script)


def test_a_filter_is_offered_and_explained_only_where_something_can_be_filtered(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        await ready(person)
        await person.sees("/ Filter")
        await person.command("open alpha")
        await person.sees("alpha › overview")
        await person.sees_not("/ Filter")
        await person.press("slash", "question_mark")  # the slash is dead: nothing takes the next key for text
        await person.until(lambda: isinstance(person.app.screen, KeysScreen), "the keys")
        await person.sees_not("A filter ( / )")
        await person.press("escape", "5")
        await person.sees("/ Filter")
        await person.press("question_mark")
        await person.sees("A filter ( / )", "word  (of name, title and kind)")
        await person.press("escape")
        await person.command("host")
        await person.sees("Install store")
        await person.sees_not("/ Filter")

    drive(contexts_of(fleet), script, size=(120, 60))


def test_marks_are_counted_and_escape_takes_them_back(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        await ready(person)
        await person.press("space", "ctrl+@")
        await person.sees("2 marked")
        await person.press("asterisk")
        await person.sees("3 marked")
        await person.press("slash")
        await person.type("gamma")
        await person.press("enter")
        await person.sees("3 marked, 2 of them out of sight")
        await person.press("s")
        await person.sees("Stop gamma?")
        await person.press("n", "escape")
        await person.sees("3 marked")
        await person.press("escape")
        await person.sees_not("marked")

    drive(contexts_of(fleet), script)


def test_the_picture_is_held_while_paused(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        await ready(person)
        await person.press("p")
        await person.sees("paused: p goes on")
        held = person.line_with("alpha")
        fleet.tool("alpha", "echo", text="x")
        board = person.app.plane.board
        alpha = board.row_named("alpha")
        assert alpha is not None
        await person.until(lambda: alpha.calls > 0, "the board goes on")
        await person.press("N", "O", "j", "k")
        assert person.line_with("alpha").replace("▸", " ") == held.replace("▸", " ")
        await person.press("p")
        await person.sees_not("paused")
        await person.until(lambda: person.line_with("alpha").replace("▸", " ") != held.replace("▸", " "), "news")

    drive(contexts_of(fleet), script)


def test_what_harms_is_asked_first_and_only_yes_does_it(plane: Plane) -> None:
    for name in ("one", "two", "three"):
        plane.deploy(name)

    async def script(person: Driver) -> None:
        await person.sees("live", "one", "two", "three")
        await person.press("ctrl+d")
        await person.sees("Delete one?", "cannot be undone")
        await person.press("enter")  # the button in focus is no
        await person.until(lambda: not isinstance(person.app.screen, ConfirmScreen), "no question")
        assert len(plane.instances()) == 3
        await person.press("asterisk", "s")
        await person.sees("Stop 3 instances (one, three, two)?")
        await person.press("y")
        await person.until(lambda: person.text().count("○ stopped") == 3, "all stopped")
        await person.sees_not("marked")
        await person.press("t")
        await person.until(lambda: "● running" in person.line_with("one"), "one running")
        await person.command("delete two")
        await person.sees("Delete two?")
        await person.press("y")
        await person.sees("2 instances")
        assert {instance["name"] for instance in plane.instances()} == {"one", "three"}

    drive(contexts_of(plane), script)


def test_verbs_are_the_same_keys_in_an_instance(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        await ready(person)
        await person.press("enter")
        await person.sees("fleet › alpha › overview")
        for key, question in (("r", "Restart alpha?"), ("s", "Stop alpha?"), ("ctrl+d", "Delete alpha?")):
            await person.press(key)
            await person.sees(question)
            await person.press("n")
            await person.sees_not(question)

    drive(contexts_of(fleet), script)


def test_nothing_is_changed_in_a_read_only_context(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        await ready(person)
        await person.sees("read-only")
        await person.until(lambda: "? Keys" in person.lines()[-1], "the keys' line")
        assert not {"Restart", "Stop", "Start", "Delete", "New"} & set(person.lines()[-1].split())
        await person.press("s", "ctrl+d", "n", "r")
        assert isinstance(person.app.screen, FleetScreen)
        await person.command("delete alpha")
        await person.sees("Read-only: nothing is deleted from here")

    drive(contexts_of(fleet, read_only=True), script)


def test_another_context_is_shown_with_all_that_was_open_closed(fleet: Plane) -> None:
    here = Context(name="here", url=fleet.url, token=fleet.token)
    there = Context(name="there", url=fleet.url, token=fleet.token, read_only=True, colour="red")

    async def script(person: Driver) -> None:
        await ready(person)
        await person.command("logs alpha")
        await person.sees("here › fleet › alpha › logs")
        await person.command("wire beta")
        await person.sees("here › fleet › beta › wire")
        await person.command("@there")
        await person.sees("there › fleet", "read-only", "3 instances", "live")
        assert len(person.app.screen_stack) == 1
        await person.command("contexts nowhere")
        await person.sees("There is no context nowhere")
        await person.command("@here")
        await person.sees("here › fleet", "live")
        assert not person.app.plane.read_only

    drive(Contexts((here, there), here), script)


def test_a_screenshot_is_a_file_of_its_owners_alone_and_says_where(
    fleet: Plane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    async def script(person: Driver) -> None:
        await person.sees("live", "alpha")
        await person.press("ctrl+s")
        await person.sees("Screenshot saved as")
        [path] = tmp_path.iterdir()
        assert re.fullmatch(r"corral-\d{8}-\d{6}\.svg", path.name)
        assert "alpha" in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        await person.press("ctrl+s")
        await person.until(lambda: len(list(tmp_path.iterdir())) == 2, "another file beside the first")

    drive(contexts_of(fleet), script)


def test_a_tiny_terminal_and_a_storm_of_sizes_harm_nothing(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        for keys in (
            ["question_mark", "escape"],
            ["ctrl+d", "escape"],
            ["colon", "escape"],
            ["enter", "escape"],
            ["a", "escape"],
        ):
            await person.press(*keys)
        for number in range(40):
            await person.pilot.resize_terminal(20 + number * 37 % 180, 5 + number * 13 % 60)
        await person.pilot.resize_terminal(120, 40)
        await ready(person)

    drive(contexts_of(fleet), script, size=(20, 5))
