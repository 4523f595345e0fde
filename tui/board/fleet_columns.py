"""The columns of the fleet table. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from controlplane.wire.units import count, duration, mebibytes, millis, percent
from tui.board.cells import Cell, Column, Tone, sparkline

if TYPE_CHECKING:
    from tui.board.rows import Row

SPARK = 9
"""Cells of a trend in the table: nine seconds at the default interval."""
CPU_WARN, CPU_BAD = 80.0, 95.0
ERRORS_WARN, ERRORS_BAD = 1.0, 10.0
"""Per cent from which a number is worth a look, and worth a worry."""

RECENT_S = 600.0
"""For so long a failure is told beside what runs again: one that falls every few minutes would else look well."""

SIGNS: Mapping[str, tuple[str, Tone]] = {
    "running": ("●", "good"),
    "failed": ("✗", "bad"),
    "stopped": ("○", "dim"),
    "stopping": ("◌", "warn"),
    "restarting": ("↻", "warn"),
    "starting": ("◐", "accent"),
    "building": ("◒", "accent"),
    "pending": ("◌", "accent"),
}
"""Sign and tone of a status; the word always stands beside the sign."""


def status_cell(row: Row, _now: float = 0.0) -> Cell:
    """The status, with the phase while there is more to say than the status does."""
    sign, tone = SIGNS.get(row.status, ("?", ""))
    word = f"{row.status}→r{row.candidate.partition(' ')[0]}" if row.candidate else row.status
    return Cell(f"{sign} {word}", tone)


def _cpu(row: Row, _now: float) -> Cell:
    tone: Tone = "bad" if (row.cpu or 0) >= CPU_BAD else "warn" if (row.cpu or 0) >= CPU_WARN else ""
    return Cell(percent(row.cpu), tone)


def _memory_trend(row: Row, _now: float) -> Cell:
    """Against half as much again as the most of it, so that a steady one does not look like a full one."""
    series = row.history.memory
    return Cell(sparkline(series, SPARK, 1.5 * max(series, default=0.0)), "plot")


def _errors(row: Row, _now: float) -> Cell:
    share = row.error_percent or 0.0
    tone: Tone = "bad" if share >= ERRORS_BAD else "warn" if share >= ERRORS_WARN else ""
    return Cell(count(row.errors), tone)


def _rate(row: Row, _now: float) -> Cell:
    return Cell(f"{row.rate:.1f}" if row.rate < 100 else f"{row.rate:.0f}", "" if row.rate else "dim")


def _latency(row: Row, _now: float) -> Cell:
    """Of the last calls that there were; dim once there are none."""
    return Cell(millis(row.p95), "" if row.rate else "dim")


def _restarts(row: Row, _now: float) -> Cell:
    return Cell(count(row.restarts), "warn" if row.restarts else "dim")


def _in_short(reason: str) -> str:
    """Without the words that nearly every reason begins with: there is little room for the others."""
    return reason.removeprefix("the process ")


def _what(row: Row, now: float) -> Cell:
    """What to know of it besides numbers: why it fails, what it is doing, or its labels."""
    if row.trouble is not None and row.status in {"failed", "restarting", "building", "starting"}:
        return Cell(_in_short(row.trouble.reason), "bad" if row.status == "failed" else "warn")
    if row.trouble is not None and row.trouble.at is not None and 0 <= now - row.trouble.at < RECENT_S:
        return Cell(f"before: {_in_short(row.trouble.reason)}", "warn")
    if row.status not in {"running", "stopped"} and row.phase:
        return Cell(row.phase, "dim")
    if row.candidate:
        return Cell(f"revision {row.candidate}", "accent")
    return Cell(" ".join(f"{name}={value}" for name, value in sorted(row.labels.items())), "dim")


FLEET_COLUMNS: tuple[Column[Row], ...] = (
    Column(key="name", title="NAME", letter="N", width=14, grows=1, cell=lambda r, _: Cell(r.name, "strong"), order=lambda r, _: r.name),
    Column(key="owner", title="OWNER", letter="W", width=9, spare=2, cell=lambda r, _: Cell(r.owner, "dim"), order=lambda r, _: r.owner),
    Column(key="status", title="STATUS", letter="S", width=12, cell=status_cell, order=lambda r, _: r.status),
    Column(key="cpu", title="CPU", letter="C", width=5, right=True, descending=True, cell=_cpu, order=lambda r, _: r.cpu),
    Column(key="cpu_spark", title="CPU TREND", width=SPARK, spare=6, cell=lambda r, _: Cell(sparkline(r.history.cpu, SPARK, 100.0), "plot")),
    Column(key="memory", title="MEM", letter="M", width=6, right=True, descending=True, cell=lambda r, _: Cell(mebibytes(r.memory)), order=lambda r, _: r.memory),
    Column(key="memory_spark", title="MEM TREND", width=SPARK, spare=7, cell=_memory_trend),
    Column(key="rate", title="CALLS/S", letter="R", width=7, right=True, descending=True, cell=_rate, order=lambda r, _: r.rate),
    Column(key="rate_spark", title="C/S TREND", width=SPARK, spare=5, cell=lambda r, _: Cell(sparkline(r.history.rate, SPARK), "plot")),
    Column(key="p95", title="P95", letter="L", width=6, right=True, descending=True, cell=_latency, order=lambda r, _: r.p95),
    Column(key="calls", title="CALLS", letter="A", width=8, right=True, descending=True, spare=9, cell=lambda r, _: Cell(count(r.calls)), order=lambda r, _: r.calls),
    Column(key="errors", title="ERR", letter="E", width=5, right=True, descending=True, cell=_errors, order=lambda r, _: r.errors),
    Column(key="restarts", title="RST", letter="T", width=4, right=True, descending=True, cell=_restarts, order=lambda r, _: r.restarts),
    Column(key="uptime", title="UP", letter="U", width=6, right=True, descending=True, cell=lambda r, now: Cell(duration(r.uptime(now))), order=lambda r, now: r.uptime(now)),
    Column(key="language", title="LANG", letter="K", width=10, spare=8, cell=lambda r, _: Cell(r.language, "dim"), order=lambda r, _: r.language),
    Column(key="what", title="WHAT", width=22, grows=3, spare=3, cell=_what),
)  # fmt: skip
"""In an order of a person's questions. From 120 cells on there is room for trends, from 150 or so for all."""


def columns_for(owners: int) -> tuple[Column[Row], ...]:
    """The columns of a fleet of so many owners: who they are is told where there is more than one."""
    return tuple(column for column in FLEET_COLUMNS if owners > 1 or column.key != "owner")
