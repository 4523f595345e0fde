"""`corral user add · ls · role · quota · disable · enable · rm`: who owns instances. For administrators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from controlplane.cli.client import path_of
from controlplane.cli.listing import all_pages
from controlplane.cli.pairs import split_pair
from controlplane.cli.screen import Column
from controlplane.cli.session import Session, examples, json_option, pass_session
from controlplane.cli.tokens import ROLES
from controlplane.wire.answers import QUOTA_NAMES
from controlplane.wire.units import local_date

if TYPE_CHECKING:
    from collections.abc import Mapping

COLUMNS = (
    Column("NAME", gives=True, style="bold"),
    Column("ROLE"),
    Column("STATE"),
    Column("CREATED", spare=1),
)
QUOTAS = Column("QUOTAS")
"""Only where somebody has any of his own."""
DEFAULT = "default"
"""In place of a quota's number: what the operator's settings say."""
QUOTA_EPILOG = examples(
    "{corral} user quota grace",
    "{corral} user quota grace instances=3 memory_mb=2048 calls_per_day=10000",
    "{corral} user quota grace calls_per_day=default",
    note=f"Quotas: {', '.join(QUOTA_NAMES)}. 0 is no limit where there may be none; `default` is what the operator's settings "
    "say, above which no ceiling (instance_…) can be. `{corral} usage --owner NAME` shows what is used.",
)
EPILOG = examples(
    "{corral} user add grace --role deployer",
    "{corral} token create grace-ci --role deployer --owner grace",
    note="A user owns instances and tokens, and sees no other user's. The role is the ceiling of all the user's tokens.",
)


@click.group(short_help="Add, list and change users (administrators).", epilog=EPILOG)
def user() -> None:
    """Add, list and change users, the owners of instances (administrators)."""


@user.command(short_help="Add a user; the first token is shown once.", epilog=EPILOG)
@click.argument("name")
@click.option(
    "--role", type=click.Choice(ROLES), default="deployer", show_default=True, help="The ceiling of the user's tokens."
)
@json_option
@pass_session
def add(session: Session, /, *, name: str, role: str) -> None:
    """Add a user. The first token goes to standard output, alone, and is never shown again."""
    answer = session.api.post("/users", {"name": name, "role": role})
    if session.shown_as_json(answer):
        return
    session.screen.raw(str(answer.document.get("token")))
    session.screen.note(("Keep it now: it is not shown again. ", "bold"), f"{name}, role {role}, does not expire.")


@user.command(name="ls", short_help="List users.")
@json_option
@pass_session
def list_(session: Session, /) -> None:
    """List users, by name."""
    answer = all_pages(session, "/users", "users")
    if session.shown_as_json(answer):
        return
    rows = [
        [
            str(row.get("name")),
            str(row.get("role")),
            _state(row),
            local_date(row.get("created_at")) or "-",
            _quotas(row) or "-",
        ]
        for row in answer.document["users"]
    ]
    if any(row.get("quotas") for row in answer.document["users"]):
        session.screen.table((*COLUMNS, QUOTAS), rows)
    else:
        session.screen.table(COLUMNS, [row[:-1] for row in rows])


@user.command(short_help="Change a user's role.")
@click.argument("name")
@click.argument("new_role", metavar="ROLE", type=click.Choice(ROLES))
@json_option
@pass_session
def role(session: Session, /, *, name: str, new_role: str) -> None:
    """Change a user's role; it takes effect on the user's tokens at once."""
    _patch(session, name, {"role": new_role})


@user.command(short_help="Show or set what a user may have, instead of the operator's settings.", epilog=QUOTA_EPILOG)
@click.argument("name")
@click.argument("pairs", metavar="[QUOTA=NUMBER]...", nargs=-1)
@json_option
@pass_session
def quota(session: Session, /, *, name: str, pairs: tuple[str, ...]) -> None:
    """Show or set what a user may have; quotas that are not named stay."""
    answer = session.api.patch(path_of("users", name), {"quotas": _numbers(pairs)} if pairs else {})
    if session.shown_as_json(answer):
        return
    said = _quotas(answer.document) or "what the operator's settings say"
    session.screen.line((str(answer.document.get("name")), "bold"), f" may have {said}")


@user.command(short_help="Take a user's access away, for now.")
@click.argument("name")
@json_option
@pass_session
def disable(session: Session, /, *, name: str) -> None:
    """Have a user's tokens stop working at once; the instances run on until somebody stops them."""
    _patch(session, name, {"disabled": True})


@user.command(short_help="Give a user access again.")
@click.argument("name")
@json_option
@pass_session
def enable(session: Session, /, *, name: str) -> None:
    """Have a user's tokens work again."""
    _patch(session, name, {"disabled": False})


@user.command(short_help="Remove users who have no instances.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@json_option
@pass_session
def rm(session: Session, /, *, names: tuple[str, ...]) -> None:
    """Remove users who have no instances, with their tokens, secrets and history. What the audit log says stays."""
    for name in names:
        answer = session.api.delete(path_of("users", name))
        if not session.shown_as_json(answer):
            session.screen.line((name, "bold"), " is removed")


def _patch(session: Session, name: str, change: Mapping[str, Any]) -> None:
    answer = session.api.patch(path_of("users", name), change)
    if session.shown_as_json(answer):
        return
    user = answer.document
    session.screen.line((str(user.get("name")), "bold"), f" is {_state(user)}, role {user.get('role')}")


def _numbers(pairs: tuple[str, ...]) -> dict[str, int | None]:
    """Read `QUOTA=NUMBER` arguments.

    Raises:
        click.BadParameter: one is no such thing.
    """
    numbers: dict[str, int | None] = {}
    for name, text in (split_pair(pair, "QUOTA") for pair in pairs):
        if name not in QUOTA_NAMES:
            raise click.BadParameter(f"{name!r} is no quota; there are {', '.join(QUOTA_NAMES)}")
        if text != DEFAULT and not text.isdecimal():
            raise click.BadParameter(f"{name} is a whole number or `{DEFAULT}`, not {text!r}")
        numbers[name] = None if text == DEFAULT else int(text)
    return numbers


def _quotas(user: Mapping[str, Any]) -> str:
    """What was said for this user, as it can be said again."""
    return " ".join(f"{name}={value}" for name, value in (user.get("quotas") or {}).items())


def _state(user: Mapping[str, Any]) -> str:
    return "disabled" if user.get("disabled") else "active"
