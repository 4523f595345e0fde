"""`corral token create · ls · rm`: API tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from controlplane.cli.client import path_of
from controlplane.cli.exits import CommandFailed, Exit, Problem, program
from controlplane.cli.listing import all_pages
from controlplane.cli.screen import Column
from controlplane.cli.session import Session, examples, json_option, pass_session
from controlplane.wire.units import local_date, parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ROLES = ("viewer", "caller", "deployer", "admin")
COLUMNS = (
    Column("NAME", gives=True, style="bold"),
    Column("ROLE"),
    Column("OWNER", spare=2),
    Column("LAST USED", spare=1),
    Column("EXPIRES"),
    Column("OPENS", spare=3),
    Column("ID", style="dim"),
)


@click.group(short_help="Create, list and remove API tokens.")
def token() -> None:
    """Create, list and remove API tokens."""


EPILOG = examples(
    "{corral} token create ci --role deployer --expires 30d",
    "export CORRAL_TOKEN=$({corral} token create me --role caller)",
    "{corral} token create agent --role caller --instance memory-server --expires 7d",
    note="Roles, each including the ones before it: viewer reads, caller also calls, deployer also deploys and removes "
    "its own, admin may do everything. With --instance a token opens those instances alone, and nothing of the rest.",
)


def _seconds(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    try:
        return parse_duration(value) if value else None
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@token.command(short_help="Create a token; it is shown once.", epilog=EPILOG)
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True, help="What it may do.")
@click.option(
    "--expires", "expires_in", metavar="30d", callback=_seconds, help="Its lifetime; without: it stays valid."
)
@click.option("--owner", metavar="USER", help="Whose it is (administrators); without: yours.")
@click.option(
    "--instance",
    "instances",
    metavar="NAME",
    multiple=True,
    help="An instance that it opens, and no other; may be given several times. Without: all of its owner's.",
)
@json_option
@pass_session
def create(
    session: Session,
    /,
    *,
    name: str,
    role: str,
    expires_in: float | None,
    owner: str | None,
    instances: tuple[str, ...],
) -> None:
    """Create a token. It goes to standard output, alone, and is never shown again."""
    options = {"expires_in": expires_in, "owner": owner, "instances": list(instances) or None}
    wish = {"name": name, "role": role, **{key: value for key, value in options.items() if value is not None}}
    answer = session.api.post("/tokens", wish)
    if session.shown_as_json(answer):
        return
    session.screen.raw(str(answer.document.get("token")))
    until = answer.document.get("expires_at")
    valid = f"valid until {local_date(until)}" if until else "does not expire"
    opens = f", opens {', '.join(instances)} only" if instances else ""
    session.screen.note(("Keep it now: it is not shown again. ", "bold"), f"{name}, role {role}, {valid}{opens}.")


@token.command(name="ls", short_help="List tokens.")
@json_option
@pass_session
def list_(session: Session, /) -> None:
    """List tokens; none of them shows its secret."""
    answer = all_pages(session, "/tokens", "tokens")
    if session.shown_as_json(answer):
        return
    names = _names(session, answer.document["tokens"])
    rows = [
        [
            str(row.get("name")),
            str(row.get("role")),
            str(row.get("owner")),
            local_date(row.get("last_used_at")) or "never",
            local_date(row.get("expires_at")) or "never",
            _opens(row, names),
            str(row.get("token_id")),
        ]
        for row in answer.document["tokens"]
    ]
    session.screen.table(COLUMNS, rows)


def _names(session: Session, rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Names by id of the instances that tokens are limited to; asked for only if there are such tokens."""
    if not any(row.get("instances") for row in rows):
        return {}
    instances = all_pages(session, "/instances", "instances").document["instances"]
    return {str(one.get("instance_id")): str(one.get("name")) for one in instances}


def _opens(row: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """What a token opens. An instance that is gone has no name any more."""
    only = row.get("instances")
    return "everything" if only is None else ", ".join(names.get(one, f"{one[:8]}… (gone)") for one in only)


@token.command(short_help="Remove tokens, by id or name.")
@click.argument("tokens", metavar="TOKEN...", nargs=-1, required=True)
@json_option
@pass_session
def rm(session: Session, /, *, tokens: tuple[str, ...]) -> None:
    """Remove tokens, by id or name; they stop working at once."""
    for token_ref in tokens:
        answer = session.api.delete(path_of("tokens", _id_of(session, token_ref)))
        if not session.shown_as_json(answer):
            session.screen.line((token_ref, "bold"), " is removed")


def _id_of(session: Session, reference: str) -> str:
    """Return the id of a token that is named by id or by name.

    Raises:
        CommandFailed: no token has this name, or several have.
    """
    try:
        return str(UUID(reference))
    except ValueError:
        rows = all_pages(session, "/tokens", "tokens").document["tokens"]
    found = [str(row.get("token_id")) for row in rows if row.get("name") == reference]
    if len(found) == 1:
        return found[0]
    if found:
        problem = Problem(
            title=f"{len(found)} tokens are named {reference!r}", hint="Name one by its id: " + ", ".join(found)
        )
        raise CommandFailed(problem, Exit.FAILED)
    problem = Problem(title=f"There is no token {reference!r}", hint=f"`{program()} token ls` lists them.")
    raise CommandFailed(problem, Exit.NOT_FOUND)
