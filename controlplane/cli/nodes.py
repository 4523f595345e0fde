"""`corral nodes`: the control planes that share one database. For administrators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from controlplane.cli.screen import Column
from controlplane.cli.session import Session, json_option, pass_session
from controlplane.wire.units import count, duration

if TYPE_CHECKING:
    from collections.abc import Mapping

COLUMNS = (
    Column("ID", gives=True, style="bold"),
    Column("URL"),
    Column("VERSION", spare=1),
    Column("LEASE"),
    Column("INSTANCES", right=True),
)


@click.command(short_help="List the control planes on one database (administrators).")
@json_option
@pass_session
def nodes(session: Session, /) -> None:
    """List the control planes that share one database, and how many instances each of them holds."""
    answer = session.api.get("/nodes")
    if session.shown_as_json(answer):
        return
    session.screen.table(COLUMNS, [_row(row) for row in answer.document["nodes"]])
    unheld = answer.document.get("unheld") or 0
    if unheld:
        session.screen.note(f"{unheld} instances are held by none: they are taken over within seconds.")


def _row(node: Mapping[str, Any]) -> list[str | Text]:
    return [
        str(node.get("id")),
        f"{node.get('url')} (asked)" if node.get("asked") else str(node.get("url")),
        str(node.get("version")),
        _lease(node),
        count(node.get("instances")),
    ]


def _lease(node: Mapping[str, Any]) -> Text:
    if node.get("live"):
        return Text("stands", "green")
    return Text(f"ran out, renewed {duration(node.get('lease_age_s'))} ago", "red")
