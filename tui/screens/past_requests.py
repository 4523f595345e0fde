"""The requests that were sent to an instance from here: send one again, edit it, give it a name, forget it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType

from controlplane.wire.text import clean
from controlplane.wire.units import duration, millis
from tui.board.cells import Cell, Column
from tui.inspector import history
from tui.inspector.jsontext import compact
from tui.screens.choosing import NameScreen, PickScreen
from tui.working import set_to_work

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tui.inspector.desk import Desk
    from tui.inspector.history import Entry

PREVIEW_CHARS = 200


def _when(entry: Entry, now: float) -> Cell:
    return Cell(duration(max(0.0, now - entry.at)), "dim")


def _name(entry: Entry, _now: float) -> Cell:
    return Cell(clean(entry.name), "accent")


def _what(entry: Entry, _now: float) -> Cell:
    return Cell(clean(entry.subject or entry.method), "strong")


def _arguments(entry: Entry, _now: float) -> Cell:
    if entry.cut:
        return Cell("too long to keep", "dim")
    given = entry.params or {}
    return Cell(clean(compact(given.get("arguments", given))[:PREVIEW_CHARS]), "dim")


def _came_to(entry: Entry, _now: float) -> Cell:
    good = entry.came_to == "result"
    sign = "✓" if good else "✗"
    return Cell(f"{sign} {clean(entry.came_to)} {millis(entry.elapsed_s * 1000)}", "good" if good else "bad")


COLUMNS: tuple[Column[Entry], ...] = (
    Column(key="when", title="AGO", width=8, cell=_when, right=True),
    Column(key="name", title="SAVED AS", width=14, cell=_name, spare=1),
    Column(key="what", title="REQUEST", width=18, cell=_what),
    Column(key="arguments", title="ARGUMENTS", width=16, cell=_arguments, grows=1),
    Column(key="came", title="CAME TO", width=18, cell=_came_to, spare=2),
)


class PastRequestsScreen(PickScreen["Entry"]):
    """Dismissed with the key of a request that is to be loaded into the form; `repeat:` before it: sent at once."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+e", "edit", "Edit", priority=True),
        Binding("f5,ctrl+j", "repeat", "Send again", priority=True),
        Binding("ctrl+n", "name", "Save under a name", priority=True),
        Binding("f8", "name", "Save under a name", priority=True, show=False),
        Binding("ctrl+d", "forget", "Forget", priority=True),
    ]
    FOOT = "enter edit · F5 send again · ctrl+n name it · ctrl+d forget"

    def __init__(self, desk: Desk, place: str, instance: str) -> None:
        super().__init__(
            f"Sent to {instance}", COLUMNS, _key, self._fitting, empty="Nothing was sent yet", foot=self.FOOT
        )
        self._desk, self._place = desk, place

    def entry(self, key: str) -> Entry | None:
        """The request of a key."""
        return next((entry for entry in self._entries() if _key(entry) == key), None)

    def _entries(self) -> Sequence[Entry]:
        return self._desk.histories.get(self._place, [])

    def _fitting(self, text: str) -> Sequence[Entry]:
        words = text.lower().split()
        return [
            e for e in self._entries() if all(w in f"{e.name} {e.method} {compact(e.params)}".lower() for w in words)
        ]

    def action_edit(self) -> None:
        self.grid.action_choose()

    def action_repeat(self) -> None:
        if self.grid.current is not None:
            self.dismiss(f"repeat:{_key(self.grid.current)}")

    def action_name(self) -> None:
        entry = self.grid.current
        if entry is not None:
            set_to_work(self, partial(self._give_name, entry))

    async def _give_name(self, entry: Entry) -> None:
        name = await self.app.push_screen_wait(NameScreen("Save this request as", entry.name, "empty: no name"))
        if name is not None:
            await self._change(lambda found: history.named(found, self._place, _again(found, self._place, entry), name))

    def action_forget(self) -> None:
        entry = self.grid.current
        if entry is not None:

            def without(found: dict[str, list[Entry]]) -> dict[str, list[Entry]]:
                return history.removed(found, self._place, _again(found, self._place, entry))

            set_to_work(self, partial(self._change, without))

    async def _change(self, how: Callable[[dict[str, list[Entry]]], dict[str, list[Entry]]]) -> None:
        wrong = await self._desk.change(how)
        if wrong:
            self.notify(f"The history was not written: {clean(wrong)}", severity="warning", markup=False)
        self.show_rows()


def _key(entry: Entry) -> str:
    return f"{entry.at:.6f} {entry.method} {compact(entry.params)[:PREVIEW_CHARS]}"


def _again(found: dict[str, list[Entry]], place: str, entry: Entry) -> Entry:
    """The same request as it was just read."""
    return next((one for one in found.get(place, []) if _key(one) == _key(entry)), entry)
