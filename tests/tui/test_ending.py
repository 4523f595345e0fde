"""How the dashboard ends in a real terminal: by a key, a signal, a closed terminal, or an error of its own."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.tui.terminal import in_terminal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.plane import Plane
    from tests.tui.terminal import Terminal

RESTORED = (b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?1000l", b"\x1b[?1003l", b"\x1b[?2004l")
"""The other screen, the cursor, the mouse, pasting: as they were."""
SOON_S = 5.0
"""A hang guard; the ends that were measured took well under a second."""
FAULTY = """
import sys
from textual.widget import Widget
from tui.client import Api
from tui.screens.fleet import FleetScreen

async def fail(self, path, **query):
    token, header = self.context.token, {"Authorization": "Bearer " + self.context.token}
    raise RuntimeError(f"planted with {header}" if WHERE == "worker" else "planted")

def paint(self, touched):
    token = self.plane.context.token
    raise RuntimeError(f"planted with {token}")

WHERE = sys.argv.pop(1)
if WHERE == "worker":
    Api.get = fail
else:
    FleetScreen.board_changed = paint
from tui.__main__ import main
main()
"""


def _press(keys: bytes) -> Callable[[Terminal], None]:
    return lambda terminal: terminal.type(keys)


def _signal(number: int) -> Callable[[Terminal], None]:
    return lambda terminal: terminal.process.send_signal(number)


@pytest.mark.parametrize(
    ("leave", "status"),
    [
        pytest.param(_press(b"q"), 0, id="q"),
        pytest.param(_press(b"\x03"), 0, id="Ctrl-C"),
        pytest.param(_signal(signal.SIGINT), 0, id="SIGINT"),
        pytest.param(_signal(signal.SIGTERM), 143, id="SIGTERM"),
        pytest.param(_signal(signal.SIGHUP), 129, id="SIGHUP"),
    ],
)
def test_it_leaves_the_terminal_as_it_was_however_it_is_ended(
    fleet: Plane, tmp_path: Path, leave: Callable[[Terminal], None], status: int
) -> None:
    with in_terminal(fleet, tmp_path) as terminal:
        before = terminal.modes()
        at = terminal.sees("alpha", "live")
        terminal.type(b"\r")
        at = terminal.sees("1 Overview", after=at)
        terminal.type(b"2")
        at = terminal.sees("following", after=at)
        leave(terminal)
        ended, took = terminal.ended()
        assert ended == status
        assert took < SOON_S
        assert all(sequence in terminal.received[at:] for sequence in RESTORED)
        assert terminal.modes() == before


def test_it_ends_with_its_terminal(fleet: Plane, tmp_path: Path) -> None:
    with in_terminal(fleet, tmp_path) as terminal:
        terminal.sees("alpha", "live")
        terminal.hang_up()
        assert terminal.process.wait(SOON_S) != 0


@pytest.mark.parametrize("where", ["worker", "paint"])
def test_an_error_of_its_own_ends_it_with_1_and_shows_no_token(fleet: Plane, tmp_path: Path, where: str) -> None:
    with in_terminal(fleet, tmp_path, program=("-c", FAULTY, where)) as terminal:
        before = terminal.modes()
        assert terminal.ended()[0] == 1
        assert "planted" in terminal.text()
        assert "RuntimeError" in terminal.text()
        assert fleet.token.encode() not in terminal.received
        assert b"locals" not in terminal.received
        assert terminal.modes() == before


@pytest.mark.parametrize(
    "environment",
    [
        {"TERM": "dumb"},
        {"TERM": "xterm"},
        {"TERM": "linux"},
        {"TERM": ""},
        {"NO_COLOR": "1"},
        {"LANG": "C", "LC_ALL": "C"},
        {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
    ids=lambda given: " ".join(f"{name}={value}" for name, value in given.items()),
)
def test_it_runs_in_poor_terminals(fleet: Plane, tmp_path: Path, environment: dict[str, str]) -> None:
    with in_terminal(fleet, tmp_path, environment=environment) as terminal:
        at = terminal.sees("alpha", "live")
        terminal.type(b"\r")
        terminal.sees("1 Overview", after=at)
        terminal.type(b"q")
        assert terminal.ended()[0] == 0, terminal.text()[-3000:]


def test_a_terminal_of_twenty_by_five_and_a_storm_of_sizes(fleet: Plane, tmp_path: Path) -> None:
    with in_terminal(fleet, tmp_path, columns=20, lines=5) as terminal:
        at = terminal.sees("alpha")
        for width in range(1, 200, 3):
            terminal.resize(width, width % 40 + 1)
            terminal.type(b"\r\x1b" if width % 2 else b"j1234567k"[width % 9 : width % 9 + 1])
        terminal.resize(120, 40)
        terminal.type(b"\x1b")
        terminal.sees("alpha", "live", after=at)
        terminal.type(b"\x11")
        assert terminal.ended()[0] == 0, terminal.text()[-3000:]


@pytest.mark.parametrize("token", ["tök€n", "with a space in it and \u202e"])
def test_a_token_that_no_request_can_carry_is_refused_like_any_other(fleet: Plane, tmp_path: Path, token: str) -> None:
    environment = {"CORRAL_TOKEN": token}
    with in_terminal(fleet, tmp_path, program=("-m", "tui"), environment=environment) as terminal:
        terminal.sees("refused", "CORRAL_TOKEN")
        terminal.type(b"q")
        assert terminal.ended()[0] == 0
