"""The HTTP fields that go with a message: what a client on stdio need not know of.

Pure. By the specification's Streamable HTTP transport: `Mcp-Session-Id` and `MCP-Protocol-Version` in the legacy era;
in the modern one `MCP-Protocol-Version`, `Mcp-Method`, `Mcp-Name`, and `Mcp-Param-*` for the arguments that a tool's
schema marks with `x-mcp-header`, which is learnt from the answers to tools/list that pass.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from attrs import define, field

if TYPE_CHECKING:
    from controlplane.cli.relay.frame import Frame

ACCEPT = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""The parameter that `Mcp-Name` repeats, by method; of every `tasks/…` it is the task's id."""
MARK = "x-mcp-header"
MAX_TOOLS = 10_000
"""Tools whose marks are kept; nobody lists more."""
MAX_DEPTH = 32
"""Nesting of a schema's properties that is followed."""

_PLAIN = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_SENTINEL = re.compile(r"=\?base64\?.*\?=")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

Path = tuple[str, ...]


def encoded(value: str) -> str:
    """Return a text as a field's value; what a field cannot carry goes in as base64."""
    if value == "" or (_PLAIN.fullmatch(value) and not _SENTINEL.fullmatch(value)):
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


def modern_fields(frame: Frame) -> dict[str, str]:
    """Return the fields of a modern message, but for its tool's own."""
    assert frame.version is not None
    assert frame.method is not None
    fields = {"MCP-Protocol-Version": safely_encoded(frame.version), "Mcp-Method": safely_encoded(frame.method)}
    named_by = "taskId" if frame.method.startswith("tasks/") else NAMED_BY.get(frame.method)
    name = frame.param(named_by) if named_by else None
    return fields | ({"Mcp-Name": safely_encoded(name)} if isinstance(name, str) else {})


def safely_encoded(value: str) -> str:
    """Return a text as a field's value; nothing for what is no text, such as half a surrogate pair."""
    try:
        return encoded(value)
    except UnicodeEncodeError:  # the server says what it thinks of it
        return ""


@define
class Marks:
    """Which arguments of which tools are repeated in a field."""

    _of: dict[str, dict[Path, str]] = field(factory=dict)

    def learn(self, result: Any, *, first_page: bool) -> None:
        """Take the tools of one page of an answer to tools/list."""
        if first_page:
            self._of.clear()
        tools = result.get("tools") if isinstance(result, Mapping) else None
        for tool in tools if isinstance(tools, list) else ():
            if isinstance(tool, Mapping) and isinstance(tool.get("name"), str) and len(self._of) < MAX_TOOLS:
                self._of[tool["name"]] = _marks_of(tool.get("inputSchema"))

    def fields(self, frame: Frame) -> dict[str, str]:
        """Return the fields that a tools/call needs for its tool."""
        name = frame.param("name") if frame.method == "tools/call" else None
        marks = self._of.get(name) if isinstance(name, str) else None
        if not marks:
            return {}
        arguments = frame.param("arguments")
        found = ((token, _rendered(_at(arguments, path))) for path, token in marks.items())
        return {f"Mcp-Param-{token}": value for token, value in found if value is not None}


def _marks_of(schema: Any) -> dict[Path, str]:
    """Find a schema's marks; those of a tool with a wrong one do not count."""
    marks: dict[Path, str] = {}
    for path, token, kind in _marked(schema, ()):
        if not isinstance(token, str) or not _TOKEN.fullmatch(token) or kind not in ("string", "integer", "boolean"):
            return {}
        marks[path] = token
    unique = {token.lower() for token in marks.values()}
    return marks if len(unique) == len(marks) else {}


def _marked(schema: Any, path: Path) -> Iterator[tuple[Path, Any, Any]]:
    properties = schema.get("properties") if isinstance(schema, Mapping) and len(path) < MAX_DEPTH else None
    for name, below in properties.items() if isinstance(properties, Mapping) else ():
        if isinstance(below, Mapping):
            if MARK in below:
                yield (*path, name), below[MARK], below.get("type")
            yield from _marked(below, (*path, name))


def _at(arguments: Any, path: Path) -> Any:
    for name in path:
        arguments = arguments.get(name) if isinstance(arguments, Mapping) else None
    return arguments


def _rendered(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return safely_encoded(str(value)) if isinstance(value, str | int | float) else None
