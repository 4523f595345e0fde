"""What deserves a person's attention, made from events, and the inbox that keeps it. Pure.

An alert is a crash, a start that failed, a crash loop, an end by a watchdog or its warning, a revision that did not take
over, or a service that is away. It stays in the inbox after its cause is mended; that a service is back, or that what was
warned of is over, is told as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from attrs import define, evolve, field, frozen

from tui.board.reading import mapping, text, whole

if TYPE_CHECKING:
    from tui.board.rows import Row

Weight = Literal["bad", "warn", "good"]
WELL = frozenset({"connected", "healthy"})
"""What `/health` says of a service that is there."""
SERVICES: Mapping[str, str] = {"postgres": "Postgres", "redis": "Redis", "mcp_manager": "instances"}
"""What people call the services of `/health`."""
WITHOUT: Mapping[str, str] = {
    "postgres": "calls go on, changes are refused until it is back",
    "redis": "calls go on",
}
"""What it means that a service is away."""
KEPT = 500
"""Alerts in the inbox; a fleet with more that differ has one cause, and it is among the newest."""
SAME_S = 2.0
"""Between an event and what a snapshot says of the same failure; and between the last exit and the end of its loop."""
CRASH_LOOP = "crash_loop"
"""The code of the post-mortem that says that no restart follows; the last exit's own comes just before it."""


@frozen(kw_only=True)
class Alert:
    """One entry of the inbox; `instance_id` is empty where it is about the control plane itself.

    `number` grows with each that comes in, `times` says how often the same happened since it was dismissed.
    """

    at: float
    weight: Weight
    code: str
    text: str
    instance_id: str = ""
    name: str = ""
    incarnation: int = 0
    number: int = 0
    times: int = 1

    def ends_with(self, last: Alert) -> bool:
        """Whether this tells that a crash loop was given up, and `last` of its last exit, which it tells of too."""
        if self.code != CRASH_LOOP or last.code == CRASH_LOOP or last.weight != "bad":
            return False
        is_one = self.instance_id == last.instance_id and abs(self.at - last.at) < SAME_S
        return is_one and (self.text.endswith(last.text) or 0 < self.incarnation == last.incarnation)

    @property
    def subject(self) -> tuple[str, str]:
        """What it is about: of these there is one entry."""
        return self.instance_id, self.code


@define(eq=False)
class Inbox:
    """Alerts by what they are about, the newest last. What comes again moves to the end and counts up."""

    _alerts: dict[tuple[str, str], Alert] = field(factory=dict)
    _first: dict[tuple[str, str], float] = field(factory=dict)
    """When the oldest of what an entry counts happened."""
    taken: int = 0
    """Alerts so far, dismissed ones included."""
    seen: int = 0
    """Of these, how many had been looked at."""
    has_earlier: bool = False
    """What the server kept from before was put in."""

    def __iter__(self) -> Iterator[Alert]:
        return iter(self._alerts.values())

    def __len__(self) -> int:
        return len(self._alerts)

    @property
    def unseen(self) -> list[Alert]:
        """What came in since the inbox was looked at, oldest first."""
        return [alert for alert in self._alerts.values() if alert.number > self.seen]

    def take(self, alert: Alert) -> bool:
        """Put one in; False where it is there already, as an event and a snapshot both tell of it.

        The end of a crash loop takes the place of its exits.
        """
        if any(loop.ends_with(alert) for loop in self._alerts.values()):
            return False
        for subject in [last.subject for last in self._alerts.values() if alert.ends_with(last)]:
            del self._alerts[subject], self._first[subject]
        before = self._alerts.get(alert.subject)
        if before is not None and before.text == alert.text and abs(before.at - alert.at) < SAME_S:
            return False
        self._alerts.pop(alert.subject, None)
        self.taken += 1
        times = 1 if before is None else before.times + 1
        self._alerts[alert.subject] = evolve(alert, number=self.taken, times=times)
        if before is None:
            self._first[alert.subject] = alert.at
        if len(self._alerts) > KEPT:
            oldest = next(iter(self._alerts))
            del self._alerts[oldest], self._first[oldest]
        return True

    def take_earlier(self, alerts: Iterable[Alert]) -> None:
        """Put in what the server kept, oldest first, before everything else and as looked at."""
        self.has_earlier = True
        earlier: dict[tuple[str, str], Alert] = {}
        for place, alert in enumerate(alerts):
            if alert.at > self._first.get(alert.subject, float("inf")) - SAME_S:
                continue  # heard of already, and counted
            if any(loop.ends_with(alert) for loop in self._alerts.values()):
                earlier.pop(alert.subject, None)  # the exits before it were of the same loop
                continue
            earlier = {subject: last for subject, last in earlier.items() if not alert.ends_with(last)}
            before = earlier.pop(alert.subject, None)
            earlier[alert.subject] = evolve(alert, number=place - KEPT, times=1 if before is None else before.times + 1)
        for subject, live in self._alerts.items():
            before = earlier.pop(subject, None)
            earlier[subject] = live if before is None else evolve(live, times=live.times + before.times)
        self._alerts = dict(list(earlier.items())[-KEPT:])
        self._first = {subject: self._first.get(subject, alert.at) for subject, alert in self._alerts.items()}

    def see(self) -> None:
        """All of it has been looked at."""
        self.seen = self.taken

    def dismiss(self, numbers: Iterable[int]) -> None:
        """Take entries out."""
        gone = set(numbers)
        self._alerts = {subject: alert for subject, alert in self._alerts.items() if alert.number not in gone}
        self._first = {subject: at for subject, at in self._first.items() if subject in self._alerts}


def alert_of(type_: str, row: Row, event: Mapping[str, Any], at: float) -> Alert:
    """Make the alert of a `post_mortem` or `revision_failed` event."""
    code, reason = text(event.get("code")) or type_, text(event.get("reason"))
    if type_ == "revision_failed":
        reason = f"revision {whole(event.get('revision')) or '?'} did not take over: {reason}"
    weight: Weight = "warn" if type_ == "revision_failed" else "bad"
    return Alert(
        at=at,
        weight=weight,
        code=code,
        text=reason,
        instance_id=row.id,
        name=row.name,
        incarnation=row.incarnation,
    )


def watchdog_alert(row: Row, event: Mapping[str, Any], at: float) -> Alert | None:
    """Make the alert of a warning, and of its end; None for what a post-mortem tells of as well."""
    step, what = text(event.get("step")), text(event.get("what"))
    if step not in ("warn", "calm"):
        return None
    return Alert(
        at=at,
        weight="warn" if step == "warn" else "good",
        code=f"watchdog_{what}" if what else "watchdog",
        text=f"it {text(event.get('reason')) or 'gives no reason'}",
        instance_id=row.id,
        name=row.name,
        incarnation=row.incarnation,
    )


def failure_alert(row: Row, now: float) -> Alert:
    """Make the alert of an instance that a snapshot says has failed."""
    trouble = row.trouble
    return Alert(
        at=trouble.at or now if trouble is not None else now,
        weight="bad",
        code=trouble.code if trouble is not None else "failed",
        text=trouble.reason if trouble is not None else "it failed; why is not known",
        instance_id=row.id,
        name=row.name,
        incarnation=row.incarnation,
    )


def service_alert(before: Mapping[str, Any], after: Mapping[str, Any], now: float) -> Alert | None:
    """Say what changed between two answers of `/health`; None for nothing, or when the first one is all well."""
    were, are = mapping(before.get("services")), mapping(after.get("services"))
    status = text(after.get("status")) or "unknown"
    changed = [_told(name, word) for name, word in sorted(are.items()) if word != were.get(name, _fine(word))]
    if (text(before.get("status")) or "healthy") == status and not changed:
        return None
    weight: Weight = "good" if status == "healthy" else "bad" if status == "unhealthy" else "warn"
    if not before and weight == "good":
        return None
    return Alert(at=now, weight=weight, code=f"control_plane_{status}", text=", ".join(changed) or status)


def _told(name: str, word: object) -> str:
    said = f"{SERVICES.get(name, text(name))} {text(word)}"
    return f"{said}: {WITHOUT[name]}" if word == "disconnected" and name in WITHOUT else said


def _fine(word: object) -> str:
    """What a service is taken to have been before anything was heard of it: well, so that only trouble is news."""
    return word if isinstance(word, str) and word in WELL else "connected"
