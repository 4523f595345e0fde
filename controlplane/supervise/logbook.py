"""What an instance prints, on its way to the log, the event stream and the post-mortem.

Each line is decoded, redacted, cut to length and rated (`core/floodgate.py`)
before anybody sees it. Nothing here waits or fails.
"""

from __future__ import annotations

import re
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import trio
from attrs import define, field

from controlplane.core.floodgate import Floodgate
from controlplane.model import Instance, LogLine

if TYPE_CHECKING:
    from controlplane.core.redact import Redactor
    from controlplane.hub import Hub
    from controlplane.store.journal import Journal

MAX_LINE_CHARS = 16 * 1024
TAIL_LINES = 20
TAIL_LINE_CHARS = 500
_LEVELS = re.compile(r"\b(?:(critical|fatal|error|traceback|exception)|(warn(?:ing)?)|(debug|trace))\b", re.IGNORECASE)


def guess_level(message: str) -> str:
    """The level that a free-form line speaks of, by the first word that names one; `info` if none does."""
    found = _LEVELS.search(message[:200])
    if found is None:
        return "info"
    return "error" if found[1] else "warning" if found[2] else "debug"


@define(eq=False)
class Logbook:
    """One instance's lines. `tail` holds the last ones of stderr, for a post-mortem."""

    instance: Instance
    journal: Journal
    hub: Hub
    redact: Redactor
    incarnation: int = 0
    tail: deque[str] = field(factory=lambda: deque(maxlen=TAIL_LINES), init=False)
    _gate: Floodgate = field(factory=Floodgate, init=False)
    _dropped_before: int = field(default=0, init=False)

    @property
    def dropped(self) -> int:
        """Lines, since the instance was adopted."""
        return self._dropped_before + self._gate.dropped_total

    @property
    def seen_bytes(self) -> int:
        """All that was printed into this one, kept or not."""
        return self._gate.seen_bytes

    def limit(self, kib_per_s: float) -> None:
        """Keep so much from now on."""
        self._gate.limit(kib_per_s)

    def beside(self, redact: Redactor) -> Logbook:
        """One for a process that runs beside this one's, whose flood and last words are its own."""
        book = Logbook(self.instance, self.journal, self.hub, redact, self.incarnation)
        book.limit(self.instance.spec.limits.log_kb_s)
        return book

    def follow(self, earlier: Logbook) -> None:
        """Take over from the one before."""
        self._dropped_before = earlier.dropped

    def begin(self, incarnation: int) -> None:
        """A new process starts; the post-mortem of the last one has been written."""
        self.incarnation = incarnation
        self.tail.clear()

    def printed(self, stream: str, line: bytes) -> None:
        """One line of the child's stderr or (noise on) stdout."""
        if not self._gate.admits(len(line), trio.current_time()):
            return
        self._announce()
        message = self._clean(line)
        if stream == "stderr":
            self.tail.append(message[:TAIL_LINE_CHARS])
        self._write(stream, guess_level(message), message)

    def said(self, level: str, message: str) -> None:
        """One line of the child's own MCP logging (`notifications/message`)."""
        if self._gate.admits(len(message), trio.current_time()):
            self._announce()
            self._write("stdout", level, self.redact(message)[:MAX_LINE_CHARS])

    def system(self, level: str, message: str) -> None:
        """Corral's own word about the instance."""
        self._announce()
        self._write("system", level, self.redact(message))

    def _announce(self) -> None:
        dropped = self._gate.announce()
        if dropped:
            self._write("system", "warning", f"dropped {dropped} lines: the server prints faster than logs are kept")

    def _clean(self, line: bytes) -> str:
        # Four bytes a character at most: decoding more than could be kept would be waste.
        text = self.redact(line[: MAX_LINE_CHARS * 4].decode("utf-8", "backslashreplace"))
        if len(text) > MAX_LINE_CHARS or len(line) > MAX_LINE_CHARS * 4:
            return f"{text[:MAX_LINE_CHARS]} … [cut, {len(line)} bytes]"
        return text

    def _write(self, stream: str, level: str, message: str) -> None:
        self.journal.log(
            LogLine(
                instance_id=self.instance.id,
                at=datetime.now(UTC),
                level=level,
                stream=stream,
                incarnation=self.incarnation,
                message=message,
            )
        )
        data = {"level": level, "stream": stream, "incarnation": self.incarnation, "message": message}
        self.hub.publish_nowait("log", instance_id=self.instance.id, owner=self.instance.owner, data=data)
