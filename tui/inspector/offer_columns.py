"""The columns in which offers stand: of the tools tab, and of the inspector's choice. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui.board.cells import Cell, Column

if TYPE_CHECKING:
    from tui.inspector.offers import Offer


def _name(offer: Offer, _now: float) -> Cell:
    return Cell(offer.label, "strong")


def _kind(offer: Offer, _now: float) -> Cell:
    return Cell(offer.kind, "accent" if offer.kind == "tool" else "dim")


def _text(offer: Offer, _now: float) -> Cell:
    return Cell(" — ".join(part for part in (offer.title, offer.text) if part), "dim")


def _required(offer: Offer, _now: float) -> Cell:
    return Cell(", ".join(offer.required))


def _hints(offer: Offer, _now: float) -> Cell:
    tone = "warn" if "destructive" in offer.hints else "good" if "read-only" in offer.hints else "dim"
    return Cell(", ".join(offer.hints), tone)  # type: ignore[arg-type]  # one of the three


COLUMNS: tuple[Column[Offer], ...] = (
    Column(key="kind", title="KIND", width=8, cell=_kind),
    Column(key="name", title="NAME", width=24, cell=_name, grows=2),
    Column(key="text", title="WHAT IT IS", width=20, cell=_text, grows=2),
    Column(key="required", title="REQUIRED", width=14, cell=_required, spare=3),
    Column(key="hints", title="SAYS IT IS", width=14, cell=_hints, spare=1),
)
