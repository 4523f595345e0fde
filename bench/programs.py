"""The programs that a run starts: our own in C, compiled when they have changed, and servers that end with us.

Whatever is started here dies with this process, even a killed one.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from bench import machine

HERE = Path(__file__).resolve().parent
BUILD = HERE / ".build"
START_S = 60.0
"""For a server to answer for the first time."""
STOP_S = 12.0
"""For a server to end by itself after SIGTERM; Corral takes 9.5 s at the very most."""
POLL_S = 0.005
PR_SET_PDEATHSIG = 1
LOG_TAIL_CHARS = 1_500
_libc = ctypes.CDLL(None)


class BenchError(Exception):
    """The run cannot go on; the text says why."""


@frozen(kw_only=True)
class Native:
    """Paths of our compiled programs."""

    calls: Path
    pipe: Path
    fan: Path
    echo: Path


def build() -> Native:
    """Compile what has changed.

    Raises:
        BenchError: there is no C compiler, or it refuses.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise BenchError(
            "no C compiler: the load programs are in C, because one in Python would measure itself.\n"
            "Debian and Ubuntu: apt install gcc libc6-dev"
        )
    BUILD.mkdir(exist_ok=True)
    return Native(**{name: _compile(compiler, name) for name in ("calls", "pipe", "fan", "echo")})


def _compile(compiler: str, name: str) -> Path:
    source = HERE / "native" / f"{name}.c"
    text = source.read_bytes() + (HERE / "native" / "common.h").read_bytes()
    program = BUILD / f"{name}-{hashlib.sha256(text).hexdigest()[:12]}"
    if not program.exists():
        for old in BUILD.glob(f"{name}-*"):
            old.unlink()
        staged = BUILD / f"{name}.new"
        done = subprocess.run(
            [compiler, "-O2", "-Wall", "-Wextra", "-Wno-unused-function", "-o", staged, source],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BenchError(f"{source.name} does not compile:\n{done.stderr}")
        staged.rename(program)
    return program


def die_with_parent() -> None:
    """Between fork and exec: the kernel ends this process when the benchmark does."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@define(eq=False)
class Server:
    """A process that serves, with its log."""

    popen: subprocess.Popen[bytes]
    log: Path
    started: float = field(factory=time.monotonic)

    @property
    def pid(self) -> int:
        return self.popen.pid

    @classmethod
    def start(cls, argv: Sequence[str | Path], *, env: Mapping[str, str], folder: Path, name: str) -> Server:
        """Start it in a session of its own, in `folder`, with `env` as its whole environment."""
        log = folder / f"{name}.log"
        with log.open("wb") as out:
            popen = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=dict(env),
                cwd=folder,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509  (there are no threads here)
            )
        return cls(popen, log)

    def wait_until(self, answers: Callable[[], bool]) -> None:
        """Poll until `answers` says so.

        Raises:
            BenchError: it ended, or took longer than `START_S`.
        """
        while time.monotonic() < self.started + START_S:
            with suppress(OSError, HTTPException):
                if answers():
                    return
            if self.popen.poll() is not None:
                raise BenchError(f"ended with status {self.popen.returncode}: {self.last_words()}")
            time.sleep(POLL_S)
        raise BenchError(f"does not answer after {START_S:g} s: {self.last_words()}")

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-LOG_TAIL_CHARS:].strip() or "(it said nothing)"

    def stop(self) -> None:
        """End it and all that descends from it, by pid."""
        members = machine.tree(self.pid)
        with suppress(ProcessLookupError):
            self.popen.terminate()
        try:
            self.popen.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        left = {process.pid: process.command for process in machine.processes()}
        for process in members:
            if process.pid != self.pid and left.get(process.pid) == process.command:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)


@contextmanager
def load_program(argv: Sequence[str | Path], timeout_s: float) -> Iterator[Callable[[], dict[str, Any]]]:
    """Start one of our load programs and wait until it is ready; calling what is yielded lets it run to its result.

    Raises:
        BenchError: it gave up.
    """
    popen = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert popen.stdout is not None
    assert popen.stderr is not None

    def fail() -> BenchError:
        popen.kill()
        _, errors = popen.communicate()
        return BenchError(f"{Path(argv[0]).name}: {errors.strip() or 'it ended without a word'}")

    def run() -> dict[str, Any]:
        try:
            output, errors = popen.communicate("go\n", timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise fail() from None
        if popen.returncode:
            raise BenchError(f"{Path(argv[0]).name}: {errors.strip()}")
        if errors:
            print(errors.strip(), file=sys.stderr)
        result: dict[str, Any] = json.loads(output)
        return result

    try:
        if popen.stdout.readline() != "ready\n":
            raise fail()
        yield run
    finally:
        if popen.poll() is None:
            popen.kill()
            popen.wait()
