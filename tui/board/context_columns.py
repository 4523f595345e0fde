"""The table of contexts: which control planes there are, and whether each can be reached. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve, frozen

from controlplane.wire.text import clean
from controlplane.wire.units import count, duration, millis
from tui.board.cells import Cell, Column, Tone

if TYPE_CHECKING:
    from tui.board.link import Link


@frozen(kw_only=True)
class ContextRow:
    """One context, and what a look at its `/health` found. Never its token."""

    name: str
    url: str
    colour: str = ""
    read_only: bool = False
    has_token: bool = False
    current: bool = False
    state: str = "asking"
    """`asking`, then what `/health` says, or `away`; `refused` where the token was."""
    version: str = ""
    uptime_s: float | None = None
    instances: int | None = None
    took_ms: float | None = None
    why: str = ""


def linked(row: ContextRow, link: Link) -> ContextRow:
    """The row of the control plane that the dashboard is at: away as soon as its connection is, whatever a probe found."""
    if link.state in {"live", "connecting"}:
        return row
    return evolve(row, state=link.state, why=link.reason or row.why)


_STATES: dict[str, tuple[str, Tone]] = {
    "asking": ("◌", "dim"),
    "healthy": ("●", "good"),
    "degraded": ("!", "warn"),
    "unhealthy": ("✗", "bad"),
    "away": ("✗", "bad"),
    "refused": ("✗", "bad"),
}


def _name(row: ContextRow, _now: float) -> Cell:
    return Cell(("→ " if row.current else "  ") + clean(row.name), "strong" if row.current else "")


def _state(row: ContextRow, _now: float) -> Cell:
    sign, tone = _STATES.get(row.state, ("?", ""))
    return Cell(f"{sign} {row.state}", tone)


def about(row: ContextRow, _now: float = 0.0) -> Cell:
    """What its answer says, or why there is none."""
    if row.state in {"away", "refused"}:
        return Cell(row.why, "bad")
    if row.state == "asking":
        return Cell("")
    parts = [f"{count(row.instances)} running", f"up {duration(row.uptime_s)}", row.version, millis(row.took_ms)]
    return Cell(" · ".join(part for part in parts if part), "dim")


def _access(row: ContextRow, _now: float) -> Cell:
    words = ["read-only"] * row.read_only + ["no token"] * (not row.has_token)
    return Cell(" ".join(words), "warn" if words else "")


CONTEXT_COLUMNS: tuple[Column[ContextRow], ...] = (
    Column(key="name", title="  NAME", width=16, grows=1, cell=_name, order=lambda r, _: r.name),
    Column(key="state", title="STATE", width=11, cell=_state, order=lambda r, _: r.state),
    Column(key="url", title="URL", width=22, grows=2, cell=lambda r, _: Cell(clean(r.url))),
    Column(key="colour", title="COLOUR", width=8, spare=1, cell=lambda r, _: Cell(clean(r.colour) or "-", "dim")),
    Column(key="access", title="", width=9, cell=_access),
    Column(key="about", title="", width=14, grows=3, spare=2, cell=about),
)
