"""What a person is told in passing, wherever they are: new alerts, and a control plane that is back. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from attrs import define, frozen

from tui.board.link import back

if TYPE_CHECKING:
    from tui.board.alerts import Alert
    from tui.board.board import Board

SETTLED_S = 0.5
"""After a connection is there again until it is told of: what was missed is said right after its first event."""
ALERTS_EVERY_S = 3.0
"""Between two notices of alerts: a fleet that falls is one notice, not five hundred."""
SHOWN_CHARS = 160
Severity = Literal["information", "warning", "error"]
SEVERITIES: dict[str, Severity] = {"good": "information", "warn": "warning", "bad": "error"}


@frozen
class Notice:
    """One notice; `rings` is for the terminal's bell."""

    text: str
    severity: Severity = "information"
    rings: bool = False


@define
class News:
    """What was told already."""

    _alerts: int = 0
    _alerts_at: float = float("-inf")
    _has_begun: bool = False
    _lost_at: float | None = None
    _gaps: int = 0
    _missed: int = 0

    def of(self, board: Board, now: float, *, in_inbox: bool) -> list[Notice]:
        """What is new on the board; somebody who looks at the inbox needs no notice of an alert."""
        if not self._has_begun:
            self._has_begun, self._alerts = board.has_picture, board.alerts.taken
            return []
        return [*self._of_link(board, now), *self._of_alerts(board, now, in_inbox=in_inbox)]

    def _of_link(self, board: Board, now: float) -> list[Notice]:
        link = board.link
        if not link.is_live:
            if self._lost_at is None:
                self._lost_at, self._gaps, self._missed = link.since, board.gaps, board.missed
            return []
        if self._lost_at is None or now - link.since < SETTLED_S:
            return []
        away_s, self._lost_at = max(0.0, link.since - self._lost_at), None
        return [Notice(back(away_s, board.gaps - self._gaps, board.missed - self._missed))]

    def _of_alerts(self, board: Board, now: float, *, in_inbox: bool) -> list[Notice]:
        if in_inbox:
            self._alerts = board.alerts.taken
        if board.alerts.taken == self._alerts or now - self._alerts_at < ALERTS_EVERY_S:
            return []
        fresh = [alert for alert in board.alerts if alert.number > self._alerts]
        self._alerts, self._alerts_at = board.alerts.taken, now
        return [_notice(fresh)] if fresh else []


def _notice(fresh: list[Alert]) -> Notice:
    newest = fresh[-1]
    who = newest.name or newest.instance_id or "the control plane"
    more = f"\n{len(fresh) - 1} more: a shows them all" if len(fresh) > 1 else ""
    worst = "bad" if any(alert.weight == "bad" for alert in fresh) else newest.weight
    text = f"{who}: {newest.text}"
    text = text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…"
    return Notice(text + more, SEVERITIES[worst], rings=worst == "bad")
