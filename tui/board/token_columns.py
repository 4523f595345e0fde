"""The tables of who may come in: tokens, and the users whose they are. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controlplane.wire.text import clean
from controlplane.wire.units import duration, local_date
from tui.board.cells import Cell, Column
from tui.board.reading import seconds_of

Row = Mapping[str, Any]
ROLES = ("viewer", "caller", "deployer", "admin")
"""From the least to the most."""
ROLE_HELP = {
    "viewer": "looks, and changes nothing",
    "caller": "calls tools as well: for MCP clients",
    "deployer": "deploys, starts and stops as well",
    "admin": "everything, of everybody",
}
SOON_S = 7 * 86_400.0
"""A token that expires within a week is worth a look."""


def _expires(row: Row, now: float) -> Cell:
    at = seconds_of(row.get("expires_at"))
    if at is None:
        return Cell("never", "dim")
    if at <= now:
        return Cell("✗ expired", "bad")
    return Cell(("! " if at - now < SOON_S else "") + f"in {duration(at - now)}", "warn" if at - now < SOON_S else "")


def _used(row: Row, now: float) -> Cell:
    at = seconds_of(row.get("last_used_at"))
    return Cell("not yet", "dim") if at is None else Cell(f"{duration(max(0.0, now - at))} ago")


TOKEN_COLUMNS: tuple[Column[Row], ...] = (
    Column(key="name", title="NAME", width=18, grows=2, cell=lambda r, _: Cell(clean(r.get("name")), "strong")),
    Column(key="owner", title="OWNER", width=12, grows=1, cell=lambda r, _: Cell(clean(r.get("owner")))),
    Column(key="role", title="ROLE", width=8, cell=lambda r, _: Cell(clean(r.get("role")), "accent")),
    Column(key="expires", title="EXPIRES", width=11, cell=_expires),
    Column(key="used", title="LAST USED", width=11, cell=_used),
    Column(
        key="created",
        title="CREATED",
        width=16,
        spare=1,
        cell=lambda r, _: Cell(local_date(r.get("created_at")), "dim"),
    ),
)

USER_COLUMNS: tuple[Column[Row], ...] = (
    Column(key="name", title="USER", width=18, grows=2, cell=lambda r, _: Cell(clean(r.get("name")), "strong")),
    Column(key="role", title="ROLE", width=8, cell=lambda r, _: Cell(clean(r.get("role")), "accent")),
    Column(key="state", title="STATE", width=10, cell=lambda r, _: Cell("✗ disabled", "warn") if r.get("disabled") else Cell("● enabled", "good")),
    Column(key="created", title="CREATED", width=16, spare=1, cell=lambda r, _: Cell(local_date(r.get("created_at")) or "with the server", "dim")),
)  # fmt: skip
