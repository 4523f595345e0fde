"""An instance's log as the dashboard holds it: lines, which of them are wanted, and what changed since the last look.

Pure: no clock, no I/O, no widget. Texts are cleaned on their way in. Lines come twice when a connection breaks, once
from the stream and once from the store; times of the two differ by a moment, so the same line is told by its words.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from attrs import define, field, frozen

from controlplane.wire.text import clean_lines
from tui.board.rows import seconds_of

KEPT_LINES = 20_000
"""Of one log: about a screenful a second for ten minutes; older ones are the server's to tell."""
LET_GO = 1_000
"""Lines that go at once when there are too many, so that it happens seldom."""
MAX_TEXT = 32_768
"""Characters of one line: twice the server's bound, as what is made visible grows."""
SAME_WITHIN_S = 0.05
"""The stream's time of a line and the store's are taken one after the other."""
ECHOES_FOR_S = 5.0
"""How long after a look into the store the stream may still bring what was found there."""
LEVELS = ("debug", "info", "warning", "error")
STREAMS = ("stdout", "stderr", "system", "build")
WINDOWS_S = (0, 60, 300, 900, 1800, 3600)
"""How far back the log is read; 0: as far as it goes."""

_STACKED = re.compile(
    "([\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0e47-\u0e4e\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]{3})"
    "[\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0e47-\u0e4e\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+"
)
"""Marks on one character beyond three: they have no width and would grow out of their row."""


@frozen
class LogLine:
    """One line. A `note` is the dashboard's own word about the stream."""

    seq: int
    at: float
    level: str
    stream: str
    incarnation: int
    text: str
    note: bool = False

    @property
    def words(self) -> tuple[str, int, str]:
        """What tells it from others, but for its time."""
        return self.stream, self.incarnation, self.text


@frozen(kw_only=True)
class Sieve:
    """Which lines are wanted; all that is set must hold."""

    least: str = ""
    stream: str = ""
    incarnation: int | None = None
    window_s: int = 0
    text: str = ""

    def wants(self, line: LogLine) -> bool:
        """Whether a line is shown. How far back the log goes is the server's part."""
        return line.note or (
            (not self.least or line.level in levels_from(self.least))
            and self.stream in {"", line.stream}
            and self.incarnation in {None, line.incarnation}
            and self.text.lower() in line.text.lower()
        )

    def query(self, now: float) -> dict[str, Any]:
        """The same as query members of `GET /instances/{id}/logs`."""
        return {
            "level": list(levels_from(self.least)) if self.least else None,
            "stream": self.stream or None,
            "incarnation": self.incarnation,
            "since": moment(now - self.window_s) if self.window_s else None,
            "q": self.text[:256] or None,
        }


@frozen
class Change:
    """What a view has to do to show the buffer as it is; in this order."""

    anew: bool = False
    dropped: int = 0
    before: tuple[LogLine, ...] = ()
    after: tuple[LogLine, ...] = ()

    def __bool__(self) -> bool:
        return self.anew or bool(self.dropped or self.before or self.after)


@define(eq=False)
class LogBuffer:
    """The lines that fit a sieve, oldest first, at most `KEPT_LINES` of them."""

    sieve: Sieve = field(factory=Sieve)
    kept: int = KEPT_LINES
    lines: list[LogLine] = field(factory=list, init=False)
    let_go: int = field(default=0, init=False)
    """Lines that were here and had to make room."""
    _seq: int = field(default=0, init=False)
    _before: list[LogLine] = field(factory=list, init=False)
    _after: list[LogLine] = field(factory=list, init=False)
    _dropped: int = field(default=0, init=False)
    _anew: bool = field(default=True, init=False)
    _echoes: dict[tuple[str, int, str], deque[float]] = field(factory=dict, init=False)
    _echoes_until: float = field(default=0.0, init=False)

    @property
    def oldest(self) -> LogLine | None:
        return next((line for line in self.lines if not line.note), None)

    @property
    def newest(self) -> LogLine | None:
        return next((line for line in reversed(self.lines) if not line.note), None)

    @property
    def is_full(self) -> bool:
        """Whether older lines have no room."""
        return len(self.lines) + LET_GO > self.kept

    def sift(self, sieve: Sieve) -> None:
        """Want others from now on: what is here already is looked through at once."""
        self.sieve = sieve
        self.lines = [line for line in self.lines if sieve.wants(line)]
        self._start_anew()

    def clear(self) -> None:
        self.lines, self.let_go = [], 0
        self._echoes.clear()
        self._start_anew()

    def take(self, event: Mapping[str, Any]) -> bool:
        """Take a `log` event; False when it was here already or is not wanted."""
        line = self._line(event)
        if self._is_echo(line) or not self.sieve.wants(line):
            return False
        self._append(line)
        return True

    def note(self, text: str, at: float) -> None:
        """Say something about the stream, between its lines."""
        self._append(LogLine(self._next(), at, "info", "", 0, "\n".join(clean_lines(text)), note=True))

    def fill(self, documents: Iterable[Mapping[str, Any]], now: float) -> int:
        """Take what the store has since the newest line or a little before; returns how many lines are new."""
        found = [self._line(document) for document in documents]
        self._echoes = _times_of(found)
        self._echoes_until = now + ECHOES_FOR_S
        fresh = [line for line in unseen(found, self.lines) if self.sieve.wants(line)]
        for line in fresh:
            self._append(line)
        return len(fresh)

    def put_before(self, documents: Iterable[Mapping[str, Any]]) -> int:
        """Take older lines; returns how many are new."""
        found = [self._line(document) for document in documents]
        fresh = [line for line in unseen(found, self.lines[: len(found) + LET_GO]) if self.sieve.wants(line)]
        room = max(0, self.kept - len(self.lines))
        fresh = fresh[-room:] if room else []
        self.lines[:0] = fresh
        self._before[:0] = fresh
        return len(fresh)

    def changes(self) -> Change:
        """Take what changed since this was asked last."""
        if self._anew:
            change = Change(anew=True, after=tuple(self.lines))
        else:
            change = Change(False, self._dropped, tuple(self._before), tuple(self._after))
        self._before, self._after, self._dropped, self._anew = [], [], 0, False
        return change

    def _append(self, line: LogLine) -> None:
        self.lines.append(line)
        self._after.append(line)
        if len(self.lines) > self.kept:
            self._make_room()

    def _make_room(self) -> None:
        many = min(LET_GO, len(self.lines) - 1)
        del self.lines[:many]
        self.let_go += many
        self._dropped += many
        seen = len(self.lines) + self._dropped - len(self._after)
        if self._before or self._dropped > seen:
            self._start_anew()  # lines went that no view has: told apart it would not add up

    def _start_anew(self) -> None:
        self._before, self._after, self._dropped, self._anew = [], [], 0, True

    def _line(self, event: Mapping[str, Any]) -> LogLine:
        return LogLine(
            seq=self._next(),
            at=seconds_of(event.get("timestamp")) or 0.0,
            level=level if (level := event.get("level")) in LEVELS else "info",
            stream=stream if (stream := event.get("stream")) in STREAMS else "",
            incarnation=number if isinstance(number := event.get("incarnation"), int) else 0,
            text=harmless(event.get("message") or ""),
        )

    def _next(self) -> int:
        self._seq += 1
        return self._seq

    def _is_echo(self, line: LogLine) -> bool:
        if not self._echoes:
            return False
        if line.at > self._echoes_until:
            self._echoes.clear()
            return False
        return _consume(self._echoes, line)


def harmless(message: object) -> str:
    """A message's lines, each clean and without towers of marks, cut at `MAX_TEXT`."""
    text = str(message)
    cut = len(text) > MAX_TEXT
    shown = "\n".join(clean_lines(text[:MAX_TEXT]))
    if not shown.isascii():
        shown = _STACKED.sub(r"\1…", shown)
    return f"{shown} … [cut, {len(text)} characters]" if cut else shown


def unseen(found: Iterable[LogLine], seen: Iterable[LogLine]) -> list[LogLine]:
    """The lines that are not among those seen; each of these stands for one of them only."""
    times = _times_of(seen)
    return [line for line in found if not _consume(times, line)]


def _times_of(lines: Iterable[LogLine]) -> dict[tuple[str, int, str], deque[float]]:
    times: dict[tuple[str, int, str], deque[float]] = defaultdict(deque)
    for line in lines:
        times[line.words].append(line.at)
    return dict(times)


def _consume(times: dict[tuple[str, int, str], deque[float]], line: LogLine) -> bool:
    known = times.get(line.words)
    while known and known[0] < line.at - SAME_WITHIN_S:
        known.popleft()
    if not known or known[0] > line.at + SAME_WITHIN_S:
        return False
    known.popleft()
    return True


def levels_from(least: str) -> tuple[str, ...]:
    """A level and all above it."""
    return LEVELS[LEVELS.index(least) :]


def moment(at: float) -> str:
    """Seconds since the epoch as the API writes them."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def after(choices: tuple[Any, ...], now: Any) -> Any:
    """The next of some choices, round and round."""
    return choices[(choices.index(now) + 1) % len(choices)]
