"""`corral tools`, `prompts` and `resources`: what an instance offers, as its server lists it.

The MCP server wrote it all, so that any member may be of any type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from controlplane.cli.client import path_of
from controlplane.cli.exits import program
from controlplane.cli.screen import Column
from controlplane.cli.session import Session, json_option, name_argument, pass_session
from controlplane.wire.text import clean_lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.text import Text

    from controlplane.cli.client import Answer

TOOL_COLUMNS = (Column("TOOL", style="bold"), Column("ARGUMENTS", wraps=True), Column("DESCRIPTION", wraps=True))
PROMPT_COLUMNS = (Column("PROMPT", style="bold"), *TOOL_COLUMNS[1:])
RESOURCE_COLUMNS = (Column("URI", style="bold", wraps=True), Column("NAME", wraps=True), Column("TYPE", spare=1))


@click.command(short_help="List an instance's tools and their arguments.")
@name_argument
@json_option
@pass_session
def tools(session: Session, /, *, name: str) -> None:
    """List an instance's tools and their arguments; `*` marks the ones that must be given."""
    answer = session.api.get(path_of("instances", name, "tools"))
    if session.shown_as_json(answer):
        return
    listed = answer.document.get("tools") or []
    _show(session, name, "tools", answer, columns=TOOL_COLUMNS, rows=[_tool_row(tool) for tool in listed])
    if listed and session.screen.is_terminal:
        session.screen.note(("Next: ", "dim"), f"{program()} call {name} --tool {listed[0].get('name')}")


@click.command(short_help="List an instance's prompts and their arguments.")
@name_argument
@json_option
@pass_session
def prompts(session: Session, /, *, name: str) -> None:
    """List an instance's prompts and their arguments; `*` marks the ones that must be given."""
    answer = session.api.get(path_of("instances", name, "prompts"))
    if session.shown_as_json(answer):
        return
    rows = [_prompt_row(prompt) for prompt in answer.document.get("prompts") or []]
    _show(session, name, "prompts", answer, columns=PROMPT_COLUMNS, rows=rows)


@click.command(short_help="List an instance's resources.")
@name_argument
@json_option
@pass_session
def resources(session: Session, /, *, name: str) -> None:
    """List an instance's resources, and the patterns of those that it makes on demand (with `{…}`)."""
    answer = session.api.get(path_of("instances", name, "resources"))
    if session.shown_as_json(answer):
        return
    listed = [*(answer.document.get("resources") or []), *(answer.document.get("resource_templates") or [])]
    rows = [_resource_row(resource) for resource in listed]
    _show(session, name, "resources", answer, columns=RESOURCE_COLUMNS, rows=rows)


def _show(
    session: Session, name: str, what: str, answer: Answer, *, columns: Sequence[Column], rows: list[list[str | Text]]
) -> None:
    if rows:
        session.screen.table(columns, rows)
    else:
        session.screen.note(f"{name} has no {what}.")
    if rows and answer.document.get("stale"):
        session.screen.note(("Note: ", "bold yellow"), f"{name} is not running; this is what it offered before.")


def _prompt_row(prompt: Mapping[str, Any]) -> list[str | Text]:
    arguments = prompt.get("arguments")
    given = [a for a in arguments if isinstance(a, dict)] if isinstance(arguments, list) else []
    words = [f"{a.get('name')}{'*' if a.get('required') is True else ''}" for a in given]
    return [str(prompt.get("name")), " ".join(words) or "-", _description(prompt)]


def _resource_row(resource: Mapping[str, Any]) -> list[str | Text]:
    where = resource.get("uri") or resource.get("uriTemplate")
    return [str(where), str(resource.get("title") or resource.get("name") or "-"), str(resource.get("mimeType") or "-")]


def _description(item: Mapping[str, Any]) -> str:
    return clean_lines(item.get("description") or item.get("title") or "")[0]


def _tool_row(tool: Mapping[str, Any]) -> list[str | Text]:
    schema = tool.get("inputSchema")
    properties, required = (
        (schema.get("properties"), schema.get("required")) if isinstance(schema, dict) else (None, None)
    )
    marked = required if isinstance(required, list) else ()
    words = [f"{key}{'*' if key in marked else ''}" for key in properties] if isinstance(properties, dict) else []
    return [str(tool.get("name")), " ".join(words) or "-", _description(tool)]
