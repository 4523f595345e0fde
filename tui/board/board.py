"""The fleet as the dashboard knows it: a snapshot, and every event since.

Pure: no clock, no I/O, no widget. `take_fleet` and `take_event` change the board and say what changed, so that only
that is painted again. When the server is away the board stays as it was, and `link` says since when.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from attrs import define, evolve, field, frozen

from controlplane.wire.text import clean
from tui.board.alerts import Alert, alert_of, fleet_alerts, service_alert
from tui.board.rows import Row, seconds_of, trouble_of

KEPT_ALERTS = 500
KEPT_EVENTS = 1_000
"""Of the fleet's timeline; older ones are the server's to tell."""

LinkState = Literal["connecting", "live", "away", "refused"]
QUIET = frozenset({"sample", "call", "heartbeat", "connected", "log", "notification"})
"""Not for the timeline: what comes all the time."""


@frozen
class Link:
    """The connection to the control plane. `since` is when it came to be so, in seconds since the epoch."""

    state: LinkState = "connecting"
    since: float = 0.0
    reason: str = ""
    attempt: int = 0


@frozen
class Happening:
    """One line of the timeline."""

    at: float
    type: str
    instance_id: str
    name: str
    data: Mapping[str, Any] = field(repr=False)


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

    rows: dict[str, Row] = field(factory=dict)
    link: Link = field(factory=Link)
    alerts: deque[Alert] = field(factory=lambda: deque(maxlen=KEPT_ALERTS))
    timeline: deque[Happening] = field(factory=lambda: deque(maxlen=KEPT_EVENTS))
    health: Mapping[str, Any] = field(factory=dict)
    missed: int = 0
    """Events that the server could not replay after a break; what they changed came with the snapshot."""
    seen_alerts: int = 0
    """Of all alerts so far, how many have been looked at."""
    all_alerts: int = 0

    @property
    def unseen_alerts(self) -> int:
        return max(0, self.all_alerts - self.seen_alerts)

    def by_status(self) -> Counter[str]:
        """How many instances have each status."""
        return Counter(row.status for row in self.rows.values())

    def row_named(self, name: str) -> Row | None:
        """The instance with this id, name or `owner/name`."""
        if name in self.rows:
            return self.rows[name]
        owner, _, bare = name.rpartition("/")
        return next((r for r in self.rows.values() if r.name == bare and owner in {"", r.owner}), None)

    def take_fleet(self, documents: Iterable[Mapping[str, Any]], now: float) -> Touched:
        """Take a snapshot of all instances: what is not in it is gone."""
        there: dict[str, Row] = {}
        for document in documents:
            id_ = clean(document["instance_id"])
            row = there[id_] = self.rows.get(id_) or Row(id=id_)
            row.take_document(document, now)
        first = not self.rows and not self.all_alerts
        self.rows = there
        if first:
            for alert in fleet_alerts(there.values()):
                self._alert(alert)
        return FLEET

    def take_health(self, health: Mapping[str, Any], now: float) -> Touched:
        """Take what `/health` says, or a `services` event; a change for the worse or the better is an alert."""
        before, self.health = self.health, health
        alert = service_alert(before, health, now)
        if alert is not None:
            self._alert(alert)
        return FLEET if before != health else NOTHING

    def take_event(self, event: Mapping[str, Any], now: float) -> Touched:
        """Take one event of `GET /events`. `now` stands in where it names no time of its own."""
        type_ = event.get("type", "")
        at = seconds_of(event.get("timestamp")) or now
        id_ = event.get("instance_id") or ""
        touched = self._apply(type_, id_, event, at)
        if type_ not in QUIET:
            row = self.rows.get(id_)
            name = row.name if row is not None else clean(event.get("name") or "")
            self.timeline.append(Happening(at, clean(type_), id_, name, event))
        return touched

    def take_link(self, state: LinkState, now: float, reason: str = "", attempt: int = 0) -> Touched:
        """The connection is in another state; it keeps its time while the state stays."""
        if state == self.link.state:
            self.link = evolve(self.link, reason=reason, attempt=attempt)
        else:
            self.link = Link(state, now, reason, attempt)
        return FLEET

    def see_alerts(self) -> None:
        """Everything in the inbox has been looked at."""
        self.seen_alerts = self.all_alerts

    def _apply(self, type_: str, id_: str, event: Mapping[str, Any], at: float) -> Touched:
        match type_:
            case "sample":
                return self._sample(id_, event, at)
            case "status" | "deployed" | "changed":
                return self._status(id_, event, at)
            case "deleted":
                return FLEET if self.rows.pop(id_, None) is not None else NOTHING
            case "post_mortem" | "revision_failed":
                return self._trouble(type_, id_, event, at)
            case "gap":
                missed = event.get("missed")
                self.missed += missed if isinstance(missed, int) else 0
                return FLEET
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

    def _status(self, id_: str, event: Mapping[str, Any], at: float) -> Touched:
        if not id_:
            return NOTHING
        row = self.rows.get(id_)
        is_new = row is None
        if row is None:
            row = self.rows[id_] = Row(id=id_)
        if isinstance(labels := event.get("labels"), Mapping):
            row.labels = {clean(k): clean(v) for k, v in labels.items()}
        if "status" in event:
            row.take_status(event, at)
        elif isinstance(name := event.get("name"), str):
            row.name = clean(name)
        return FLEET if is_new else Touched(frozenset((id_,)))

    def _trouble(self, type_: str, id_: str, event: Mapping[str, Any], at: float) -> Touched:
        row = self.rows.get(id_)
        if row is None:
            return NOTHING
        if type_ == "post_mortem":
            row.trouble = trouble_of(event)
        self._alert(alert_of(type_, row, event, at))
        return Touched(frozenset((id_,)), fleet=True)

    def _alert(self, alert: Alert) -> None:
        self.alerts.append(alert)
        self.all_alerts += 1
