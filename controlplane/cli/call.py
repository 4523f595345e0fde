"""`corral call`: one JSON-RPC request to an instance."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from controlplane.cli.client import path_of
from controlplane.cli.exits import CommandFailed, Exit, Problem
from controlplane.cli.inputs import parse_json, read_bytes
from controlplane.cli.pairs import parameters_of
from controlplane.cli.session import Session, complete_instances, examples, json_option, pass_session
from controlplane.wire.text import clean_lines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controlplane.cli.screen import Screen

LONGEST_CALL_S = 300.0
"""What the server allows at most, by default, when no --timeout is given: we must not give up before it does."""

EPILOG = examples(
    "{corral} call memory tools/list",
    '{corral} call memory tools/call \'{{"name": "search_nodes", "arguments": {{"query": "ada"}}}}\'',
    "{corral} call memory --tool search_nodes -p query=ada",
    "{corral} call memory --tool create_entities @entities.json",
    "echo '{{}}' | {corral} call memory ping -",
    note="The result goes to standard output as JSON, a JSON-RPC error to standard error. That error and a tool's own "
    "failure (isError) exit with 1. -p KEY=VALUE takes a value that is JSON as such, any other as a string.",
)


@click.command(short_help="Call a method or a tool: NAME METHOD [JSON|@FILE|-].", epilog=EPILOG)
@click.argument("name", shell_complete=complete_instances)
@click.argument("words", nargs=-1, metavar="METHOD [JSON|@FILE|-]")
@click.option("-t", "--tool", help="Call this tool; METHOD is left out, and the JSON is the tool's arguments.")
@click.option("-p", "--param", "pairs", multiple=True, metavar="KEY=VALUE", help="A member of the JSON; repeatable.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0, 86_400, min_open=True), metavar="SECONDS", help="Time limit."
)
@click.option("--text", "as_text", is_flag=True, help="Print only the text of a tool's result.")
@json_option
@pass_session
def call(
    session: Session,
    /,
    *,
    name: str,
    words: tuple[str, ...],
    tool: str | None,
    pairs: tuple[str, ...],
    timeout_s: float | None,
    as_text: bool,
) -> None:
    """Send one JSON-RPC request to an instance and print its result."""
    request = request_of(words, tool, pairs)
    if timeout_s is not None:
        request["timeout_s"] = timeout_s
    with session.screen.busy(f"{name}: {request['method']}"):
        answer = session.api.post(path_of("mcp", name, "execute"), request, wait_s=timeout_s or LONGEST_CALL_S)
    if not session.shown_as_json(answer):
        show_answer(session.screen, name, answer.document, as_text=as_text)
    if failed(answer.document):
        raise click.exceptions.Exit(Exit.FAILED)


def request_of(words: tuple[str, ...], tool: str | None, pairs: tuple[str, ...]) -> dict[str, Any]:
    """Build the body of an execute request.

    Raises:
        click.UsageError: there are too few or too many words, or the JSON is none.
    """
    if tool is None and not words:
        raise click.UsageError("Missing METHOD, such as tools/list; or name a tool with --tool.")
    given = words if tool is not None else words[1:]
    if len(given) > 1:
        raise click.UsageError(f"Too many words: {' '.join(given[1:])!r}. Quote the JSON as one word.")
    members: Any = _document(given[0]) if given else None
    if pairs:
        if not isinstance(members, dict | None):
            raise click.UsageError("-p adds members to a JSON object; what was given is none.")
        members = {**(members or {}), **parameters_of(pairs)}
    if tool is not None:
        return {"method": "tools/call", "params": {"name": tool, "arguments": members or {}}}
    return {"method": words[0]} if members is None else {"method": words[0], "params": members}


def _document(word: str) -> Any:
    if word == "-" or word.startswith("@"):
        source = word.removeprefix("@")
        return parse_json(read_bytes(source), source)
    return parse_json(word, "the JSON argument")


def failed(answer: Mapping[str, Any]) -> bool:
    """Whether an answer is a JSON-RPC error, or the result of a tool that failed."""
    result = answer.get("result")
    return "error" in answer or (isinstance(result, dict) and result.get("isError") is True)


def show_answer(screen: Screen, name: str, answer: Mapping[str, Any], *, as_text: bool) -> None:
    """Print the result on standard output.

    Raises:
        CommandFailed: the answer is a JSON-RPC error.
    """
    error = answer.get("error")
    if error is not None:
        raise CommandFailed(_problem(name, error if isinstance(error, dict) else {"message": error}))
    result = answer.get("result")
    content = result.get("content") if isinstance(result, dict) else None
    if not as_text or not isinstance(content, list):
        screen.pretty(result)
        return
    for item in content:
        for line in clean_lines(item.get("text", f"[{item.get('type')} {item.get('mimeType', '')}]")):
            screen.raw(line)


def _problem(name: str, error: Mapping[str, Any]) -> Problem:
    data = error.get("data")
    return Problem(
        title=f"{name} answered with an error",
        detail=str(error.get("message", "")),
        facts=(("code", str(error.get("code"))), *((("data", json.dumps(data)),) if data is not None else ())),
    )
