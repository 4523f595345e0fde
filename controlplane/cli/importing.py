"""`corral import`: deploy the servers of an MCP client's file, one after the other."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from controlplane.cli.client import read_only
from controlplane.cli.exits import CommandFailed, Exit, failed_instance, program
from controlplane.cli.inputs import parse_jsonc, read_bytes
from controlplane.cli.outcome import interrupted
from controlplane.cli.screen import Column, show_problem
from controlplane.cli.sending import Order, post
from controlplane.cli.session import Session, examples, json_option, pass_session, wait_option
from controlplane.packing.servers import Entry, NotServers, entries_of
from controlplane.wire.text import clean_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controlplane.cli.client import Answer

WAIT_S = 120.0
PATIENCE = 3
LONGEST_PAUSE_S = 60.0
"""The server counts deploys by the minute: a minute later there is room for at least one."""
POINTLESS = (Exit.NO_CONNECTION, Exit.NOT_ALLOWED)
"""Failures that the next server would meet as well."""
COLUMNS = (Column("NAME", style="bold"), Column("COMMAND", wraps=True), Column("VARIABLES", wraps=True))

EPILOG = examples(
    "{corral} import mcp.json",
    "{corral} import ~/.cursor/mcp.json --dry-run",
    "{corral} import .vscode/mcp.json github memory",
    note="Works with the files of Claude Desktop, Claude Code, Cursor, Windsurf, VS Code and others. ${{VAR}}, "
    "${{env:VAR}} and ${{VAR:-default}} are looked up in your environment. Names that are deployed already are left "
    "as they are. Exits with 1 when any server failed.",
)


@click.command("import", short_help="Deploy every server of an MCP client's mcp.json.", epilog=EPILOG)
@click.argument("file", metavar="FILE|-")
@click.argument("only", metavar="[SERVER]...", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Show what would be deployed; ask the server for nothing.")
@wait_option(WAIT_S)
@json_option
@pass_session
def import_(session: Session, /, *, file: str, only: tuple[str, ...], dry_run: bool, wait_s: float) -> None:
    """Deploy every server of an MCP client's file (or only the SERVERs named), going on past those that fail."""
    entries = _chosen(_entries(file), only, file)
    if not entries:
        raise click.UsageError(f"{file} names no servers.")
    if dry_run:
        _show_plan(session, entries)
        return
    if session.target.read_only:
        raise read_only(session.target, f"No server of {file} was deployed")
    results = [_deploy(session, entry, wait_s) for entry in entries]
    if session.json:
        session.screen.json_bytes(json.dumps({"servers": results}).encode())
    else:
        _sum_up(session, results)
    if any(result["outcome"] == "failed" for result in results):
        raise click.exceptions.Exit(Exit.FAILED)


def _entries(file: str) -> list[Entry]:
    try:
        return entries_of(parse_jsonc(read_bytes(file), file), os.environ)
    except NotServers as error:
        raise click.UsageError(f"{file}: {error}") from error


def _chosen(entries: list[Entry], only: Sequence[str], file: str) -> list[Entry]:
    known = {name for entry in entries for name in (entry.key, entry.name)}
    unknown = [name for name in only if name not in known]
    if unknown:
        raise click.UsageError(f"{file}: there is no server {unknown[0]!r}; it has {', '.join(sorted(known))}")
    return [entry for entry in entries if not only or entry.key in only or entry.name in only]


def _show_plan(session: Session, entries: list[Entry]) -> None:
    requests = [entry.request for entry in entries if entry.request]
    if session.json:
        session.screen.json_bytes(json.dumps({"requests": requests}).encode())
        return
    session.screen.table(COLUMNS, [_plan_row(request) for request in requests])
    for entry in entries:
        if entry.request is None:
            session.screen.note("- ", (entry.name, "bold"), f": {entry.reason}")


def _plan_row(request: dict[str, Any]) -> list[str]:
    config = request["mcp_config"]
    variables = config.get("env")
    arguments = config.get("args")
    words = [str(config["command"]), *(map(str, arguments) if isinstance(arguments, list) else ())]
    return [request["name"], " ".join(words), " ".join(variables) if isinstance(variables, dict) else ""]


def _deploy(session: Session, entry: Entry, wait_s: float) -> dict[str, Any]:
    """Deploy one server and say in a record what came out.

    Raises:
        CommandFailed: the next server would fail just the same.
    """
    if entry.request is None:
        _tell(session, entry.name, "-" if entry.skipped else "✗", entry.reason)
        return {"name": entry.name, "outcome": "skipped" if entry.skipped else "failed", "reason": entry.reason}
    try:
        answer = _post_in_time(session, entry, wait_s)
    except KeyboardInterrupt:
        raise interrupted(session, entry.name, "deploy") from None
    except CommandFailed as failure:
        return _failed(session, entry, failure)
    instance = answer.document
    if instance.get("status") == "failed":
        return _failed(session, entry, CommandFailed(failed_instance(instance), Exit.INSTANCE, answer.body))
    _tell(session, entry.name, "✓", f"is {instance.get('status')}")
    return {"name": entry.name, "outcome": "deployed", "instance": instance}


def _post_in_time(session: Session, entry: Entry, wait_s: float) -> Answer:
    """Deploy, and wait for as long as the server's limit of deploys per minute asks for."""
    order = Order(name=entry.name, document=json.dumps(entry.request).encode())
    for _ in range(PATIENCE):
        try:
            return post(session, order, wait_s)
        except CommandFailed as failure:
            if failure.problem.code != "rate_limited":
                raise
            pause_s = _pause(failure.problem.retry_after)
        session.screen.note((f"- deploys are limited; going on in {pause_s:.0f} s", "dim"))
        time.sleep(pause_s)
    return post(session, order, wait_s)


def _pause(retry_after: str) -> float:
    return min(max(float(retry_after), 1.0), LONGEST_PAUSE_S) if retry_after.isdigit() else LONGEST_PAUSE_S


def _failed(session: Session, entry: Entry, failure: CommandFailed) -> dict[str, Any]:
    if failure.exit_code in POINTLESS:
        raise failure
    problem = failure.problem
    if problem.code == "conflict":
        _tell(session, entry.name, "-", f"is deployed already (`{program()} rm {entry.name}` makes room for it)")
        return {"name": entry.name, "outcome": "skipped", "reason": "deployed already"}
    _tell(session, entry.name, "✗", "failed")
    if not session.json:
        show_problem(session.screen, problem)
    document = json.loads(failure.document) if failure.document else None
    return {"name": entry.name, "outcome": "failed", "reason": str(failure), "problem": document}


def _tell(session: Session, name: str, sign: str, text: str) -> None:
    if not session.json:
        style = {"✓": "green", "✗": "red"}.get(sign, "dim")
        session.screen.line((f"{sign} ", style), (name, "bold"), " ", clean_lines(text)[0])


def _sum_up(session: Session, results: list[dict[str, Any]]) -> None:
    numbers = Counter(str(result["outcome"]) for result in results)
    session.screen.line(", ".join(f"{numbers[outcome]} {outcome}" for outcome in ("deployed", "failed", "skipped")))
