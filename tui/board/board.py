"""The fleet as the dashboard knows it: a snapshot, and every event since.

Pure: no clock, no I/O, no widget. `take_fleet` and `take_event` change the board and say what changed, so that only
that is painted again. When the server is away the board stays as it was, and `link` says since when. Nothing that a
server says makes it raise: what is malformed changes nothing.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import define, field, frozen

from tui.board.alerts import Inbox, alert_of, failure_alert, service_alert, watchdog_alert
from tui.board.cells import Cell
from tui.board.link import Link, LinkState
from tui.board.reading import mapping, seconds_of, text, whole
from tui.board.rows import Row, trouble_of
from tui.board.sentences import Narrator

KEPT_EVENTS = 1_000
"""Of the fleet's timeline; older ones are the server's to tell."""
QUIET = frozenset({"sample", "call", "heartbeat", "connected", "log", "notification", ""})
"""Not for the timeline: what comes all the time."""


@frozen
class Happening:
    """One line of the timeline. `said` is what it means, in words; `number` tells it from every other."""

    at: float
    type: str
    instance_id: str
    name: str
    data: Mapping[str, Any] = field(repr=False)
    said: Cell = Cell("")
    number: int = 0


@frozen
class Touched:
    """What a change was about: rows by id, and whether more than they changed (who is there, the link, the alerts)."""

    ids: frozenset[str] = frozenset()
    fleet: bool = False

    def __or__(self, other: Touched) -> Touched:
        return Touched(self.ids | other.ids, self.fleet or other.fleet)

    def __bool__(self) -> bool:
        return bool(self.ids) or self.fleet


NOTHING = Touched()
FLEET = Touched(fleet=True)


@define(eq=False)
class Board:
    """Everything the dashboard shows of the fleet."""

    rows: dict[str, Row] = field(factory=dict, repr=False)
    link: Link = field(factory=Link)
    alerts: Inbox = field(factory=Inbox)
    timeline: deque[Happening] = field(factory=lambda: deque(maxlen=KEPT_EVENTS))
    happened: int = 0
    """Events of the timeline so far, those included that it does not hold any more."""
    health: Mapping[str, Any] = field(factory=dict)
    has_picture: bool = False
    """The fleet was read at least once."""
    gaps: int = 0
    """Breaks after which the server could not replay all; what had changed came with the snapshot."""
    missed: int = 0
    """How many events that were, as far as the server knew."""
    _narrator: Narrator = field(factory=Narrator)

    @property
    def unseen_alerts(self) -> int:
        """How many alerts came in since somebody looked."""
        return len(self.alerts.unseen)

    def by_status(self) -> Counter[str]:
        """How many instances have each status."""
        return Counter(row.status for row in self.rows.values())

    def present(self, ids: Iterable[str]) -> list[Row]:
        """Those of some instances that are still there."""
        return [row for id_ in ids if (row := self.rows.get(id_)) is not None]

    def row_named(self, name: str) -> Row | None:
        """The instance with this id, name or `owner/name`."""
        if name in self.rows:
            return self.rows[name]
        owner, _, bare = name.rpartition("/")
        return next((r for r in self.rows.values() if r.name == bare and owner in {"", r.owner}), None)

    def take_fleet(self, documents: Iterable[Mapping[str, Any]], now: float) -> Touched:
        """Take a snapshot of all instances: what is not in it is gone. One that has failed unnoticed is an alert."""
        had_failed = {row.id for row in self.rows.values() if row.status == "failed"}
        there: dict[str, Row] = {}
        for document in documents:
            id_ = text(mapping(document).get("instance_id"))
            if id_:
                row = there[id_] = self.rows.get(id_) or Row(id=id_)
                row.take_document(document, now)
        self.rows, self.has_picture = there, True
        fresh = [failure_alert(r, now) for r in there.values() if r.status == "failed" and r.id not in had_failed]
        for alert in sorted(fresh, key=lambda alert: alert.at):
            self.alerts.take(alert)
        return FLEET

    def take_health(self, health: Mapping[str, Any], now: float) -> Touched:
        """Take what `/health` says, or a `services` event; a change for the worse or the better is an alert."""
        before, self.health = self.health, health
        alert = service_alert(before, health, now)
        if alert is not None:
            self.alerts.take(alert)
        return FLEET if alert is not None or before != health else NOTHING

    def take_event(self, event: Mapping[str, Any], now: float) -> Touched:
        """Take one event of `GET /events`. `now` stands in where it names no time of its own."""
        members = mapping(event)
        type_, id_ = text(members.get("type")), text(members.get("instance_id"))
        at = seconds_of(members.get("timestamp")) or now
        row = self.rows.get(id_)
        touched = self._apply(type_, id_, members, at)
        if type_ in QUIET:
            return touched
        row = row or self.rows.get(id_)
        name = row.name if row is not None else text(members.get("name"))
        self.happened += 1
        said = self._narrator.tell(type_, id_, members)
        self.timeline.append(Happening(at, type_, id_, name, members, said, self.happened))
        return Touched(touched.ids, fleet=True)

    def take_link(self, state: LinkState, now: float, reason: str = "", attempt: int = 0, hint: str = "") -> Touched:
        """The connection is in another state, or has failed once more."""
        self.link = self.link.to(state, now, reason, attempt, hint)
        return FLEET

    def see_alerts(self) -> Touched:
        """Everything in the inbox has been looked at."""
        self.alerts.see()
        return FLEET

    def dismiss_alerts(self, numbers: Iterable[int]) -> Touched:
        """These need nobody any more."""
        self.alerts.dismiss(numbers)
        return FLEET

    def _apply(self, type_: str, id_: str, event: Mapping[str, Any], at: float) -> Touched:
        match type_:
            case "sample":
                return self._sample(id_, event, at)
            case "status" | "deployed" | "changed":
                return self._status(type_, id_, event, at)
            case "deleted":
                return FLEET if self.rows.pop(id_, None) is not None else NOTHING
            case "post_mortem" | "revision_failed":
                return self._trouble(type_, id_, event, at)
            case "watchdog":
                return self._watchdog(id_, event, at)
            case "gap":
                return self._gap(id_, event)
            case "services":
                return self.take_health({k: v for k, v in event.items() if k in {"status", "services"}}, at)
            case _:
                return NOTHING

    def _sample(self, id_: str, event: Mapping[str, Any], at: float) -> Touched:
        row = self.rows.get(id_)
        if row is None:
            return NOTHING
        row.take_sample(event, at)
        return Touched(frozenset((id_,)))

    def _status(self, type_: str, id_: str, event: Mapping[str, Any], at: float) -> Touched:
        if not id_:
            return NOTHING
        row = self.rows.get(id_)
        is_new = row is None
        if row is None:
            row = self.rows[id_] = Row(id=id_, name=id_)
        if type_ == "status":
            row.take_status(event, at)
        else:
            row.take_outline(event)
        return Touched(frozenset((id_,)), fleet=is_new)

    def _trouble(self, type_: str, id_: str, event: Mapping[str, Any], at: float) -> Touched:
        row = self.rows.get(id_)
        if row is None:
            return NOTHING
        if type_ == "post_mortem":
            row.trouble = trouble_of(event)
        self.alerts.take(alert_of(type_, row, event, at))
        return Touched(frozenset((id_,)), fleet=True)

    def _watchdog(self, id_: str, event: Mapping[str, Any], at: float) -> Touched:
        row = self.rows.get(id_)
        alert = None if row is None else watchdog_alert(row, event, at)
        if alert is None:
            return NOTHING
        self.alerts.take(alert)
        return Touched(frozenset((id_,)), fleet=True)

    def _gap(self, id_: str, event: Mapping[str, Any]) -> Touched:
        if not id_:  # an instance's own is about its log
            self.gaps += 1
            self.missed += max(0, whole(event.get("missed")) or 0)
        return FLEET
