"""Which version each tool is: asked once of the tool itself, then known for as long as its file stays the same.

It is asked as a user who may do nothing, where instances run as users of their own: so an answer also shows that they
can run it. Answers are kept in a file; the next life starts with them.
"""

from __future__ import annotations

import errno
import json
import os
import re
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from controlplane.deploy.toolchain.table import BY_NAME, Program

PROBE_TIMEOUT_S = 10.0
"""For one tool to say its version. Maven starts a JVM for it, which takes a second on a busy host."""
PARALLEL = 4
"""Tools asked at the same time."""
ANSWER_MAX_BYTES = 8 * 1024
BOOK_MAX_BYTES = 64 * 1024
"""Of the file of answers: a few dozen lines."""
FAILURE_KEPT_S = 60.0
"""A tool that gave no answer is not asked again before; what is broken stays so for a while."""
NOBODY = 65534
_VERSION = re.compile(r"\d+(?:\.\d+)+(?:-?(?:alpha|beta|rc|nightly|canary|dev|preview)[\w.]*)?")


@frozen(kw_only=True)
class Question:
    """A tool to ask.

    Args:
        name: Of the tool.
        argv: The program to run; what makes it say its version is added.
        file: The file whose change means another version.
        as_nobody: Ask as a user who may do nothing; else as Corral's own.
    """

    name: str
    argv: tuple[str, ...]
    file: Path
    as_nobody: bool


@frozen
class Answer:
    """`version` is None where none was given; `runs` is False where the tool cannot even be started, or fails."""

    version: str | None
    runs: bool = True


@frozen
class _Print:
    """What tells a file from its next version."""

    file: str
    size: int
    mtime_ns: int


@define(eq=False)
class VersionBook:
    """Answers by tool. From any thread; one asks at a time, so none is asked twice.

    Args:
        kept: The file of answers; None: only this life knows them.
        path: The PATH that tools are run with.
    """

    kept: Path | None
    path: str
    _known: dict[str, tuple[_Print, Answer]] | None = field(default=None, init=False)
    _failed_until: dict[str, float] = field(factory=dict, init=False)
    _turn: threading.Lock = field(factory=threading.Lock, init=False)

    def ask(self, questions: Iterable[Question]) -> dict[str, Answer]:
        """Answers by name: from the book where the files are still the same, else from the tools, in parallel.

        Takes at most a few times `PROBE_TIMEOUT_S`. A file that is gone has no answer.
        """
        with self._turn:
            if self._known is None:
                self._known = _read(self.kept)
            current = {q: found for q in questions if (found := _print_of(q.file)) is not None}
            new = [(q, found) for q, found in current.items() if self._must_ask(q, found)]
            if new:
                with ThreadPoolExecutor(min(PARALLEL, len(new)), thread_name_prefix="version") as pool:
                    answers = list(pool.map(lambda asked: _ask(asked[0], self.path), new))
                for (question, found), answer in zip(new, answers, strict=True):
                    self._note(question, found, answer)
                _write(self.kept, self._known)
            return {question.name: self._known[question.name][1] for question in current}

    def _must_ask(self, question: Question, found: _Print) -> bool:
        known = (self._known or {}).get(question.name)
        if known is None or known[0] != found:
            return True
        return known[1].version is None and time.monotonic() > self._failed_until.get(question.name, 0.0)

    def _note(self, question: Question, found: _Print, answer: Answer) -> None:
        assert self._known is not None
        self._known[question.name] = (found, answer)
        if answer.version is None:
            self._failed_until[question.name] = time.monotonic() + FAILURE_KEPT_S


def _print_of(file: Path) -> _Print | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return _Print(str(file), status.st_size, status.st_mtime_ns)


def _ask(question: Question, path: str) -> Answer:
    program = BY_NAME.get(question.name) or Program(name=question.name)
    user = NOBODY if question.as_nobody else None
    try:
        process = subprocess.Popen(
            [*question.argv, *program.ask],
            cwd="/",
            env=_environment(path),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
    except OSError as error:
        # Anything else is about this moment or this host, not about the tool.
        return Answer(None, runs=error.errno not in (errno.ENOENT, errno.EACCES, errno.ENOEXEC))
    said, status = _listen(process)
    if status is None:
        return Answer(None)
    found = _version_in(said, program.line)
    return Answer(found, runs=status == 0 and (found is not None or program.line == 0))


def _environment(path: str) -> dict[str, str]:
    """No home to write to, nothing to download, no greeting."""
    quiet = {"GOTOOLCHAIN": "local", "DOTNET_NOLOGO": "1", "DOTNET_CLI_TELEMETRY_OPTOUT": "1", "NO_COLOR": "1"}
    return {"PATH": path, "HOME": "/", "LANG": "C.UTF-8", "npm_config_update_notifier": "false", **quiet}


def _listen(process: subprocess.Popen[bytes]) -> tuple[bytes, int | None]:
    """What it prints and its exit status; None: it took too long, and was ended with all that it started."""
    end = time.monotonic() + PROBE_TIMEOUT_S
    said, is_all = _read_until(process, end)
    status = None
    if is_all:
        with suppress(subprocess.TimeoutExpired):
            status = process.wait(max(0.0, end - time.monotonic()))
    if status is None:  # it is not reaped, so the number is still that of its group
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return said, status


def _read_until(process: subprocess.Popen[bytes], end: float) -> tuple[bytes, bool]:
    """The beginning of what it prints until a time, and whether it said all by then."""
    assert process.stdout is not None
    said = b""
    with process.stdout as output, selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while (left := end - time.monotonic()) > 0 and selector.select(left):
            chunk = os.read(output.fileno(), ANSWER_MAX_BYTES)
            if not chunk:
                return said, True
            said += chunk[: ANSWER_MAX_BYTES - len(said)]
    return said, False


def _version_in(said: bytes, line: int) -> str | None:
    lines = said.decode("utf-8", "replace").strip().splitlines()
    found = _VERSION.search(lines[line]) if lines else None
    return found[0] if found else None


def _read(kept: Path | None) -> dict[str, tuple[_Print, Answer]]:
    """The file of answers; one that is damaged is as good as none."""
    try:
        with open(kept or os.devnull, "rb") as file:
            book: dict[str, dict[str, Any]] = json.loads(file.read(BOOK_MAX_BYTES) or b"{}")
        return {
            name: (_Print(str(e["file"]), int(e["size"]), int(e["mtime_ns"])), Answer(str(e["version"])))
            for name, e in book.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write(kept: Path | None, known: dict[str, tuple[_Print, Answer]]) -> None:
    if kept is None:
        return
    book = {
        name: {"file": found.file, "size": found.size, "mtime_ns": found.mtime_ns, "version": answer.version}
        for name, (found, answer) in sorted(known.items())
        if answer.version is not None
    }
    staged = kept.with_name(f".{kept.name}.new")
    with suppress(OSError):  # a full disk: they are asked again in the next life
        staged.write_text(json.dumps(book, indent=1))
        staged.replace(kept)
