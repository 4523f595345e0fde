"""The three small tables of an instance's overview: its lanes, its revisions, its processes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controlplane.wire.text import clean
from controlplane.wire.units import duration, local_date
from tui.board.cells import Cell, Column, Tone
from tui.board.facts import ending
from tui.board.rows import seconds_of

Document = Mapping[str, Any]

REVISION_STATES: Mapping[str, tuple[str, Tone]] = {
    "active": ("●", "good"),
    "pending": ("◐", "accent"),
    "failed": ("✗", "bad"),
    "superseded": ("○", "dim"),
}


def _text(name: str, tone: Tone = "") -> Any:
    def cell(document: Document, _now: float) -> Cell:
        value = document.get(name)
        return Cell("-" if value is None else clean(value), tone)

    return cell


def _date(name: str) -> Any:
    def cell(document: Document, _now: float) -> Cell:
        return Cell(local_date(document.get(name)) or "-", "dim")

    return cell


def _revision_state(document: Document, _now: float) -> Cell:
    state = clean(document.get("state") or "?")
    sign, tone = REVISION_STATES.get(state, ("?", ""))
    return Cell(f"{sign} {state}", tone)


def _revision_what(document: Document, _now: float) -> Cell:
    failure = document.get("failure")
    if isinstance(failure, Mapping):
        return Cell(clean(failure.get("reason") or ""), "bad")
    return Cell(clean(document.get("source") or ""), "dim")


def _ended(document: Document, _now: float) -> Cell:
    if document.get("is_running"):
        return Cell("● runs", "good")
    how = ending(document)
    if document.get("post_mortem"):
        return Cell(f"✗ {how or 'failed'}", "bad")
    return Cell(f"○ {how or ('ended' if document.get('ended_at') else 'not seen')}", "dim")


def _ran(document: Document, now: float) -> Cell:
    began = seconds_of(document.get("started_at"))
    if document.get("is_running") and began is not None:
        return Cell(duration(max(0.0, now - began)))
    return Cell(duration(document.get("ran_s")))


def _why(document: Document, _now: float) -> Cell:
    return Cell(clean(document.get("reason") or ""), "bad")


LANE_COLUMNS: tuple[Column[Document], ...] = (
    Column(key="pid", title="PID", width=8, right=True, cell=_text("pid", "strong")),
    Column(key="kind", title="LANE", width=8, cell=_text("kind")),
    Column(key="era", title="ERA", width=7, cell=_text("era")),
    Column(key="version", title="VERSION", width=11, cell=_text("version")),
    Column(key="clients", title="CLIENTS", width=7, right=True, cell=_text("clients")),
    Column(key="calls", title="IN FLIGHT", width=9, right=True, cell=_text("calls_in_flight")),
    Column(key="can", title="ITS CLIENTS CAN", width=12, grows=1, spare=1, cell=lambda d, _: Cell(clean(", ".join(str(c) for c in d.get("capabilities") or ())), "dim")),
)  # fmt: skip
REVISION_COLUMNS: tuple[Column[Document], ...] = (
    Column(key="revision", title="REV", width=4, right=True, cell=_text("revision", "strong")),
    Column(key="state", title="STATE", width=12, cell=_revision_state),
    Column(key="cause", title="CAUSE", width=14, cell=_text("cause")),
    Column(key="created_at", title="MADE", width=16, spare=1, cell=_date("created_at")),
    Column(key="what", title="SOURCE, OR WHY IT FAILED", width=12, grows=1, cell=_revision_what),
)
INCARNATION_COLUMNS: tuple[Column[Document], ...] = (
    Column(key="number", title="NR", width=4, right=True, cell=_text("number", "strong")),
    Column(key="revision", title="REV", width=4, right=True, cell=_text("revision")),
    Column(key="pid", title="PID", width=8, right=True, spare=2, cell=_text("pid", "dim")),
    Column(key="started_at", title="BEGAN", width=16, spare=1, cell=_date("started_at")),
    Column(key="ran", title="RAN", width=6, right=True, cell=_ran),
    Column(key="end", title="END", width=12, cell=_ended),
    Column(key="why", title="WHY", width=10, grows=1, cell=_why),
)
