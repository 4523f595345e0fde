"""What happened before the dashboard began to listen, from `GET /events/history`, as alerts and as a timeline. Pure.

The server answers newest first; the board wants the oldest first, and each thing once though it was heard live too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import evolve

from tui.board.alerts import Alert, alert_of, service_alert, watchdog_alert
from tui.board.board import QUIET, Happening
from tui.board.reading import mapping, seconds_of, text
from tui.board.rows import Row
from tui.board.sentences import Narrator

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TROUBLE = ("post_mortem", "revision_failed", "watchdog", "services")
"""What alerts are made of."""


def earlier_alerts(documents: Iterable[Any]) -> list[Alert]:
    """Alerts of kept events, oldest first."""
    found: list[Alert] = []
    health: dict[str, Any] = {}
    for document in reversed(list(documents)):
        members = mapping(document)
        type_, data, at = text(members.get("type")), mapping(members.get("data")), seconds_of(members.get("timestamp"))
        if at is None:
            continue
        if type_ == "services":
            alert = service_alert(health, data, at)
            health = dict(data)
            found += [alert] if alert is not None else []
        elif type_ in TROUBLE:
            id_ = text(members.get("instance_id"))
            row = Row(id=id_, name=text(members.get("name")) or id_)
            told = watchdog_alert(row, data, at) if type_ == "watchdog" else alert_of(type_, row, data, at)
            found += [told] if told is not None else []
    return found


def earlier_happenings(documents: Iterable[Any], known: Sequence[Happening]) -> list[Happening]:
    """Lines of the timeline that come before the first one known, oldest first; their numbers are below zero."""
    end = known[0].at if known else float("inf")
    narrator = Narrator()
    found: list[Happening] = []
    for document in reversed(list(documents)):
        members = mapping(document)
        type_, data, at = text(members.get("type")), mapping(members.get("data")), seconds_of(members.get("timestamp"))
        id_ = text(members.get("instance_id"))
        if at is None or type_ in QUIET:
            continue
        said = narrator.tell(type_, id_, data)
        if at < end:
            found.append(Happening(at, type_, id_, text(members.get("name")) or id_, data, said))
    return [evolve(happening, number=place - len(found)) for place, happening in enumerate(found)]
