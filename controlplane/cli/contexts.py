"""`corral context add · ls · show · use · rm`: several control planes, each by a name of one's own.

No token is ever shown: not in a table, not as JSON, not in an error.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click
from attrs import evolve
from rich.text import Text

from controlplane.cli.choosing import Choice, choose, complete_contexts, target_of, unknown
from controlplane.cli.contextfile import (
    COLOURS,
    Context,
    Contexts,
    changing,
    path_of_contexts,
    read,
    write,
    wrong_name,
    wrong_token,
    wrong_url,
)
from controlplane.cli.exits import CommandFailed, Exit, Problem, program
from controlplane.cli.screen import Column
from controlplane.cli.session import Session, examples, json_option, pass_session
from controlplane.cli.target import LOCAL, is_loopback

if TYPE_CHECKING:
    from controlplane.cli.target import Target

MAX_TOKEN_CHARS = 8192
"""No header that a server takes holds a longer one."""
STDIN = "-"
COLUMNS = (
    Column(""),
    Column("NAME"),
    Column("URL", gives=True),
    Column("COLOUR", spare=2),
    Column("MAY", spare=1),
    Column("TOKEN"),
)
EPILOG = examples(
    "{corral} context add prod https://corral.example.org --colour red --read-only",
    "{corral} context use prod",
    "{corral} --context local ls",
    note="--context and CORRAL_CONTEXT beat all; then come CORRAL_URL and CORRAL_TOKEN, then `context use`, then the "
    "control plane on this machine, which is the context `local`.",
)

name_argument = click.argument("name", shell_complete=complete_contexts)


@click.group(short_help="Several control planes, by name.", epilog=EPILOG)
def context() -> None:
    """Keep several control planes by name, and choose the one that commands are about."""


def _checked_name(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if wrong := wrong_name(value):
        raise click.BadParameter(wrong)
    return value


def _checked_url(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if wrong := wrong_url(value):
        raise click.BadParameter(wrong)
    return value.rstrip("/")


@context.command(short_help="Keep a control plane under a name.", epilog=EPILOG)
@click.argument("name", callback=_checked_name)
@click.argument("url", callback=_checked_url)
@click.option(
    "--token-file",
    metavar="FILE",
    help="Read the token from a file; without: from standard input, or asked for on a terminal.",
)
@click.option("--no-token", is_flag=True, help="Keep none.")
@click.option("--colour", "--color", type=click.Choice(COLOURS), metavar="COLOUR", help=f"One of {', '.join(COLOURS)}.")
@click.option("--read-only", is_flag=True, help="Change nothing there: only what reads is sent.")
@click.option("--force", is_flag=True, help="Replace the one of this name.")
@pass_session
def add(session: Session, /, *, name: str, url: str, force: bool, **options: Any) -> None:
    """Keep a control plane under a name, with the token for it. It is not asked whether it is there."""
    path = path_of_contexts(os.environ)
    _refuse_taken(read(path), name, force=force)  # before a token is asked for
    token = None if options["no_token"] else _token(options["token_file"])
    kept = Context(url=url, token=token, colour=options["colour"] or "", read_only=options["read_only"])
    with changing(path) as file:
        contexts = read(file)
        _refuse_taken(contexts, name, force=force)
        write(file, contexts.with_context(name, kept))
    session.screen.line((name, "bold"), f" is {url}", "" if token else ", without a token")
    if token and urlsplit(url).scheme == "http" and not is_loopback(urlsplit(url).hostname or ""):
        session.screen.note(("Note: ", "bold yellow"), "over http:// the token can be read on its way.")
    session.screen.note(("Next: ", "dim"), f"{program()} context use {name}")


def _refuse_taken(contexts: Contexts, name: str, *, force: bool) -> None:
    if name in contexts.known and not force:
        problem = Problem(
            title=f"There is a context {name!r} already",
            detail=f"It is {contexts.known[name].url}.",
            hint="--force replaces it, its token included.",
        )
        raise CommandFailed(problem, Exit.FAILED)


def _token(file: str | None) -> str | None:
    """Read the token: from a file, from standard input, or from the one who sits there; nothing means none."""
    if file is None and sys.stdin is not None and sys.stdin.isatty():
        text = click.prompt("Token (not shown; empty: none)", default="", hide_input=True, show_default=False, err=True)
    elif file is None or file == STDIN:
        text = sys.stdin.readline(MAX_TOKEN_CHARS + 1) if sys.stdin is not None else ""
    else:
        text = _first_line(Path(file))
    text = str(text).strip()
    if not text:
        return None
    if len(text) > MAX_TOKEN_CHARS or wrong_token(text):
        raise click.UsageError(f"The token is longer than {MAX_TOKEN_CHARS} characters, or holds what no token holds.")
    return text


def _first_line(path: Path) -> str:
    try:
        with path.open(errors="replace") as file:
            text = file.readline(MAX_TOKEN_CHARS + 1)
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror}") from error
    if not text.strip():
        raise click.UsageError(f"{path}: no token on its first line")
    return text


@context.command(name="ls", short_help="List them; the current one is marked.")
@json_option
@pass_session
def list_(session: Session, /) -> None:
    """List the contexts. The one that commands are about now is marked with a `*`."""
    contexts = read(path_of_contexts(os.environ))
    choice = choose(os.environ, session.context, contexts.current)
    entries = [_entry(contexts, Choice(name, choice.why), choice) for name in (LOCAL, *contexts.known)]
    if session.json:
        document = {"current": choice.name, "because": choice.why, "contexts": entries}
        session.screen.json_bytes(json.dumps(document).encode())
        return
    session.screen.table(COLUMNS, [_row(entry) for entry in entries])
    if choice.name not in (LOCAL, *contexts.known):
        session.screen.note(("Note: ", "bold yellow"), f"{choice.name!r}, named by {choice.why}, is not there.")
    elif contexts.current not in (None, choice.name):
        session.screen.note(("Note: ", "dim"), f"{choice.why} beats `context use {contexts.current}`.")


def _entry(contexts: Contexts, wanted: Choice, choice: Choice) -> dict[str, Any]:
    """Say about a context all but its token; one that cannot be used says why."""
    about: dict[str, Any] = {"name": wanted.name, "current": wanted.name == choice.name}
    try:
        target = target_of(os.environ, contexts, wanted)
    except CommandFailed as failure:
        return about | {"url": None, "colour": "", "read_only": False, "has_token": False, "problem": str(failure)}
    return about | _facts(target)


def _facts(target: Target) -> dict[str, Any]:
    return {
        "url": target.url,
        "colour": target.colour,
        "read_only": target.read_only,
        "has_token": target.token is not None,
        "origin": target.origin,
    }


def _row(entry: dict[str, Any]) -> list[str | Text]:
    return [
        "*" if entry["current"] else "",
        Text(entry["name"], f"bold {entry['colour']}".strip()),
        entry["url"] or f"cannot be used: {entry['problem']}",
        entry["colour"] or "-",
        "read" if entry["read_only"] else "all",
        "yes" if entry["has_token"] else "no",
    ]


@context.command(short_help="Show one; without a name, the current one.")
@click.argument("name", required=False, shell_complete=complete_contexts)
@json_option
@pass_session
def show(session: Session, /, *, name: str | None) -> None:
    """Show a context, without its token; without a name, the current one and what chose it."""
    contexts = read(path_of_contexts(os.environ))
    choice = choose(os.environ, session.context, contexts.current)
    wanted = Choice(name, "--context") if name else choice
    facts = _facts(target_of(os.environ, contexts, wanted))
    if session.json:
        current = {"current": wanted.name == choice.name}
        session.screen.json_bytes(json.dumps({"name": wanted.name, **current, **facts}).encode())
        return
    rows = [
        ("url", facts["url"]),
        ("colour", facts["colour"] or "-"),
        ("may", "only read" if facts["read_only"] else "read and change"),
        ("token", f"yes, from {facts['origin']}" if facts["has_token"] else "none"),
        ("current", f"yes ({choice.why})" if wanted.name == choice.name else f"no: {choice.name} is ({choice.why})"),
    ]
    session.screen.line((wanted.name, f"bold {facts['colour']}".strip()))
    session.screen.facts(rows, indent=2)


@context.command(short_help="Choose the one that commands are about.")
@name_argument
@pass_session
def use(session: Session, /, *, name: str) -> None:
    """Choose the context that commands are about, in every terminal, until another is chosen."""
    with changing(path_of_contexts(os.environ)) as file:
        contexts = read(file)
        if name not in (LOCAL, *contexts.known):
            raise unknown(contexts, Choice(name, "--context"))
        write(file, evolve(contexts, current=None if name == LOCAL else name))
    session.screen.line((name, "bold"), " is the current context")
    choice = choose(os.environ, session.context, name)
    if choice.why != "context use" and choice.name != name:
        session.screen.note(("Note: ", "bold yellow"), f"here {choice.why} is set, and beats it.")


@context.command(short_help="Forget one, and its token.")
@name_argument
@pass_session
def rm(session: Session, /, *, name: str) -> None:
    """Forget a context and its token. The token itself stays valid: `token rm` ends it."""
    if name == LOCAL:
        raise click.UsageError(wrong_name(name))
    with changing(path_of_contexts(os.environ)) as file:
        contexts = read(file)
        if name not in contexts.known:
            raise unknown(contexts, Choice(name, "--context"))
        write(file, contexts.without(name))
    session.screen.line((name, "bold"), " is removed")
    if contexts.current == name:
        session.screen.note(("Note: ", "dim"), f"it was the current one; now {LOCAL} is.")
