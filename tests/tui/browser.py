"""`corral tui --web` as a process of its own, and what it says."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define

from tests.e2e.plane import Process, below, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.plane import Plane

READY_S = 20.0
END_S = 15.0
LINK = re.compile(r"(http://127\.0\.0\.1:\d+)/\?code=(\w+)")
AFTER_GUESSES = re.compile(r"The code is now (\w+)")
NEXT_CODE = re.compile(r"The code for another one: (\w+)")


@define
class WebDashboard:
    """The running server; `output` is all that its terminal shows."""

    process: subprocess.Popen[bytes]
    _log: Path
    url: str = ""
    code: str = ""

    @property
    def output(self) -> str:
        return self._log.read_text()

    def tabs(self) -> list[Process]:
        """The programs of the open tabs."""
        return below(self.process.pid)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Signal the server and wait until it and every tab's program have ended; returns its status."""
        tabs = self.tabs()
        self.process.send_signal(number)
        status = self.process.wait(END_S)
        wait_until(lambda: not [tab for tab in tabs if tab.is_live], END_S, "the end of every tab's program")
        return status


@contextmanager
def web_dashboard(plane: Plane, folder: Path, browser: Path | None = None) -> Iterator[WebDashboard]:
    """Start it as a person would; it is ended, and must leave nothing, whatever the test did.

    Args:
        plane: What it shows.
        folder: Its own, for what it writes.
        browser: A program that is opened as the browser; without one none is.
    """
    log = folder / "web.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "controlplane.cli", "tui", "--web", *(() if browser else ("--no-open",))],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=plane.environment
            | ({"BROWSER": f"{browser} %s"} if browser else {})
            | {
                "CORRAL_URL": plane.url,
                "CORRAL_TOKEN": plane.token,
                "PYTHONUNBUFFERED": "1",
                "XDG_STATE_HOME": str(folder),
                "XDG_CONFIG_HOME": str(folder),
            },
            start_new_session=True,
        )
    dashboard = WebDashboard(process, log)
    try:
        found = wait_until(lambda: LINK.search(dashboard.output), READY_S, "the address")
        dashboard.url, dashboard.code = found[1], found[2]
        yield dashboard
    finally:
        if process.poll() is None:
            dashboard.end()
