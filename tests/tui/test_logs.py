"""The logs tab, driven by keys against a real control plane with servers that print, flood, crash and misbehave."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from tests.e2e.plane import open_plane
from tests.tui.driving import contexts_of, drive
from tui.panes.logs import LogsPane

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.e2e.plane import Plane
    from tests.tui.driving import Driver

FLOOD = 10_000
HOSTILE = (
    "\x1b[31mred\x1b[0m \x1b]0;owned\x07title \x1b[2Jgone \x00nul \x9bC1 \u202eesrever\u202c "
    "漢字漢字 👩‍👩‍👧 e" + "\u0301" * 40 + " tail"
)


@pytest.fixture(scope="module")
def printing() -> Iterator[Plane]:
    """`quiet`, `loud` and `nasty` run; `phoenix` crashed once, with last words, and runs again."""
    with open_plane() as opened:
        opened.start()
        for name in ("quiet", "loud", "nasty", "phoenix"):
            opened.deploy(name)
        opened.tool("quiet", "spam", lines=5, word="warning: hay")
        opened.tool("quiet", "spam", lines=1, word="error: needle")
        opened.tool("phoenix", "spam", lines=1, word="first life")
        opened.execute("phoenix", "tools/call", {"name": "exit", "arguments": {"last_words": "dying words"}})
        opened.wait_status("phoenix", "running")
        opened.tool("phoenix", "spam", lines=1, word="second life")
        yield opened


def logs_of(person: Driver) -> LogsPane:
    return person.app.screen.query_one(LogsPane)


async def open_logs(person: Driver, name: str) -> None:
    await person.sees("live", name)
    await person.command(f"logs {name}")
    await person.sees("following")


def test_what_a_server_prints_is_on_the_screen_with_its_level_in_a_word(printing: Plane) -> None:
    async def script(person: Driver) -> None:
        await open_logs(person, "quiet")
        await person.sees("error: needle")
        assert "✗ error" in person.line_with("error: needle")
        assert "! warn" in person.line_with("line 3 warning: hay")
        printing.tool("quiet", "spam", lines=1, word="just now")
        await person.sees("just now")

    drive(contexts_of(printing), script)


def test_levels_and_streams_are_chosen_by_keys_that_go_round(printing: Plane) -> None:
    async def script(person: Driver) -> None:
        await open_logs(person, "quiet")
        await person.sees("just now", "error: needle")
        await person.press("v", "v")
        await person.sees("≥ warning", "line 3 warning: hay")
        await person.sees_not("just now")
        await person.press("v")
        await person.sees("≥ error", "needle")
        await person.sees_not("hay")
        await person.press("v", "o", "o", "o")
        await person.sees("all levels", "system")
        await person.sees_not("needle")

    drive(contexts_of(printing), script)


def test_a_search_lights_up_counts_and_goes_round_and_can_leave_only_what_it_found(printing: Plane) -> None:
    async def script(person: Driver) -> None:
        await open_logs(person, "quiet")
        await person.sees("needle")
        await person.press("slash")
        await person.type("hay")
        await person.press("enter")
        await person.sees("/hay 5 lines", "paused")
        lines = logs_of(person).lines
        assert lines.current is not None
        assert lines.current.text == "line 4 warning: hay"
        await person.press("N")
        assert lines.current.text == "line 3 warning: hay"
        await person.press("n", "n")
        assert lines.current.text == "line 0 warning: hay", "round at the end"
        await person.press("ampersand")
        await person.sees("only these")
        await person.sees_not("needle")
        await person.until(lambda: {line.text[-3:] for line in lines.items} == {"hay"}, "only hay")
        await person.press("ampersand")
        await person.sees("needle")

    drive(contexts_of(printing), script)


def test_the_crashed_process_has_its_own_log_and_processes_are_gone_through(printing: Plane) -> None:
    async def script(person: Driver) -> None:
        await open_logs(person, "phoenix")
        await person.sees("first life", "second life", "all processes")
        await person.press("p")
        await person.sees("process 1 of 2 (crashed: exit 3)", "dying words")
        await person.sees_not("second life")
        await person.press("right_parenthesis")
        await person.sees("process 2 of 2 (running)", "second life")
        await person.sees_not("first life")
        await person.press("left_parenthesis", "p")
        await person.sees("all processes", "second life")

    drive(contexts_of(printing), script)


def test_going_up_pauses_and_the_last_line_follows_again(printing: Plane) -> None:
    async def script(person: Driver) -> None:
        await open_logs(person, "loud")
        await person.sees("running: running")
        await person.press("up")
        await person.sees("paused")
        printing.tool("loud", "spam", lines=40, word="meanwhile")
        await person.sees("paused, 40 new")
        await person.press("G")
        await person.sees("following", "line 39 meanwhile")
        await person.press("f")
        await person.sees("paused")

    drive(contexts_of(printing), script)


def test_a_restarted_server_and_a_restarted_control_plane_leave_no_gap_and_no_line_twice(
    planes: Callable[..., Plane],
) -> None:
    plane = planes()
    plane.deploy("steady")
    plane.tool("steady", "spam", lines=3, word="before")

    async def script(person: Driver) -> None:
        await open_logs(person, "steady")
        await person.sees("line 2 before")
        plane.execute("steady", "tools/call", {"name": "exit", "arguments": {"last_words": "the end"}})
        plane.wait_status("steady", "running")
        plane.tool("steady", "spam", lines=1, word="another process")
        await person.sees("the end", "another process")
        assert plane.stop() == 0
        await person.sees("the connection is gone", "away for")
        plane.start()
        plane.wait_status("steady", "running")
        plane.tool("steady", "spam", lines=2, word="another plane")
        await person.sees("back after", "line 1 another plane")
        texts = [line.text for line in logs_of(person).lines.items if not line.note]
        kept = [line["message"] for line in plane.get("/instances/steady/logs?tail=1000")["logs"]]
        assert texts == kept, "exactly what the store has, each line once and in its order"

    drive(contexts_of(plane), script)


def test_a_flood_of_ten_thousand_lines_freezes_nothing(printing: Plane) -> None:
    async def script(person: Driver) -> None:
        await open_logs(person, "loud")
        printing.tool("loud", "spam", lines=FLOOD, word="flood")
        await person.sees("flood")
        await person.press("up", "pageup", "slash")
        await person.type("flood")
        await person.press("enter", "G")
        await person.sees("following", "/flood")
        printing.tool("loud", "echo", text="still here")
        await person.until(lambda: len(logs_of(person).lines.items) >= 1_000, "what is kept of the flood")
        await person.press("escape")
        await person.sees("fleet")

    drive(contexts_of(printing), script)


def test_hostile_text_is_shown_and_obeyed_by_nobody(printing: Plane) -> None:
    printing.tool("nasty", "spam", lines=1, word=HOSTILE)
    printing.tool("nasty", "spam", lines=1, word="x" * 40_000)

    async def script(person: Driver) -> None:
        await open_logs(person, "nasty")
        await person.sees("[cut")
        await person.press("w")
        await person.sees("漢字", "\\x1b", "\\u202e")
        for size in ((120, 40), (80, 24), (200, 60)):
            await person.pilot.resize_terminal(*size)
            await person.pilot.pause()
            for strip in person.app.screen._compositor.render_strips():
                text = "".join(segment.text for segment in strip)
                assert not [c for c in text if ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or c in "\u202e\u202c\u200e"]
                assert strip.cell_length <= size[0]

    drive(contexts_of(printing), script)


def test_older_lines_are_read_when_somebody_goes_past_the_first(
    printing: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tui.panes.logs.BACKLOG", 10)

    async def script(person: Driver) -> None:
        await open_logs(person, "quiet")
        await person.sees("10 lines")
        await person.press("g")
        await person.until(lambda: len(logs_of(person).lines.items) > 10, "older lines")
        while not logs_of(person)._at_start:
            await person.press("g")
            await person.pilot.pause(0.02)
        texts = [line.text for line in logs_of(person).lines.items]
        kept = [line["message"] for line in printing.get("/instances/quiet/logs?tail=1000")["logs"]]
        assert texts == kept

    drive(contexts_of(printing), script)


def test_lines_are_marked_copied_and_saved_for_their_reader_only(
    printing: Plane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    async def script(person: Driver) -> None:
        await open_logs(person, "phoenix")
        await person.sees("second life")
        await person.press("m", "y")
        await person.until(lambda: "second life" in person.app.clipboard, "the line in the clipboard")
        await person.press("W")
        path = await person.until(lambda: next(iter(tmp_path.glob("phoenix-log-*.log")), None), "the file")
        await person.until(lambda: "second life" in path.read_text(), "all of it")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "error" in path.read_text()
        await person.sees("saved to")

    drive(contexts_of(printing), script)


def test_nothing_is_open_while_another_tab_is_in_view(printing: Plane) -> None:
    async def script(person: Driver) -> None:
        await open_logs(person, "quiet")
        await person.sees("needle")
        pane = logs_of(person)
        await person.press("1")
        await person.until(lambda: not pane.in_view, "another tab")
        assert not [w for w in person.app.workers if w.node is pane and not w.is_finished and not w.is_cancelled]
        printing.tool("quiet", "spam", lines=1, word="behind your back")
        await person.press("2")
        await person.sees("behind your back")
        words = [line.text for line in pane.lines.items]
        assert words.count("line 0 behind your back") == 1

    drive(contexts_of(printing), script)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
def test_it_fits_three_sizes_wraps_or_not_and_fills_the_screen(printing: Plane, size: tuple[int, int]) -> None:
    async def script(person: Driver) -> None:
        await open_logs(person, "quiet")
        await person.sees("needle")
        await person.press("T", "w", "z")
        await person.sees_not("corral ›")
        await person.sees("needle")
        await person.press("z")
        await person.sees("corral ›")

    drive(contexts_of(printing), script, size=size)
