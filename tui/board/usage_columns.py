"""The tables of the usage page: quotas with what is used of them, and what each owner's instances add up to. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controlplane.wire.text import clean
from controlplane.wire.units import count, duration, mebibytes, percent
from tui.board.cells import Cell, Column, Tone
from tui.board.facts import FULL, NEAR, bar

Row = Mapping[str, Any]
SCOPES = {"owner": "all you have", "token": "each token", "instance": "each instance", "service": "everybody"}


def number(value: object, unit: str) -> str:
    """A figure in its unit; `-` for one that is not counted."""
    if not isinstance(value, (int, float)):
        return "-"
    if unit == "MiB":
        return mebibytes(value)
    if unit == "percent":
        return percent(value)
    if unit == "s":
        return duration(value)
    whole = int(value) if float(value).is_integer() else value
    return f"{whole:,}"


def share(row: Row) -> float | None:
    """Used of the limit; None where either is not known."""
    used, limit = row.get("used"), row.get("limit")
    if not isinstance(used, (int, float)) or not isinstance(limit, (int, float)) or limit <= 0:
        return None
    return float(used) / float(limit)


def _tone(row: Row) -> tuple[Tone, str]:
    part = share(row)
    if part is None or part < NEAR:
        return "", ""
    return ("bad", "full") if part >= FULL else ("warn", "nearly full")


def _bar(row: Row, _now: float) -> Cell:
    part = share(row)
    tone, word = _tone(row)
    return Cell(f"{bar(part)} {percent(part * 100)} {word}".rstrip() if part is not None else "", tone or "accent")


def _used(row: Row, _now: float) -> Cell:
    return Cell(number(row.get("used"), str(row.get("unit"))), _tone(row)[0] or "strong")


def _limit(row: Row, _now: float) -> Cell:
    if row.get("limit") is None:
        return Cell("no limit", "dim")
    return Cell(number(row["limit"], str(row.get("unit"))))


def _unit(row: Row, _now: float) -> Cell:
    unit = clean(row.get("unit") or "")
    return Cell("" if unit in {"MiB", "percent"} else unit, "dim")


QUOTA_COLUMNS: tuple[Column[Row], ...] = (
    Column(key="name", title="QUOTA", width=18, grows=1, cell=lambda r, _: Cell(clean(r.get("name")).replace("_", " "), "strong")),
    Column(key="used", title="USED", width=8, right=True, cell=_used),
    Column(key="limit", title="LIMIT", width=9, right=True, cell=_limit),
    Column(key="unit", title="", width=10, spare=2, cell=_unit),
    Column(key="bar", title="", width=33, cell=_bar),
    Column(key="scope", title="FOR", width=14, spare=1, cell=lambda r, _: Cell(SCOPES.get(r.get("scope", ""), clean(r.get("scope") or "")), "dim")),
)  # fmt: skip

OWNER_COLUMNS: tuple[Column[Row], ...] = (
    Column(key="name", title="OWNER", width=16, grows=1, cell=lambda r, _: Cell(clean(r.get("name")), "strong")),
    Column(key="instances", title="INSTANCES", width=9, right=True, cell=lambda r, _: Cell(count(r.get("instances")))),
    Column(key="running", title="RUNNING", width=7, right=True, cell=lambda r, _: Cell(count(r.get("running")))),
    Column(key="memory", title="MEM", width=7, right=True, cell=lambda r, _: Cell(mebibytes(r.get("memory_mb")))),
    Column(key="cpu", title="CPU", width=6, right=True, cell=lambda r, _: Cell(percent(r.get("cpu_percent")))),
    Column(key="processes", title="PROCS", width=6, right=True, spare=1, cell=lambda r, _: Cell(count(r.get("processes")))),
    Column(key="calls", title="CALLS", width=8, right=True, cell=lambda r, _: Cell(count(r.get("calls")))),
    Column(key="errors", title="FAILED", width=6, right=True, cell=lambda r, _: Cell(count(r.get("errors")), "warn" if r.get("errors") else "dim")),
)  # fmt: skip
