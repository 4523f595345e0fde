"""The dashboard under 500 instances that change each second: from key to paint, its CPU, and its memory over an hour.

It runs on a real pseudo-terminal, as a person has it. The peer is Textual's own DataTable with the same events; only
its CPU is taken, since what a key paints there cannot be told from what an event paints.
"""

from __future__ import annotations

import fcntl
import os
import pty
import random
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles

import httpx
from attrs import define, field

from bench import machine, programs
from bench.dashboard_feed import name_of
from bench.programs import BenchError
from bench.results import CORRAL, DATATABLE, Results

LINES, COLUMNS = 45, 160
KEYS = 200
STRETCH_S = 20.0
HOUR_S = 3600
READY_S = 30.0
PAINT_S = 5.0
FLOOD_S = 900.0
_ESCAPES = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
ROOT = Path(__file__).parents[1]
PORT = 8399


@define(eq=False)
class Screen:
    """A program on a pseudo-terminal; what it writes is read all the time, so that it never waits for us."""

    process: subprocess.Popen[bytes]
    _master: int
    _seen: bytearray = field(factory=bytearray)

    def press(self, key: bytes) -> None:
        self._seen.clear()
        os.write(self._master, key)

    def read(self, within_s: float) -> None:
        """Take what is there, waiting for it at most so long."""
        if select.select([self._master], [], [], within_s)[0]:
            self._seen += os.read(self._master, 1 << 16)

    def wait_for(self, text: str, within_s: float) -> float:
        """Wait until a text has been painted since the last key; returns the seconds it took."""
        began = time.perf_counter()
        wanted = text.encode()
        while wanted not in _ESCAPES.sub(b"", bytes(self._seen)):
            if time.perf_counter() - began > within_s:
                raise BenchError(f"{text!r} was not painted within {within_s:g} s")
            self.read(0.1)
        return time.perf_counter() - began

    def drain(self, seconds: float) -> None:
        """Let it run for so long."""
        until = time.perf_counter() + seconds
        while (left := until - time.perf_counter()) > 0:
            self.read(left)
            self._seen.clear()


@contextmanager
def on_terminal(argv: list[str], **environment: str) -> Iterator[Screen]:
    """Run a program on a terminal of `LINES` × `COLUMNS`; killed at the end."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    ground = {name: value for name, value in os.environ.items() if not name.startswith("CORRAL_")}
    process = subprocess.Popen(
        argv,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=ROOT,
        env=ground | {"TERM": "xterm-256color", "COLORTERM": "truecolor"} | environment,
        preexec_fn=programs.die_with_parent,  # noqa: PLW1509  (there are no threads here)
    )
    os.close(slave)
    try:
        yield Screen(process, master)
    finally:
        process.kill()
        process.wait()
        os.close(master)


@contextmanager
def feed() -> Iterator[str]:
    """The stand-in control plane; returns its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.dashboard_feed", str(PORT)],
        cwd=ROOT,
        preexec_fn=programs.die_with_parent,  # noqa: PLW1509  (there are no threads here)
    )
    url = f"http://127.0.0.1:{PORT}"
    try:
        until = time.monotonic() + READY_S
        while True:
            try:
                httpx.get(f"{url}/health", trust_env=False)
                break
            except httpx.ConnectError:
                if time.monotonic() > until or process.poll() is not None:
                    raise BenchError("the stand-in control plane does not start") from None
        yield url
    finally:
        process.kill()
        process.wait()


def measure(results: Results, *, keys: int = KEYS, stretch_s: float = STRETCH_S, hour_s: int = HOUR_S) -> None:
    """Measure the dashboard, then the peer, each with a feed of its own."""
    results.columns.append(DATATABLE)
    with feed() as url, on_terminal([sys.executable, "-m", "tui"], CORRAL_URL=url, CORRAL_TOKEN="bench") as screen:
        screen.wait_for(name_of(0), READY_S)
        screen.drain(5.0)
        _keys(screen, results, keys)
        results.add("dashboard cpu", CORRAL, 100 * _cores(screen, stretch_s))
        _hour(screen, url, results, hour_s)
    with feed() as url, on_terminal([sys.executable, "-m", "bench.datatable", url]) as screen:
        screen.wait_for(name_of(0), READY_S)
        screen.drain(5.0)
        results.add("dashboard cpu", DATATABLE, 100 * _cores(screen, stretch_s))


def _keys(screen: Screen, results: Results, keys: int) -> None:
    """Move the cursor, and wait each time until it stands on its row."""
    roll, place, took = random.Random(1), 0, []
    for _ in range(keys):
        step = -1 if place >= LINES - 8 else 1 if place == 0 else roll.choice((1, -1))
        place += step
        screen.press(b"j" if step > 0 else b"k")
        took.append(1000 * screen.wait_for(f"▸{name_of(place)}", PAINT_S))
        screen.drain(roll.uniform(0.03, 0.15))
    cuts = quantiles(took, n=20)
    results.add("dashboard p50", CORRAL, cuts[9])
    results.add("dashboard p95", CORRAL, cuts[18])


def _cores(screen: Screen, seconds: float) -> float:
    """The CPU that it takes, in cores."""
    pid = screen.process.pid
    before, began = machine.cpu_of([pid]), time.perf_counter()
    screen.drain(seconds)
    return machine.cpu_since(before, machine.cpu_of([pid])) / (time.perf_counter() - began)


def _hour(screen: Screen, url: str, results: Results, seconds: int) -> None:
    """Send an hour's worth of events as fast as they are taken, in two halves; memory must not grow in the second."""
    for row in ("dashboard half", "dashboard hour"):
        flood = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import httpx; httpx.post('{url}/flood/{seconds // 2}', timeout={FLOOD_S}, trust_env=False)",
            ],
            preexec_fn=programs.die_with_parent,  # noqa: PLW1509  (there are no threads here)
        )
        while flood.poll() is None:
            screen.drain(0.2)
        screen.drain(3.0)
        results.add(row, CORRAL, _resident_mb(screen.process.pid))


def _resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * machine.PAGE_BYTES / 2**20
