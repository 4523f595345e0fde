"""`corral secret set · ls · rm · rotate-key`: values that instances get by `${secret:NAME}`."""

from __future__ import annotations

import json
import os
import sys
from contextlib import closing
from pathlib import Path

import click

from controlplane.cli.app import CONTEXT_ASKED
from controlplane.cli.choosing import chosen_target
from controlplane.cli.client import Api, path_of
from controlplane.cli.exits import CommandFailed, program
from controlplane.cli.listing import all_pages
from controlplane.cli.screen import Column
from controlplane.cli.session import COMPLETION_ITEMS, Session, examples, json_option, pass_session
from controlplane.wire.secrets import VALUE_MAX_BYTES
from controlplane.wire.text import clean
from controlplane.wire.units import local_date

COLUMNS = (
    Column("NAME", gives=True, style="bold"),
    Column("USED BY", gives=True),
    Column("SET", spare=1),
    Column("CREATED", spare=2),
)
NOT_AN_ARGUMENT = (
    "a value is not an argument: every user of this host can read arguments, and the shell keeps them in its history."
    " Take another value, and run `secret set {name}`, which asks for it"
)
ROTATE_WAIT_S = 600.0
"""Everything that is encrypted is read and written: a second for some thousand values."""


@click.group(short_help="Set, list and remove secrets, and replace their key.")
def secret() -> None:
    """Set, list and remove secrets: values that an environment names as ${secret:NAME}."""


EPILOG = examples(
    "{corral} secret set GITHUB_TOKEN",
    "pass show github | {corral} secret set GITHUB_TOKEN",
    "{corral} deploy github -e 'GITHUB_TOKEN=${{secret:GITHUB_TOKEN}}' -- npx -y @modelcontextprotocol/server-github",
    note="The value is asked for without an echo, or read from standard input or a file; one line break at its end is "
    "dropped. It is never an argument: every user of a host can read those.",
)
owner_option = click.option("--owner", metavar="USER", help="Whose it is (administrators); without: yours.")


def _complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Offer the secrets' names; a server that is away offers none."""
    try:
        with closing(Api(chosen_target(os.environ, context.meta.get(CONTEXT_ASKED)))) as api:
            rows = api.get("/secrets", limit=COMPLETION_ITEMS).document["secrets"]
    except (CommandFailed, KeyError, TypeError):
        return []
    return [name for name in (str(row.get("name")) for row in rows) if name.startswith(incomplete)]


def _bare_name(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    name, assigned, _ = value.partition("=")
    if assigned:
        raise click.BadParameter(NOT_AN_ARGUMENT.format(name=name))
    return value


def _no_value(context: click.Context, _parameter: click.Parameter, words: tuple[str, ...]) -> None:
    if words:
        raise click.UsageError(NOT_AN_ARGUMENT.format(name=context.params.get("name") or "NAME"))


@secret.command(name="set", short_help="Set a secret, from a prompt, standard input or a file.", epilog=EPILOG)
@click.argument("name", callback=_bare_name, shell_complete=_complete)
@click.argument("words", nargs=-1, metavar="", expose_value=False, callback=_no_value)
@click.option(
    "--from-file", "path", metavar="FILE", type=click.Path(path_type=Path), help="Read the value from a file."
)
@owner_option
@json_option
@pass_session
def set_(session: Session, /, *, name: str, path: Path | None, owner: str | None) -> None:
    """Set the secret NAME, or give it another value."""
    value = _value(name, path)
    body = json.dumps({"value": value}).encode()
    answer = session.api.request("PUT", path_of("secrets", name), query={"owner": owner}, content=body)
    if session.shown_as_json(answer):
        return
    session.screen.line((name, "bold"), " is set" if answer.status == 201 else " has another value")
    if waiting := answer.document.get("in_force_after_restart"):
        session.screen.note(
            "Restart what runs with the value before: ", (" ".join((program(), "restart", *waiting)), "bold")
        )


def _value(name: str, path: Path | None) -> str:
    """From the file, a prompt, or standard input.

    Raises:
        click.UsageError: it cannot be read, is too large, or is not text.
    """
    try:
        if path is not None:
            with path.open("rb") as file:
                content = file.read(VALUE_MAX_BYTES + 2)
        elif sys.stdin.isatty():
            return str(click.prompt(f"Value of {name}", hide_input=True, err=True))
        else:
            content = sys.stdin.buffer.read(VALUE_MAX_BYTES + 2)
    except OSError as error:
        raise click.UsageError(f"{path or 'standard input'}: {error.strerror}") from error
    try:
        text = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise click.UsageError("the value is not UTF-8 text: encode it, in base64 for example") from None
    if len(text.encode()) > VALUE_MAX_BYTES:
        raise click.UsageError(f"the value is longer than {VALUE_MAX_BYTES // 1024} KiB")
    return text


@secret.command(name="ls", short_help="List secrets: names, times, and who uses them.")
@owner_option
@json_option
@pass_session
def list_(session: Session, /, *, owner: str | None) -> None:
    """List secrets; nothing shows their values."""
    answer = all_pages(session, "/secrets", "secrets", owner=owner)
    if session.shown_as_json(answer):
        return
    rows = [
        [
            str(row.get("name")),
            ", ".join(map(str, row.get("used_by") or ())) or "nobody",
            local_date(row.get("updated_at")) or "",
            local_date(row.get("created_at")) or "",
        ]
        for row in answer.document["secrets"]
    ]
    session.screen.table(COLUMNS, rows)


@secret.command(short_help="Remove secrets.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=_complete)
@click.option("--force", is_flag=True, help="Also while instances use it: they fail at their next start.")
@owner_option
@json_option
@pass_session
def rm(session: Session, /, *, names: tuple[str, ...], force: bool, owner: str | None) -> None:
    """Remove secrets by name; one that an instance uses stays, unless --force is given."""
    query = {"owner": owner, "force": "true" if force else None}
    for name in names:
        answer = session.api.request("DELETE", path_of("secrets", name), query=query)
        if not session.shown_as_json(answer):
            session.screen.line((name, "bold"), " is removed")


@secret.command(name="rotate-key", short_help="Replace the key that everything secret is encrypted with.")
@json_option
@pass_session
def rotate_key(session: Session, /) -> None:
    """Replace the encryption key, and encrypt every secret and environment anew (administrators).

    A key that Corral keeps is replaced by a random one, and the old one destroyed. Where it is SECRET_KEY: set a new one,
    name the old one in SECRET_KEY_PREVIOUS, start Corral again, then run this.
    """
    answer = session.api.post("/secrets/rotate-key", {}, wait_s=ROTATE_WAIT_S)
    if session.shown_as_json(answer):
        return
    done = answer.document
    session.screen.line(("key " + str(done.get("key_id")), "bold"), f" replaces {done.get('previous_key_id')}")
    session.screen.note(f"{done.get('boxes')} values were encrypted anew. JWTs signed with the old key have ended.")
    for url in done.get("away") or ():
        session.screen.note(
            f"{clean(url)} is away and knows the old key: stop it if it still runs, and give it the new one before it starts."
        )
