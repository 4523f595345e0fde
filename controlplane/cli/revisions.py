"""`corral redeploy · revisions · rollback`: new revisions of what runs, and back; a bad one never takes a good one down."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from controlplane.cli.client import path_of
from controlplane.cli.deploy import WAIT_S, tell_source
from controlplane.cli.screen import Column
from controlplane.cli.sending import Order, send
from controlplane.cli.session import (
    Session,
    complete_instances,
    examples,
    json_option,
    name_argument,
    pass_session,
    wait_option,
)
from controlplane.cli.specs import SpecCommand, spec_options, wanted
from controlplane.wire.units import local_date

if TYPE_CHECKING:
    from collections.abc import Mapping

COLUMNS = (
    Column("REV", right=True),
    Column("STATE"),
    Column("CREATED", spare=2),
    Column("CAUSE", spare=1),
    Column("LANGUAGE", spare=3),
    Column("SOURCE", gives=True),
    Column("RESOLVED", gives=True, style="dim"),
)
SIGNS = {"active": ("●", "green"), "failed": ("✗", "red"), "pending": ("…", "cyan"), "superseded": ("○", "dim")}
SHORT_CHARS = 12
"""Of a commit or digest, in a table."""


@click.command(
    cls=SpecCommand,
    short_help="Build a new revision, and switch to it once it answers.",
    epilog=examples(
        "{corral} redeploy weather",
        "{corral} redeploy weather .",
        "{corral} redeploy memory -- npx -y @modelcontextprotocol/server-memory@2025.9.25",
        note="Without a source it is the same one anew: a branch's newest commit, a package's newest version. What is "
        "not given stays as it is.",
    ),
)
@click.argument("name", shell_complete=complete_instances)
@click.argument("source", required=False, metavar="[SOURCE | -- COMMAND [ARGUMENTS]...]")
@spec_options
@wait_option(WAIT_S)
@json_option
@pass_session
def redeploy(session: Session, /, *, name: str, source: str | None, wait_s: float, **options: Any) -> None:
    """Build a new revision of an instance, and switch over to it once it has answered its handshake.

    Until then, and if it never does, the revision that runs goes on serving.
    """
    with ExitStack() as stack:
        found = wanted(source, options, stack)
        if found.source is not None:
            tell_source(session, found.source)
        order = Order(
            name=name,
            document=json.dumps(found.document).encode(),
            file=found.file,
            path=path_of("instances", name, "redeploy"),
            what="redeploy",
        )
        send(session, order, wait_s=wait_s)


@click.command(short_help="Go back to an earlier revision.")
@name_argument
@click.argument("revision", type=click.IntRange(min=1), required=False)
@wait_option(WAIT_S)
@json_option
@pass_session
def rollback(session: Session, /, *, name: str, revision: int | None, wait_s: float) -> None:
    """Go back to an earlier revision: without REVISION, the newest one before this that ran.

    It becomes a revision of its own, with the very commit or package versions that the earlier one had.
    """
    document = json.dumps({"revision": revision}).encode()
    path = path_of("instances", name, "rollback")
    send(session, Order(name=name, document=document, path=path, what="rollback"), wait_s=wait_s)


@click.command(short_help="List an instance's revisions.")
@name_argument
@json_option
@pass_session
def revisions(session: Session, /, *, name: str) -> None:
    """List an instance's revisions, newest first: what each runs, where it came from, and what became of it."""
    answer = session.api.get(path_of("instances", name, "revisions"))
    if session.shown_as_json(answer):
        return
    rows = answer.document["revisions"]
    session.screen.table(COLUMNS, [_row(row) for row in rows])
    for row in rows:
        failure = row.get("failure")
        if failure:
            session.screen.note(f"revision {row['revision']}: {failure.get('reason')}", indent=2)


def _row(row: Mapping[str, Any]) -> list[str]:
    state = str(row.get("state"))
    sign, _style = SIGNS.get(state, ("?", ""))
    return [
        str(row.get("revision")),
        f"{sign} {state}",
        local_date(row.get("created_at")),
        str(row.get("cause")),
        str(row.get("language") or "-"),
        str(row.get("source") or "-"),
        _resolved(row.get("resolved") or {}),
    ]


def _resolved(facts: Mapping[str, Any]) -> str:
    shown = [
        str(facts[name])[:SHORT_CHARS] if name in ("commit", "sha256") else str(facts[name])
        for name in ("package", "commit", "sha256")
        if facts.get(name)
    ]
    return " ".join(shown) or "-"
