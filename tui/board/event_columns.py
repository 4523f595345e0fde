"""An instance's timeline: what the server kept and what came since, in one order, each told in words. Pure."""

from __future__ import annotations

import json
from bisect import insort
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal

from attrs import define, field, frozen

from controlplane.wire.text import clean, clean_lines
from tui.board.cells import Cell, Column
from tui.board.reading import mapping, seconds_of
from tui.board.sentences import OWN, SIGNS, Narrator

KEPT_ENTRIES = 5_000
"""Of one instance's timeline in memory, about 5 MB; the server keeps the rest."""
SHOWN_LINES = 2_000
"""Of one event's data: a server's notification may be of any size."""

Kind = Literal["all", "trouble", "states", "changes", "messages"]
KINDS: Mapping[Kind, frozenset[str]] = {
    "all": frozenset(),
    "trouble": frozenset({"post_mortem", "revision_failed", "watchdog", "gap", "lagged", "shutdown"}),
    "states": frozenset({"status", "deployed", "deleted"}),
    "changes": frozenset({"deployed", "changed", "deleted", "tools_changed", "revision_failed"}),
    "messages": frozenset({"notification", "log"}),
}
"""What a press of `e` goes through; a failed status is trouble as well."""


@frozen(order=False)
class Entry:
    """One line: when, what, and what it means. `key` is the same wherever the event was heard."""

    key: str
    at: float
    type: str
    data: Mapping[str, Any] = field(repr=False)
    said: Cell = Cell("")

    @property
    def is_trouble(self) -> bool:
        return self.type in KINDS["trouble"] or self.said.tone == "bad"


@define
class Timeline:
    """Entries, oldest first, each once however often it is told."""

    instance_id: str
    entries: list[Entry] = field(factory=list)
    _known: set[str] = field(factory=set)
    _narrator: Narrator = field(factory=Narrator)

    def take_page(self, documents: Iterable[Mapping[str, Any]]) -> int:
        """Take a page of `GET …/events`, in any order with what is here; returns how many were new."""
        found = [_entry(clean(d.get("type") or ""), d.get("timestamp"), mapping(d.get("data")), 0.0) for d in documents]
        return self._take(found)

    def take_live(self, type_: str, at: float, event: Mapping[str, Any]) -> bool:
        """Take an event of the stream; False when it is known."""
        data = {name: value for name, value in event.items() if name not in OWN or (name == "name")}
        return self._take([_entry(type_, event.get("timestamp"), data, at)]) > 0

    def _take(self, found: list[Entry]) -> int:
        fresh = {entry.key: entry for entry in found if entry.key not in self._known}
        if not fresh:
            return 0
        newest = self.entries[-1].at if self.entries else float("-inf")
        in_order = sorted(fresh.values(), key=_when)
        if in_order[0].at >= newest:
            self.entries += [self._told(entry) for entry in in_order]
        else:
            for entry in in_order:
                insort(self.entries, entry, key=_when)
            self._narrator = Narrator()
            self.entries = [self._told(entry) for entry in self.entries]
        self._known |= fresh.keys()
        for entry in self.entries[:-KEPT_ENTRIES]:
            self._known.discard(entry.key)
        del self.entries[:-KEPT_ENTRIES]
        return len(fresh)

    def _told(self, entry: Entry) -> Entry:
        said = self._narrator.tell(entry.type, self.instance_id, entry.data)
        return Entry(entry.key, entry.at, entry.type, entry.data, said)

    def chosen(self, kind: Kind, text: str) -> list[Entry]:
        """The entries of a kind that fit a filter: words of type and sentence, `!word` for without, `type:word`."""
        tests = [_word(word) for word in text.lower().split()]
        return [e for e in self.entries if _is_of(e, kind) and all(test(e) for test in tests)]


def _entry(type_: str, timestamp: object, data: Mapping[str, Any], at: float) -> Entry:
    """The live event and the kept one have the same time, type and members, so they get the same key."""
    try:
        canonical = json.dumps(data, sort_keys=True, default=str)
    except (TypeError, ValueError, RecursionError):
        canonical = ""
    key = f"{timestamp} {type_} {hash(canonical):x}"
    return Entry(key, seconds_of(timestamp) or at, type_, data)


def _when(entry: Entry) -> float:
    return entry.at


def _is_of(entry: Entry, kind: Kind) -> bool:
    if kind == "all":
        return True
    return entry.is_trouble if kind == "trouble" else entry.type in KINDS[kind]


def _word(word: str) -> Any:
    if word.startswith("type:"):
        wanted = word.removeprefix("type:")
        return lambda entry: entry.type.startswith(wanted)
    if word.startswith("!"):
        unwanted = word[1:]
        return lambda entry: not unwanted or unwanted not in _haystack(entry)
    return lambda entry: word in _haystack(entry)


def _haystack(entry: Entry) -> str:
    return f"{entry.type} {entry.said.text}".lower()


def data_lines(entry: Entry) -> list[str]:
    """An event's members as indented JSON, clean and bounded."""
    try:
        text = json.dumps(entry.data, indent=2, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError) as error:
        text = f"This cannot be shown: {type(error).__name__}"
    lines = clean_lines(text)
    if len(lines) > SHOWN_LINES:
        lines = [*lines[:SHOWN_LINES], f"… {(more := len(lines) - SHOWN_LINES):,} line{'s' * (more != 1)} more"]
    return lines


def moment(at: float, now: float) -> str:
    """Local time of day; the date before it where that is not today's."""
    when = datetime.fromtimestamp(at).astimezone()
    today = datetime.fromtimestamp(now).astimezone().date()
    return when.strftime("%H:%M:%S" if when.date() == today else "%b %d %H:%M:%S")


EVENT_COLUMNS: tuple[Column[Entry], ...] = (
    Column(key="at", title="TIME", width=15, cell=lambda e, now: Cell(moment(e.at, now), "dim")),
    Column(key="type", title="TYPE", width=15, spare=1, cell=lambda e, _: Cell(e.type, "dim")),
    Column(key="sign", title="", width=1, cell=lambda e, _: Cell(SIGNS[e.said.tone], e.said.tone)),
    Column(key="said", title="WHAT HAPPENED", width=50, grows=1, cell=lambda e, _: Cell(e.said.text, e.said.tone)),
)
