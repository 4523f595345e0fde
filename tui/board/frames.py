"""JSON-RPC messages as they passed: kept within bounds, filtered, paired, and as columns of a table. Pure."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from attrs import define, field, frozen

from controlplane.wire.text import clean, clean_json
from controlplane.wire.units import count, millis
from tui.board.cells import Cell, Column, Tone
from tui.board.reading import number, seconds_of, whole

KEPT_FRAMES = 5_000
KEPT_CHARS = 16 * 2**20
"""Of all messages together: at 64 Ki each, the number alone would be no bound."""
HEAD_CHARS = 240
"""Of a message's text in the table: as much as the widest terminal has room for."""

SIGNS: dict[str, tuple[str, Tone]] = {
    "request": ("?", "accent"),
    "response": ("✓", "good"),
    "error": ("✗", "bad"),
    "notification": ("·", ""),
    "noise": ("!", "warn"),
    "gap": ("…", "warn"),
}
"""Sign and tone of a kind; its word always stands beside the sign."""
_GIST = re.compile(r'"(?:params|result|error)"\s*:\s*')
ARROWS = {"to_server": "→", "from_server": "←", "": " "}
ANSWERS = frozenset({"response", "error"})


@frozen(kw_only=True)
class Frame:
    """One message, or (`gap`) a word about those that were not seen. `text` is as it came: `clean` what is shown of it."""

    key: str
    at: float
    direction: str = ""
    kind: str
    method: str = ""
    id: str = ""
    lane: str = ""
    pid: int = 0
    incarnation: int = 0
    ms: float | None = None
    size: int = 0
    text: str = field(default="", repr=False)
    is_cut: bool = False
    head: str = field(default="", repr=False)


@frozen
class Wanted:
    """What the filter lets through: words in method, kind, id or text; `!word` leaves out what has it."""

    text: str = ""
    direction: str = ""

    def wants(self, frame: Frame) -> bool:
        """Whether a message is shown; what was not seen always is."""
        if frame.kind == "gap":
            return True
        return self.direction in {"", frame.direction} and all(_has(frame, word) for word in self.text.lower().split())


def _has(frame: Frame, word: str) -> bool:
    needle = word.removeprefix("!")
    short = (frame.method, frame.kind, frame.lane, frame.id)
    found = any(needle in part.lower() for part in short) or needle in frame.text.lower()
    return not needle or found != word.startswith("!")


@define(eq=False)
class FrameBuffer:
    """The newest messages, oldest first, within both bounds."""

    kept: int = KEPT_FRAMES
    kept_chars: int = KEPT_CHARS
    frames: deque[Frame] = field(factory=deque, init=False)
    let_go: int = field(default=0, init=False)
    """Messages that had to make room."""
    passed: int = field(default=0, init=False)
    """Messages since the last clearing, those that had to make room included."""
    _chars: int = field(default=0, init=False)
    _keys: int = field(default=0, init=False)

    def take(self, event: Mapping[str, Any]) -> None:
        """Take a `wire` event."""
        self.passed += 1
        self._append(self._read(event))

    def note_gap(self, text: str, at: float) -> None:
        """Say, between the messages, that some were not seen."""
        self._append(Frame(key=self._key(), at=at, kind="gap", text=text, head=clean(text)))

    def clear(self) -> None:
        self.frames.clear()
        self._chars = self.let_go = self.passed = 0

    def wanted(self, wanted: Wanted) -> list[Frame]:
        return [frame for frame in self.frames if wanted.wants(frame)]

    def counterpart(self, frame: Frame) -> Frame | None:
        """The answer of a request, or the request of an answer; None while it has not passed, or is gone."""
        if not frame.id or frame.kind not in {"request", *ANSWERS}:
            return None
        asks = frame.kind == "request"
        where = list(self.frames)
        if frame not in where:
            return None
        at = where.index(frame)
        others = where[at + 1 :] if asks else reversed(where[:at])
        return next((other for other in others if _belong(frame, other, asks=asks)), None)

    def _append(self, frame: Frame) -> None:
        self.frames.append(frame)
        self._chars += len(frame.text)
        while len(self.frames) > self.kept or (self._chars > self.kept_chars and len(self.frames) > 1):
            self._chars -= len(self.frames.popleft().text)
            self.let_go += 1

    def _key(self) -> str:
        self._keys += 1
        return str(self._keys)

    def _read(self, event: Mapping[str, Any]) -> Frame:
        text, id_ = str(event.get("frame") or ""), event.get("id")
        return Frame(
            key=self._key(),
            at=seconds_of(event.get("timestamp")) or 0.0,
            direction=direction if (direction := clean(event.get("direction") or "")) in ARROWS else "",
            kind=kind if (kind := clean(event.get("kind") or "")) in SIGNS else "noise",
            method=clean(event.get("method") or ""),
            id="" if id_ is None else clean_json(json.dumps(id_).encode()),  # still JSON: it is exported
            lane=clean(event.get("lane") or ""),
            pid=whole(event.get("pid")) or 0,
            incarnation=whole(event.get("incarnation")) or 0,
            ms=number(event.get("ms")),
            size=whole(event.get("size_bytes")) or 0,
            text=text,
            is_cut=bool(event.get("truncated")),
            head=clean(gist(text)[:HEAD_CHARS]),
        )


def gist(text: str) -> str:
    """What a message says, without the members that stand in other columns; the whole of it if that is not clear."""
    found = _GIST.search(text, 0, HEAD_CHARS)
    return text[found.end() :] if found is not None else text


def _belong(frame: Frame, other: Frame, *, asks: bool) -> bool:
    return (
        other.id == frame.id
        and (other.lane, other.pid) == (frame.lane, frame.pid)
        and other.direction != frame.direction
        and (other.kind in ANSWERS if asks else other.kind == "request")
    )


def time_of(at: float) -> str:
    """The time of day here, to the millisecond."""
    moment = datetime.fromtimestamp(at)
    return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}" if at else ""


def exported(frame: Frame) -> str:
    """A message as a line of JSON: what was told of it, and its text."""
    document = {
        "timestamp": datetime.fromtimestamp(frame.at).astimezone().isoformat(timespec="milliseconds"),
        "direction": frame.direction or None,
        "kind": frame.kind,
        "method": frame.method or None,
        "id": json.loads(frame.id) if frame.id else None,
        "lane": frame.lane or None,
        "pid": frame.pid or None,
        "incarnation": frame.incarnation,
        "ms": frame.ms,
        "size_bytes": frame.size,
        "truncated": frame.is_cut,
        "frame": frame.text,
    }
    return json.dumps(document)  # ASCII: whoever prints the file is obeyed by no character of it


def detail(frame: Frame) -> Iterator[tuple[str, Tone]]:
    """A message in full, as lines with a tone: a heading, then its JSON indented, or its text as it came."""
    if frame.kind == "gap":
        yield frame.head, "warn"
        return
    sign, tone = SIGNS[frame.kind]
    facts = [
        f"{ARROWS[frame.direction]} {sign} {frame.kind}",
        frame.method,
        f"id {frame.id}" if frame.id else "",
        f"{frame.lane} pid {frame.pid}",
        millis(frame.ms) if frame.ms is not None else "",
        f"{frame.size:,} bytes",
        time_of(frame.at),
    ]
    yield "  ".join(fact for fact in facts if fact), tone or "strong"
    for line in pretty(frame.text):
        yield line, ""
    if frame.is_cut:
        yield f"… cut: {frame.size:,} bytes passed", "warn"


def pretty(text: str) -> list[str]:
    """JSON indented, members in their order; what is no JSON stays as it is. Every line is clean."""
    try:
        shown = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        shown = text
    return [clean(line) for line in shown.split("\n")]


def _kind(frame: Frame, _now: float) -> Cell:
    sign, tone = SIGNS[frame.kind]
    return Cell(f"{sign} {frame.kind}", tone)


def _ms(frame: Frame, _now: float) -> Cell:
    return Cell("" if frame.ms is None else millis(frame.ms))


FRAME_COLUMNS: tuple[Column[Frame], ...] = (
    Column(key="time", title="TIME", width=12, spare=3, cell=lambda f, _: Cell(time_of(f.at), "dim")),
    Column(key="direction", title="", width=1, cell=lambda f, _: Cell(ARROWS[f.direction], "strong")),
    Column(key="kind", title="KIND", width=14, cell=_kind),
    Column(key="method", title="METHOD", width=14, grows=1, cell=lambda f, _: Cell(f.method)),
    Column(key="id", title="ID", width=6, right=True, cell=lambda f, _: Cell(f.id, "dim")),
    Column(key="lane", title="LANE", width=8, spare=4, cell=lambda f, _: Cell(f.lane, "dim")),
    Column(key="ms", title="TOOK", width=6, right=True, cell=_ms),
    Column(key="size", title="BYTES", width=6, right=True, cell=lambda f, _: Cell(count(f.size) if f.size else "", "dim")),
    Column(key="head", title="MESSAGE", width=8, grows=4, spare=1, cell=lambda f, _: Cell(f.head, "warn" if f.kind == "gap" else "dim")),
)  # fmt: skip
