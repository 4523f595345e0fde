"""`corral audit`: who did what."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from controlplane.cli.logs import moment_option
from controlplane.cli.screen import Column
from controlplane.cli.session import Session, complete_instances, examples, json_option, pass_session
from controlplane.wire.units import local_time

if TYPE_CHECKING:
    from collections.abc import Mapping

COLUMNS = (
    Column("WHEN"),
    Column("WHO", style="bold"),
    Column("ACTION"),
    Column("TARGET", gives=True),
    Column("OWNER", spare=1),
    Column("STATUS", right=True),
    Column("FROM", spare=2),
    Column("REQUEST", spare=3),
)
CLASSES = ("2xx", "3xx", "4xx", "5xx")

EPILOG = examples(
    "{corral} audit",
    "{corral} audit --since 1d --actor grace",
    "{corral} audit --action patchUser --action addToken",
    "{corral} audit --target memory --status 2xx",
    "{corral} audit --action signIn --since 1h",
    "{corral} audit --json | jq -r '.audit[] | [.timestamp, .actor, .action, .target] | @tsv'",
    note="Newest first. Actions are the API's operations (deploy, stopInstance, setSecret, patchUser ...); signIn is a wrong token. "
    "×12 behind a status: so many refused requests that were alike. Users see what they did and what was done to what is "
    "theirs, administrators everything.",
)


@click.command(short_help="Show who did what.", epilog=EPILOG)
@click.option("--actor", metavar="USER", help="Only what this user did.")
@click.option("--action", "actions", multiple=True, metavar="NAME", help="Only this operation; repeatable.")
@click.option(
    "--target",
    metavar="NAME|ID",
    shell_complete=complete_instances,
    help="Only what was done to this instance, user, token or secret.",
)
@click.option("--owner", metavar="USER", help="Only what was done to what is this user's.")
@click.option(
    "--status", "classes", type=click.Choice(CLASSES), multiple=True, help="Only what came to this; repeatable."
)
@click.option("--since", metavar="15m|TIME", help="Only what was done after this.")
@click.option("--until", metavar="15m|TIME", help="Only what was done before this.")
@click.option("-n", "--limit", type=click.IntRange(1, 500), default=50, show_default=True, help="At most so many rows.")
@json_option
@pass_session
def audit(
    session: Session,
    /,
    *,
    actor: str | None,
    actions: tuple[str, ...],
    target: str | None,
    owner: str | None,
    classes: tuple[str, ...],
    since: str | None,
    until: str | None,
    limit: int,
) -> None:
    """Show who changed what, from where, and what came of it; newest first."""
    answer = session.api.get(
        "/audit",
        actor=actor,
        action=",".join(actions) or None,
        target=target,
        owner=owner,
        status=",".join(classes) or None,
        since=moment_option(since),
        until=moment_option(until, "--until"),
        limit=limit,
    )
    if session.shown_as_json(answer):
        return
    rows = answer.document.get("audit") or []
    if not rows:
        session.screen.note("The audit log has no such row.")
        return
    session.screen.table(COLUMNS, [_row(row) for row in rows])
    if answer.document.get("next_cursor"):
        session.screen.note(f"There is more: these are the newest {len(rows)} (--limit, --until).")


def _row(row: Mapping[str, Any]) -> list[str]:
    count = int(row.get("count") or 1)
    return [
        local_time(row.get("timestamp"), datetime.now(UTC)),
        str(row.get("actor") or "-"),
        str(row.get("action")),
        str(row.get("name") or row.get("target") or "-"),
        str(row.get("owner") or "-"),
        f"{row.get('status')}" + (f" ×{count}" if count > 1 else ""),
        str(row.get("address")),
        str(row.get("request_id") or "-"),
    ]
