"""`corral incarnations`: the processes that an instance has had, and how each came to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from controlplane.cli.client import path_of
from controlplane.cli.screen import Column
from controlplane.cli.session import Session, examples, json_option, name_argument, pass_session
from controlplane.wire.units import duration, local_date

if TYPE_CHECKING:
    from collections.abc import Mapping

COLUMNS = (
    Column("N", right=True),
    Column("REV", right=True, spare=1),
    Column("PID", right=True, spare=2),
    Column("STARTED"),
    Column("RAN", right=True),
    Column("END"),
    Column("REASON", gives=True),
)

EPILOG = examples(
    "{corral} incarnations memory",
    "{corral} incarnations memory --json | jq '.incarnations[0].post_mortem'",
    "{corral} logs memory --incarnation 3",
    note="A deleted instance's are found by its id.",
)


@click.command(short_help="List an instance's processes, and how each ended.", epilog=EPILOG)
@name_argument
@click.option("-n", "--limit", type=click.IntRange(1, 500), default=20, show_default=True, help="At most so many.")
@json_option
@pass_session
def incarnations(session: Session, /, *, name: str, limit: int) -> None:
    """List the processes that an instance has had, newest first: when each ran, how it ended, and why it failed."""
    answer = session.api.get(path_of("instances", name, "incarnations"), limit=limit)
    if session.shown_as_json(answer):
        return
    rows = answer.document["incarnations"]
    if not rows:
        session.screen.note("It has had no process.")
        return
    session.screen.table(COLUMNS, [_row(row) for row in rows])


def _row(row: Mapping[str, Any]) -> list[str]:
    revision = row.get("revision")
    return [
        str(row.get("number")),
        "-" if revision is None else str(revision),
        str(row.get("pid")),
        local_date(row.get("started_at")),
        duration(row.get("ran_s")),
        _end(row),
        str(row.get("reason") or "-"),
    ]


def _end(row: Mapping[str, Any]) -> str:
    """How it ended, in a word; `unseen` where Corral itself ended first."""
    if row.get("is_running"):
        return "● runs"
    if row.get("signal"):
        return str(row["signal"])
    if row.get("exit_code") is not None:
        return f"status {row['exit_code']}"
    return "ended" if row.get("ended_at") else "unseen"
