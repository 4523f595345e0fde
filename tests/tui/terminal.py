"""A terminal that keeps every byte it is sent: the dashboard runs in it as it would in any, and nothing is lost."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from attrs import define, field

from tests.e2e.plane import ROOT, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.e2e.plane import Plane

SEEN_S = 30.0
END_S = 20.0
"""Bounds of waits: hang guards."""
SEQUENCE = re.compile(
    rb"\x1b(?:\[[0-9:;<=>?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\|[ -/]*[0-~])"
)
"""ECMA-48: a control sequence, an operating system command, a string, an escape."""


@define(eq=False)
class Terminal:
    """The master's side of a pty with a program on the other."""

    process: subprocess.Popen[bytes]
    master: int
    _received: bytearray = field(factory=bytearray)
    _reader: threading.Thread | None = None

    def listen(self) -> None:
        self._reader = threading.Thread(target=self._read, name="terminal")
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # EIO: nobody has the other side open
            while block := os.read(self.master, 65536):
                self._received += block

    @property
    def received(self) -> bytes:
        """Every byte so far."""
        return bytes(self._received)

    def text(self) -> str:
        """What was written so far without the sequences between; later strokes stand behind earlier ones."""
        return SEQUENCE.sub(b"", self.received).decode(errors="replace")

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def sees(self, *texts: str, after: int = 0) -> int:
        """Wait until all these texts were written since a place in what was received; returns the place now."""

        def seen() -> bool:
            text = SEQUENCE.sub(b"", self.received[after:]).decode(errors="replace")
            return all(part in text for part in texts)

        try:
            wait_until(seen, SEEN_S, f"{texts} written to the terminal")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text()[-4000:]}") from None
        return len(self.received)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def modes(self) -> list[object]:
        """The line discipline's settings, which a program that ends must leave as it found them."""
        return list(termios.tcgetattr(self.master))

    def ended(self) -> tuple[int, float]:
        """Wait for the end of the program; returns its exit status and the seconds that it took."""
        began = time.monotonic()
        status = self.process.wait(END_S)
        took = time.monotonic() - began
        if self._reader is not None:
            self._reader.join(END_S)
        return status, took

    def hang_up(self) -> None:
        """Close the terminal, as a lost connection or a closed window does."""
        os.close(self.master)
        self.master = -1


@contextmanager
def in_terminal(
    plane: Plane,
    folder: Path,
    *,
    columns: int = 120,
    lines: int = 40,
    url: str = "",
    token: str = "",
    program: Sequence[str] = ("-m", "controlplane.cli", "tui"),
    environment: dict[str, str] | None = None,
) -> Iterator[Terminal]:
    """Start the dashboard in a terminal of its own; whatever happens, it is gone afterwards."""
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    given = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "CORRAL_URL": url or plane.url,
        "CORRAL_TOKEN": token or plane.token,
        "CORRAL_HOME": str(plane.home),
        "PYTHONPATH": str(ROOT),
        "XDG_STATE_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
    }
    process = subprocess.Popen(
        [sys.executable, *program],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=folder,
        env=given | (environment or {}),
        start_new_session=True,
        preexec_fn=_take_terminal,  # noqa: PLW1509  (one call of the system, between fork and exec)
    )
    os.close(slave)
    terminal = Terminal(process, master)
    terminal.listen()
    try:
        yield terminal
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait(END_S)
        if terminal.master >= 0:
            os.close(terminal.master)


def _take_terminal() -> None:
    """Make the slave the terminal that controls the new session: its end is a SIGHUP, a Ctrl-C a SIGINT."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
