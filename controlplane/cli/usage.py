"""`corral usage`: what an owner uses, and of how much."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from controlplane.cli.screen import Column
from controlplane.cli.session import Session, examples, json_option, pass_session

if TYPE_CHECKING:
    from collections.abc import Mapping

QUOTAS = (
    Column("QUOTA", style="bold"),
    Column("USED", right=True),
    Column("LIMIT", right=True),
    Column("UNIT"),
    Column("FOR", spare=1),
)
OWNERS = (
    Column("OWNER", gives=True, style="bold"),
    Column("INSTANCES", right=True),
    Column("RUNNING", right=True, spare=1),
    Column("MEMORY", right=True),
    Column("CPU", right=True),
    Column("CALLS", right=True),
    Column("ERRORS", right=True),
)
DAYS = (
    Column("DAY", style="bold"),
    Column("CPU SECONDS", right=True),
    Column("CALLS", right=True),
    Column("ERRORS", right=True),
    Column("IN", right=True, spare=1),
    Column("OUT", right=True, spare=1),
    Column("PEAK MEMORY", right=True),
)
MIB = 2**20
FOR = {"owner": "all of an owner's", "token": "each token", "instance": "each instance", "service": "everybody"}

EPILOG = examples(
    "{corral} usage",
    "{corral} usage --owner grace --days 30",
    "{corral} usage --json | jq '.quotas[] | select(.limit and .used > 0.8 * .limit)'",
    note="Memory and CPU are those of the last samples; the owners' calls are since the control plane started. Quotas that end in "
    "_per_day begin anew at midnight UTC; memory_mb is the memory limits of all instances that are to run, added up.",
)


@click.command(short_help="Show what is used, and of how much.", epilog=EPILOG)
@click.option("--owner", metavar="USER", help="Another user's (administrators).")
@click.option(
    "--days", metavar="N", type=click.IntRange(1, 400), help="Also what was used on each of the last N days (UTC)."
)
@json_option
@pass_session
def usage(session: Session, /, *, owner: str | None, days: int | None) -> None:
    """Show what is used of each quota; for administrators also what everybody's instances add up to."""
    answer = session.api.get("/usage", owner=owner, days=days)
    if session.shown_as_json(answer):
        return
    found = answer.document
    session.screen.line((str(found["owner"]), "bold"), f"  {found['role']}")
    session.screen.table(QUOTAS, [_quota(row) for row in found["quotas"]])
    session.screen.line("")
    session.screen.table(OWNERS, [_owner(row) for row in found.get("owners") or [found["total"]]])
    if days is not None:
        session.screen.line("")
        session.screen.table(DAYS, [_day(row) for row in found.get("days") or []])


def _quota(row: Mapping[str, Any]) -> list[str]:
    scope = str(row.get("scope"))
    limit = row.get("limit")
    return [
        str(row.get("name")),
        _number(row.get("used")),
        "no limit" if limit is None else _number(limit),
        str(row.get("unit")),
        FOR.get(scope, scope),
    ]


def _owner(row: Mapping[str, Any]) -> list[str]:
    return [
        str(row.get("name")),
        _number(row.get("instances")),
        _number(row.get("running")),
        f"{_number(row.get('memory_mb'))} MiB",
        f"{_number(row.get('cpu_percent'))} %",
        _number(row.get("calls")),
        _number(row.get("errors")),
    ]


def _day(row: Mapping[str, Any]) -> list[str]:
    return [
        str(row.get("day")),
        _number(row.get("cpu_s")),
        _number(row.get("calls")),
        _number(row.get("errors")),
        _mib(row.get("bytes_in")),
        _mib(row.get("bytes_out")),
        f"{_number(row.get('peak_memory_mb'))} MiB",
    ]


def _mib(size_bytes: object) -> str:
    return f"{_number(size_bytes / MIB)} MiB" if isinstance(size_bytes, int) else "-"


def _number(value: object) -> str:
    """Whole where it is, with one digit where it is not; `-` for what is not known."""
    if not isinstance(value, (int, float)):
        return "-"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
