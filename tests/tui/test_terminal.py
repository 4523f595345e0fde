"""A session of an operator in a real terminal, typed by tmux; what is on the screen is what is asserted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.e2e.plane import wait_until
from tests.tui.tmux import ENDED, SEEN_S, in_tmux

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.plane import Plane

pytestmark = pytest.mark.needs("tmux")


def test_an_operator_finds_an_instance_reads_its_log_and_leaves(fleet: Plane, tmp_path: Path) -> None:
    fleet.execute("beta", "tools/call", {"name": "noise", "arguments": {"n": 1}})
    with in_tmux(fleet, tmp_path) as tmux:
        tmux.sees("alpha", "beta", "gamma", "● live", "3 instances")
        tmux.type("/beta")
        tmux.sees("1 of 3")
        tmux.send("Enter")
        tmux.sees("⏎ Open", "▸beta")
        tmux.send("Enter")
        tmux.sees("fleet › beta", "1 Overview")
        tmux.type("2")
        tmux.sees("fleet › beta › logs")
        tmux.send("Escape")
        tmux.sees("corral › local › fleet", "/beta")
        tmux.send("Escape")
        tmux.sees("gamma")
        tmux.type("q")
        assert "alpha" not in tmux.sees(f"{ENDED} 0"), "the terminal is as it was before"


def test_the_control_plane_is_killed_and_started_again_under_it(fleet: Plane, tmp_path: Path) -> None:
    with in_tmux(fleet, tmp_path) as tmux:
        tmux.sees("alpha", "● live")
        fleet.kill()
        screen = tmux.sees("away")
        assert "alpha" in screen, "the last picture stays"
        fleet.start()
        tmux.sees("● live", within_s=40)
        fleet.wait_status("alpha", "running")
        tmux.sees("● running")
        tmux.type("q")
        tmux.sees(f"{ENDED} 0")


def test_a_terminal_that_shrinks_and_grows_is_painted_anew(fleet: Plane, tmp_path: Path) -> None:
    with in_tmux(fleet, tmp_path) as tmux:
        tmux.sees("alpha", "● live")
        for columns, lines in ((80, 24), (20, 5), (200, 60), (40, 10), (80, 24)):
            tmux.resize(columns, lines)

        def fits() -> bool:
            screen = tmux.screen()
            is_whole = all(name in screen for name in ("alpha", "beta", "gamma"))
            return is_whole and re.search(r"STATUS +CPU +MEM +CALLS/S +P95", screen) is not None

        wait_until(fits, SEEN_S, "the table as it fits 80 columns")
        assert all(len(line) <= 80 for line in tmux.screen().splitlines())
        tmux.type("q")
        tmux.sees(f"{ENDED} 0")
