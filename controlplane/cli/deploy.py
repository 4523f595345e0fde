"""`corral deploy`: one MCP server, from a command, a folder, a file, an archive, a repository, or the API's own JSON."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from controlplane.cli.inputs import parse_json, read_bytes
from controlplane.cli.sending import Order, send
from controlplane.cli.session import Session, examples, json_option, pass_session, wait_option
from controlplane.cli.specs import COMMAND, SpecCommand, spec_options, wanted

if TYPE_CHECKING:
    from controlplane.packing.sources import Source

WAIT_S = 300.0
"""A first install or build may take minutes; it is watched meanwhile, and Ctrl-C leaves it running."""

EPILOG = examples(
    "{corral} deploy memory -- npx -y @modelcontextprotocol/server-memory",
    "{corral} deploy github -e GITHUB_PERSONAL_ACCESS_TOKEN -- npx -y @modelcontextprotocol/server-github",
    "{corral} deploy .",
    "{corral} deploy server.py -d requests",
    "{corral} deploy weather https://github.com/example/weather-mcp.git#v1.2",
    "{corral} deploy tools.zip --language go --entry ./cmd/server",
    "{corral} deploy fetch --allow-host example.com -- uvx mcp-server-fetch",
    "{corral} deploy notes --mount /srv/notes:rw --limit disk=500 -- npx -y @modelcontextprotocol/server-filesystem /srv/notes",
    "{corral} deploy -f spec.json",
    note="-e NAME without a value takes it from your own environment, so that a secret is neither in the shell's "
    "history nor in the process list. What a folder's .gitignore names is not sent.",
)


@click.command(
    cls=SpecCommand,
    short_help="Deploy an MCP server: NAME -- COMMAND [ARGUMENTS], [NAME] SOURCE, or -f FILE.",
    epilog=EPILOG,
    options_metavar="[OPTIONS]",
)
@click.argument("words", nargs=-1, metavar="[NAME] [SOURCE | -- COMMAND [ARGUMENTS]...]")
@click.option("-f", "--file", metavar="FILE|-", help="The API's own JSON; NAME then overrides its name.")
@spec_options
@click.option("--idempotency-key", metavar="KEY", help="The same key and spec again answer the first result again.")
@wait_option(WAIT_S)
@json_option
@pass_session
def deploy(
    session: Session,
    /,
    *,
    words: tuple[str, ...],
    file: str | None,
    wait_s: float,
    idempotency_key: str | None,
    **options: Any,
) -> None:
    """Deploy one MCP server and wait until it runs.

    NAME -- COMMAND [ARGUMENTS]... is how every MCP client writes a server; put `--` before the command, so that its
    own options stay its own. SOURCE is a folder, a file, an archive (.zip, .tar, .tar.gz …), or the https address of a
    git repository (with #branch, #tag or #commit) or an archive; its language, entry point and dependencies are
    guessed. NAME may be left out then.
    """
    with ExitStack() as stack:
        if file is not None:
            order = Order(**_of_file(file, words, options))
        else:
            order = Order(**_of_words(session, words, options, stack))
        send(session, _keyed(order, idempotency_key), wait_s=wait_s)


def _keyed(order: Order, key: str | None) -> Order:
    return (
        order if key is None else Order(name=order.name, document=order.document, file=order.file, idempotency_key=key)
    )


def _of_words(session: Session, words: tuple[str, ...], options: dict[str, Any], stack: ExitStack) -> dict[str, Any]:
    name, source = _parted(words)
    found = wanted(source, options, stack)
    name = name or (found.source.name if found.source else "")
    if found.source is not None:
        tell_source(session, found.source)
    return {"name": name, "document": json.dumps({"name": name, **found.document}).encode(), "file": found.file}


def _parted(words: tuple[str, ...]) -> tuple[str | None, str | None]:
    """Tell the name from the source."""
    has_command = bool(click.get_current_context().meta.get(COMMAND))
    match words:
        case (name,) if has_command:
            return name, None
        case (source,):
            return None, source
        case (name, source) if not has_command:
            return name, source
        case ():
            missing = "a name" if has_command else "a name and a command, or a source"
            raise click.UsageError(f"Missing {missing}: deploy NAME -- COMMAND [ARGUMENTS]..., or deploy [NAME] SOURCE")
    raise click.UsageError(
        "Too many words: put `--` before the server's command: deploy NAME -- COMMAND [ARGUMENTS]..."
    )


def tell_source(session: Session, source: Source) -> None:
    """Say what is being sent, and what of it perhaps should not be."""
    if session.json or source.packed is None:
        return
    session.screen.note((source.summary, "dim"))
    for name in source.packed.secrets:
        advice = "looks as if it holds a secret, and is sent along: name it in .gitignore if it should stay, and use -e"
        session.screen.note(("Warning: ", "bold yellow"), f"{name} {advice}")


def _of_file(file: str, words: tuple[str, ...], options: dict[str, Any]) -> dict[str, Any]:
    """Read the API's JSON; it is sent as it stands, unless NAME renames it.

    Raises:
        click.UsageError: no JSON object, or mixed with what belongs in it.
    """
    given = [key for key, value in options.items() if value not in (None, ())]
    if given or len(words) > 1 or click.get_current_context().meta.get(COMMAND):
        raise click.UsageError("With -f everything but NAME belongs in the file.")
    content = read_bytes(file)
    document = parse_json(content, file)
    if not isinstance(document, dict):
        raise click.UsageError(f"{file}: a JSON object is expected")
    if words:
        content = json.dumps({**document, "name": words[0]}).encode()
    return {"name": str(words[0] if words else document.get("name", "")), "document": content}
