"""The columns of the alerts inbox, and what its filter looks at. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from controlplane.wire.units import duration
from tui.board.cells import Cell, Column
from tui.board.event_columns import moment
from tui.board.filtering import has_words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tui.board.alerts import Alert, Weight

SIGNS: Mapping[Weight, Cell] = {
    "bad": Cell("✗ failed", "bad"),
    "warn": Cell("! warning", "warn"),
    "good": Cell("● mended", "good"),
}


def alert_columns(seen: int) -> tuple[Column[Alert], ...]:
    """The columns; what came in after the alert number `seen` is new."""

    def name(alert: Alert, _now: float) -> Cell:
        return Cell(alert.name or alert.instance_id or "control plane", "strong" if alert.number > seen else "")

    def new(alert: Alert, _now: float) -> Cell:
        return Cell("new" if alert.number > seen else "", "accent")

    return (
        Column(key="new", title="", width=3, cell=new),
        Column(key="age", title="AGO", width=6, right=True, cell=_age),
        Column(key="at", title="TIME", width=15, spare=2, cell=lambda a, now: Cell(moment(a.at, now), "dim")),
        Column(key="weight", title="", width=9, cell=lambda a, _: SIGNS[a.weight]),
        Column(key="name", title="INSTANCE", width=13, grows=2, cell=name),
        Column(
            key="times", title="", width=4, right=True, cell=lambda a, _: Cell(f"×{a.times}" if a.times > 1 else "")
        ),
        Column(key="code", title="CODE", width=15, spare=1, cell=_code),
        Column(key="text", title="WHAT HAPPENED", width=24, grows=6, cell=lambda a, _: Cell(a.text)),
    )


def _code(alert: Alert, _now: float) -> Cell:
    """Of the control plane: how it is, as whom it is about stands beside it."""
    return Cell(alert.code.removeprefix("control_plane_"), "dim")


def _age(alert: Alert, now: float) -> Cell:
    return Cell(duration(float(round(max(0.0, now - alert.at)))), "dim")


def fitting(alerts: Iterable[Alert], text: str) -> list[Alert]:
    """The alerts that fit a filter, newest first: words that must be there, `!word` for one that must not."""
    return [a for a in reversed(list(alerts)) if has_words(_haystack(a), text)]


def _haystack(alert: Alert) -> str:
    return f"{alert.name} {alert.code} {alert.text} {SIGNS[alert.weight].text}"
