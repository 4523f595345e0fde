"""What deserves a person's attention, made from events. Pure.

An alert is a crash, a start that failed, a crash loop, a kill by a watchdog, a revision that did not take over, or a
service that is away. It stays in the inbox after its cause is mended; what mends a service is told as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from attrs import frozen

from controlplane.wire.text import clean

if TYPE_CHECKING:
    from tui.board.rows import Row

Weight = Literal["bad", "warn", "good"]
WELL = frozenset({"connected", "healthy"})
"""What `/health` says of a service that is there."""


@frozen(kw_only=True)
class Alert:
    """One entry of the inbox; `instance_id` is empty where it is about the control plane itself."""

    at: float
    weight: Weight
    code: str
    text: str
    instance_id: str = ""
    name: str = ""


def alert_of(type_: str, row: Row, event: Mapping[str, Any], at: float) -> Alert:
    """Make the alert of a `post_mortem` or `revision_failed` event."""
    code, reason = clean(event.get("code") or type_), clean(event.get("reason") or "")
    if type_ == "revision_failed":
        reason = f"revision {event.get('revision')} did not take over: {reason}"
    weight: Weight = "warn" if type_ == "revision_failed" else "bad"
    return Alert(at=at, weight=weight, code=code, text=reason, instance_id=row.id, name=row.name)


def fleet_alerts(rows: Iterable[Row]) -> Iterator[Alert]:
    """What is wrong when the dashboard opens: each instance that has failed, oldest first."""
    failed = [row for row in rows if row.status == "failed" and row.trouble is not None]
    for row in sorted(failed, key=lambda row: (row.trouble.at if row.trouble else None) or 0.0):
        trouble = row.trouble
        assert trouble is not None
        yield Alert(
            at=trouble.at or 0.0,
            weight="bad",
            code=trouble.code,
            text=trouble.reason,
            instance_id=row.id,
            name=row.name,
        )


def service_alert(before: Mapping[str, Any], after: Mapping[str, Any], now: float) -> Alert | None:
    """Say what changed between two answers of `/health`; None for nothing, or when the first one is all well."""
    were, are = before.get("services") or {}, after.get("services") or {}
    status = clean(after.get("status") or "")
    changed = [
        f"{clean(name)} {clean(word)}" for name, word in sorted(are.items()) if word != were.get(name, _fine(word))
    ]
    if before.get("status", "healthy") == status and not changed:
        return None
    weight: Weight = "good" if status == "healthy" else "bad" if status == "unhealthy" else "warn"
    if not before and weight == "good":
        return None
    return Alert(at=now, weight=weight, code=f"control_plane_{status}", text=", ".join(changed) or status)


def _fine(word: object) -> str:
    """What a service is taken to have been before anything was heard of it: well, so that only trouble is news."""
    return str(word) if word in WELL else "connected"
