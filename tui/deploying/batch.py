"""Several servers of one `mcpServers` file, deployed one after the other: which are chosen, and what came of each. Pure."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from attrs import define, field

from controlplane.packing.jsonc import read_jsonc
from controlplane.packing.servers import Entry, NotServers, entries_of
from controlplane.wire.text import clean
from tui.board.cells import Cell, Column, Tone

if TYPE_CHECKING:
    from tui.client import Failure

State = Literal["next", "going", "running", "waiting", "skipped", "failed"]
SIGNS: Mapping[State, tuple[str, str, Tone]] = {
    "next": ("·", "to come", "dim"),
    "going": ("◐", "under way", "accent"),
    "running": ("●", "running", "good"),
    "waiting": ("◐", "still starting", "warn"),
    "skipped": ("-", "skipped", "dim"),
    "failed": ("✗", "failed", "bad"),
}


def read_servers(text: str, environ: Mapping[str, str] | None = None) -> list[Entry]:
    """Read a client's file, as pasted.

    Args:
        text: JSON, with comments and trailing commas if there are any.
        environ: Where its `${VARIABLES}` are looked up; absent: our own environment.

    Raises:
        ValueError: it is no JSON, or names no servers; the message says so to a person.
    """
    try:
        document = read_jsonc(text)
    except ValueError as error:
        raise ValueError(f"not valid JSON: {error}") from error
    try:
        return entries_of(document, os.environ if environ is None else environ)
    except NotServers as error:
        raise ValueError(str(error)) from error


def told(entry: Entry) -> str:
    """One server in a line: its command, and the names of its variables."""
    if entry.request is None:
        return clean(entry.reason)
    config = entry.request["mcp_config"]
    arguments = config.get("args")
    words = [str(config["command"]), *(map(str, arguments) if isinstance(arguments, list) else ())]
    variables = config.get("env")
    names = f"   with {' '.join(map(str, variables))}" if isinstance(variables, Mapping) and variables else ""
    return clean(" ".join(words) + names)


@define(eq=False)
class Item:
    """One server on its way."""

    entry: Entry
    state: State = "next"
    note: str = ""
    instance_id: str = ""
    failure: Failure | None = field(default=None, repr=False)

    @property
    def key(self) -> str:
        return self.entry.key


@define(eq=False)
class Batch:
    """All that were chosen, in the order of the file."""

    items: Sequence[Item]
    is_over: bool = False
    is_stopped: bool = False

    def summary(self) -> str:
        """How many came to what."""
        numbers = Counter(item.state for item in self.items)
        return ", ".join(f"{numbers[state]} {word}" for state, (_, word, _) in SIGNS.items() if numbers[state])


def _state(item: Item, _now: float) -> Cell:
    sign, word, tone = SIGNS[item.state]
    return Cell(f"{sign} {word}", tone)


def _note(item: Item, _now: float) -> Cell:
    return Cell(item.note or told(item.entry), "bad" if item.state == "failed" else "dim")


ITEM_COLUMNS: tuple[Column[Item], ...] = (
    Column(key="name", title="NAME", width=18, grows=1, cell=lambda item, _: Cell(clean(item.entry.name), "strong")),
    Column(key="state", title="STATE", width=16, cell=_state),
    Column(key="note", title="", width=20, grows=4, cell=_note),
)
