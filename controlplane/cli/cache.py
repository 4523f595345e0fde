"""`corral cache ls · verify · prune`: what is installed once and shared by instances, on the control plane's disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from rich.filesize import decimal

from controlplane.cli.exits import Exit
from controlplane.cli.screen import Column
from controlplane.cli.session import Session, json_option, pass_session
from controlplane.wire.units import local_date

if TYPE_CHECKING:
    from collections.abc import Mapping

VERIFY_WAIT_S = 600.0
"""To read ten GiB from a slow disk."""
KEY_CHARS = 8
COLUMNS = (
    Column("WHAT", gives=True, style="bold"),
    Column("SIZE", right=True),
    Column("FILES", right=True, spare=2),
    Column("USED BY", right=True),
    Column("LAST USED", spare=1),
    Column("KEY", style="dim", spare=3),
)


@click.group(short_help="Look after what is installed: ls, verify, prune.")
def cache() -> None:
    """Look after installed packages and builds (administrators)."""


@cache.command(short_help="List what is installed.")
@json_option
@pass_session
def ls(session: Session, /) -> None:
    """List installed packages and builds with their size, and how many instances use each."""
    answer = session.api.get("/cache")
    if session.shown_as_json(answer):
        return
    document = answer.document
    rows = [_row(row) for row in document["installs"]]
    downloads = [row for row in document.get("downloads") or () if row["size_bytes"]]
    rows += [["downloads of builds", decimal(row["size_bytes"]), "", "", "", _short(row["scope"])] for row in downloads]
    session.screen.table(COLUMNS, rows)
    total, limit = document["total_bytes"], document["limit_bytes"]
    session.screen.note((f"{decimal(total)} of {decimal(limit)}", "dim"))


@cache.command(short_help="Compare every installed file with its digest.")
@json_option
@pass_session
def verify(session: Session, /) -> None:
    """Read every installed file and compare it with its digest; what is damaged is installed anew when it is next needed."""
    with session.screen.busy("verifying"):
        answer = session.api.post("/cache/verify", wait_s=VERIFY_WAIT_S)
    if session.shown_as_json(answer):
        return
    damaged = answer.document["damaged"]
    session.screen.line(f"{answer.document['checked']} checked, {len(damaged)} damaged")
    for key in damaged:
        session.screen.line(("✗ ", "red"), _short(str(key)))
    if damaged:
        session.screen.note(
            ("Hint: ", "bold yellow"),
            "removed; each is made anew when an instance that uses it next starts (corral restart NAME)",
        )
        raise click.exceptions.Exit(Exit.FAILED)


@cache.command(short_help="Remove what no instance uses.")
@click.option(
    "--all", "everything", is_flag=True, help="All of it; without: the oldest, until the store fits its limit."
)
@json_option
@pass_session
def prune(session: Session, /, *, everything: bool) -> None:
    """Remove installed packages and builds that no instance uses."""
    with session.screen.busy("pruning"):
        answer = session.api.post("/cache/prune", wait_s=VERIFY_WAIT_S, all="true" if everything else None)
    if session.shown_as_json(answer):
        return
    removed = answer.document["removed"]
    session.screen.line(f"{len(removed)} removed, {decimal(answer.document['freed_bytes'])} freed")
    if not removed and not everything:
        session.screen.note(("The store is within its limit; --all removes whatever no instance uses.", "dim"))


def _row(row: Mapping[str, Any]) -> list[str]:
    return [
        str(row.get("label") or row.get("key")),
        decimal(int(row.get("size_bytes") or 0)),
        str(row.get("files")),
        str(row.get("in_use_by")),
        local_date(row.get("last_used_at")),
        _short(str(row.get("key"))),
    ]


def _short(key: str) -> str:
    """Enough of a key to tell it from others; `--json` has all of it."""
    return "/".join(part[:KEY_CHARS] for part in key.split("/"))
