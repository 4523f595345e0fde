"""Runs the command as a process of its own, on a pipe or on a terminal of a given size."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

from attrs import define, field

from tests.cli.fake_api import TOKEN

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 20.0
COMMAND = (sys.executable, "-m", "controlplane.cli")


def environment(url: str, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CORRAL_", "_CORRAL"))}
    kept.pop("NO_COLOR", None)
    return kept | {"CORRAL_URL": url, "CORRAL_TOKEN": TOKEN, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **more}


@define
class Terminal:
    """One command on a pseudo-terminal; what it wrote so far is in `seen`."""

    process: subprocess.Popen[bytes]
    _master: int
    seen: bytes = field(default=b"", init=False)

    @classmethod
    def run(cls, url: str, *arguments: str, columns: int = 80, **more: str) -> Terminal:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(url, **more),
            start_new_session=True,
        )
        os.close(slave)
        return cls(process, master)

    def read_until(self, pattern: str) -> str:
        """Read until the text, without its escape sequences, matches."""
        deadline = time.monotonic() + TIMEOUT_S
        while not re.search(pattern, self.text):
            assert time.monotonic() < deadline, self.text
            if not self._read(deadline):
                break
        assert re.search(pattern, self.text), self.text
        return self.text

    def end(self) -> int:
        """Read to the end and return the exit code."""
        deadline = time.monotonic() + TIMEOUT_S
        while self._read(deadline):
            assert time.monotonic() < deadline, self.text
        os.close(self._master)
        return self.process.wait(TIMEOUT_S)

    def interrupt(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    @property
    def text(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.seen.decode("utf-8", "replace")).replace("\r", "")

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            chunk = os.read(self._master, 65_536)
        except OSError:  # Linux's way to say that the other side is closed
            return False
        self.seen += chunk
        return bool(chunk)


def piped(url: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command with its output on pipes."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(url, **more),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
