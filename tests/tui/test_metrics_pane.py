"""An instance's plots, driven by keys against a real control plane."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.plane import open_plane
from tests.tui.driving import contexts_of, drive
from tests.tui.pasts import crash, deploy_doomed
from tui.board.series import WINDOWS
from tui.panes.metrics import FIRST_WINDOW, MetricsPane
from tui.screens.instance import InstanceScreen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.plane import Plane
    from tests.tui.driving import Driver

BRAILLE = range(0x2801, 0x2900)


@pytest.fixture(scope="module")
def past() -> Iterator[Plane]:
    """`busy` has answered calls and crashed once; `doomed` never ran."""
    with open_plane() as opened:
        opened.start()
        opened.deploy("busy")
        crash(opened, "busy")
        for number in range(20):
            opened.tool("busy", "echo", text=str(number))
        opened.execute("busy", "no/such/method")
        deploy_doomed(opened, "doomed")
        yield opened


async def open_metrics(person: Driver, name: str) -> MetricsPane:
    await person.sees(name, "live")
    await person.command(f"metrics {name}")
    await person.until(lambda: isinstance(person.app.screen, InstanceScreen), "the instance's screen")
    await person.sees("CPU", "[15m]")
    return person.app.screen.query_one(MetricsPane)


def drawn(person: Driver) -> bool:
    """Whether any line is on the screen."""
    return any(ord(character) in BRAILLE for character in person.text())


def test_the_four_plots_have_numbers_limits_and_a_time_axis(past: Plane) -> None:
    async def script(person: Driver) -> None:
        await open_metrics(person, "busy")
        await person.sees(
            "Memory  now ", "─ limit 80%", "─ limit 1024M", "p95 now", "p50 now", "× failed max", "1200M┤", "0/s┤"
        )
        await person.until(lambda: drawn(person), "a line")

    drive(contexts_of(past), script, size=(160, 50))


def test_two_plots_fit_a_small_terminal_and_the_others_are_scrolled_to(past: Plane) -> None:
    async def script(person: Driver) -> None:
        await open_metrics(person, "busy")
        await person.sees("CPU  now", "Memory  now", "1200M┤")
        assert "Latency" not in person.text()
        await person.press("end")
        await person.sees("Latency", "Calls")

    drive(contexts_of(past), script, size=(80, 24))


def test_a_window_is_chosen_and_live_samples_go_into_it(past: Plane) -> None:
    async def script(person: Driver) -> None:
        pane = await open_metrics(person, "busy")
        await person.press(*["comma"] * FIRST_WINDOW)
        await person.sees(f"[{WINDOWS[0].name}]")
        await person.until(lambda: pane.series.points, "points")
        newest = pane.series.points[-1].at
        await person.until(lambda: pane.series.points[-1].at > newest, "a newer point")
        await person.press(*["full_stop"] * (len(WINDOWS) + 2))
        await person.sees(f"[{WINDOWS[-1].name}]")
        await person.until(lambda: pane.series.points, "points of the day")

    drive(contexts_of(past), script, size=(120, 40))


def test_where_a_process_began_is_marked(past: Plane) -> None:
    async def script(person: Driver) -> None:
        pane = await open_metrics(person, "busy")
        await person.sees("│ a process began")
        await person.until(lambda: len(pane.marks) == 2, "two marks")

    drive(contexts_of(past), script, size=(120, 40))


def test_zooming_gives_the_values_the_whole_height(past: Plane) -> None:
    async def script(person: Driver) -> None:
        await open_metrics(person, "busy")
        await person.sees("1200M┤")
        await person.press("z")
        await person.sees("zoomed to the values", "limit 1024M (above)")
        await person.sees_not("1200M┤")
        await person.press("z")
        await person.sees("1200M┤")

    drive(contexts_of(past), script, size=(120, 40))


def test_an_instance_that_never_ran_has_words_for_plots(past: Plane) -> None:
    async def script(person: Driver) -> None:
        await open_metrics(person, "doomed")
        await person.press("comma")
        await person.sees("No samples in this time: it did not run", "CPU  now -")

    drive(contexts_of(past), script, size=(120, 40))


@pytest.mark.parametrize("theme", ["corral-dark", "corral-light"])
def test_lines_stand_out_from_their_ground_in_either_theme(past: Plane, theme: str) -> None:
    async def script(person: Driver) -> None:
        await open_metrics(person, "busy")
        await person.until(lambda: drawn(person), "a line")
        segments = [s for strip in person.app.screen._compositor.render_strips() for s in strip]
        lines = [s.style for s in segments if any(ord(character) in BRAILLE for character in s.text) and s.style]
        assert lines
        for style in lines:
            assert style.color is not None
            assert style.bgcolor is not None
            ink, ground = (sum(colour.get_truecolor()) for colour in (style.color, style.bgcolor))
            assert abs(ink - ground) > 150

    drive(contexts_of(past), script, size=(120, 40), theme=theme)


def test_figures_that_cannot_be_read_are_read_once_the_server_is_back(planes: Callable[..., Plane]) -> None:
    plane = planes()
    plane.deploy("busy")

    async def script(person: Driver) -> None:
        await person.sees("busy", "live")
        plane.stop()
        await person.sees("away")
        await person.command("metrics busy")
        await person.sees("Cannot connect", "ctrl+r tries again")
        plane.start()
        await person.sees("─ limit 1024M", within_s=40)
        await person.sees_not("Cannot connect")
        await person.press("1")
        await person.sees("Limits and use", "● runs")

    drive(contexts_of(plane), script, size=(120, 60))
