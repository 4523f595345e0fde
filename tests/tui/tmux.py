"""The dashboard in a real terminal: tmux runs it, types into it, and says what is on the screen."""

from __future__ import annotations

import os
import secrets
import shlex
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from attrs import define

from tests.e2e.plane import ROOT, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.plane import Plane

SEEN_S = 20.0
"""Bound of each wait for something on the screen."""
ENDED = "the dashboard ended with"


@define
class Tmux:
    """One tmux server with one window; nobody else's is touched."""

    socket: str
    folder: Path

    def run(self, *arguments: str) -> str:
        """Run a tmux command, and return what it printed."""
        done = subprocess.run(
            ["tmux", "-L", self.socket, "-f", "/dev/null", *arguments],
            capture_output=True,
            text=True,
            timeout=SEEN_S,
            check=False,
            env={**os.environ, "TMUX_TMPDIR": str(self.folder)},
        )
        return done.stdout

    def send(self, *keys: str) -> None:
        """Press keys, by tmux's names."""
        self.run("send-keys", *keys)

    def type(self, text: str) -> None:
        self.run("send-keys", "-l", text)

    def screen(self) -> str:
        return self.run("capture-pane", "-p")

    def resize(self, columns: int, lines: int) -> None:
        self.run("resize-window", "-x", str(columns), "-y", str(lines))

    def sees(self, *texts: str, within_s: float = SEEN_S) -> str:
        """Wait until all these texts are on the screen; returns it."""
        try:
            wait_until(lambda: all(text in self.screen() for text in texts), within_s, f"{texts} on the screen")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.screen()}") from None
        return self.screen()


@contextmanager
def in_tmux(
    plane: Plane, folder: Path, *arguments: str, columns: int = 120, lines: int = 40, url: str = ""
) -> Iterator[Tmux]:
    """Start `corral tui` as an operator would; whatever happens, tmux and the dashboard are gone afterwards."""
    tmux = Tmux(f"corral-{secrets.token_hex(4)}", folder)
    command = shlex.join([sys.executable, "-m", "controlplane.cli", "tui", *arguments])
    environment = {
        "CORRAL_URL": url or plane.url,
        "CORRAL_TOKEN": plane.token,
        "CORRAL_HOME": str(plane.home),
        "PYTHONPATH": str(ROOT),
        "XDG_STATE_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
        "LANG": "C.UTF-8",
    }
    given = [word for name, value in environment.items() for word in ("-e", f"{name}={value}")]
    script = f"{command}; echo {ENDED} $?; exec cat"
    tmux.run("new-session", "-d", "-x", str(columns), "-y", str(lines), "-c", str(folder), *given, "sh", "-c", script)
    try:
        yield tmux
    finally:
        tmux.run("kill-server")
