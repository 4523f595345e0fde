"""The `mcpServers` file of MCP clients, read into deploy requests. Pure: the environment is passed in.

Knows the two spellings (`mcpServers`, and `servers` as VS Code writes it) and the variables that clients expand in
them. Refuses to guess: a server that needs something we do not have is returned with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from attrs import field, frozen

_VARIABLE = re.compile(r"\$\{(?:(env|input):)?([A-Za-z_][A-Za-z0-9_.-]*)(?::-([^}]*))?\}")
_NOT_IN_NAMES = re.compile(r"[^a-z0-9-]+")
NAME_CHARS = 63
STDIO = (None, "stdio", "local")


@frozen
class Entry:
    """One server of the file: its request, or why it cannot be deployed. `skipped` ones are no failure."""

    key: str
    name: str
    request: dict[str, Any] | None = field(default=None, repr=False)
    reason: str = ""
    skipped: bool = False


class NotServers(ValueError):
    """The document is not an `mcpServers` file."""


class _Unmet(ValueError):
    """A variable of an entry has no value here."""


def name_of(key: str) -> str:
    """Return an instance name for a server's key: lower case, every other run of characters one `-`."""
    return _NOT_IN_NAMES.sub("-", key.lower()).strip("-")[:NAME_CHARS].rstrip("-")


def entries_of(document: Any, environ: Mapping[str, str]) -> list[Entry]:
    """Read the servers of a client's file, in its order.

    Args:
        document: The parsed JSON.
        environ: Where `${VAR}`, `${env:VAR}` and `${VAR:-default}` are looked up.

    Raises:
        NotServers: it holds no servers, under none of the names that clients use.
    """
    servers = _servers(document)
    return [_entry(key, server, environ) for key, server in servers.items()]


def _servers(document: Any) -> Mapping[str, Any]:
    if isinstance(document, Mapping):
        for holder in (document, document.get("mcp"), document.get("settings")):
            for name in ("mcpServers", "servers"):
                if isinstance(holder, Mapping) and isinstance(holder.get(name), Mapping):
                    return dict(holder[name])
    raise NotServers('there is no "mcpServers" (or, as VS Code writes it, "servers") object in it')


def _entry(key: str, server: Any, environ: Mapping[str, str]) -> Entry:
    name = name_of(key)
    if not name:
        return Entry(key, key, reason="its name holds no letter or digit")
    if not isinstance(server, Mapping):
        return Entry(key, name, reason="not an object")
    if server.get("disabled") is True or server.get("enabled") is False:
        return Entry(key, name, reason="disabled in the file", skipped=True)
    if server.get("type", server.get("transport")) not in STDIO or (server.get("url") and not server.get("command")):
        return Entry(key, name, reason="a remote server: there is nothing to run", skipped=True)
    if _leads_here(server):
        return Entry(key, name, reason="it leads to Corral already", skipped=True)
    try:
        config = _expanded(
            {part: server[part] for part in ("command", "args", "env", "cwd") if part in server}, environ
        )
    except _Unmet as unmet:
        return Entry(key, name, reason=str(unmet))
    if not config.get("command"):
        return Entry(key, name, reason='it has no "command"')
    return Entry(key, name, {"name": name, "source_type": "mcp_config", "mcp_config": config})


def _leads_here(server: Mapping[str, Any]) -> bool:
    """Whether an entry is what `corral connect` writes for clients that start commands."""
    args = server.get("args")
    if not isinstance(args, list) or args[-2:-1] != ["proxy"]:
        return False
    return PurePath(str(server.get("command"))).name == "corral" or "controlplane.cli" in args


def _expanded(value: Any, environ: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: _value(match, environ), value)
    if isinstance(value, Mapping):
        return {key: _expanded(item, environ) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, environ) for item in value]
    return value


def _value(match: re.Match[str], environ: Mapping[str, str]) -> str:
    kind, name, default = match.groups()
    if kind == "input":
        raise _Unmet(f"it asks for the input {name!r}: write the value, or ${{env:NAME}}, in its place")
    if name in environ:
        return environ[name]
    if default is not None:
        return str(default)
    raise _Unmet(f"the variable {name} is not set here")
