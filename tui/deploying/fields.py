"""The fields of the deploy form: which way of deploying has which, and which place of the request each is. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from attrs import frozen

Way = Literal["command", "git", "local", "servers"]
WAYS: Mapping[Way, str] = {
    "command": "Command",
    "git": "Git",
    "local": "This machine",
    "servers": "mcpServers JSON",
}
SOURCES: tuple[Way, ...] = ("git", "local")
SINGLE: tuple[Way, ...] = ("command", "git", "local")
"""The ways that deploy one server, under a name of its own."""


@frozen(kw_only=True)
class Field:
    """One line of the form.

    Args:
        key: Its name in a draft.
        label: Its name for people.
        ways: The ways of deploying that have it.
        hint: What stands in it while it is empty.
        more: Whether it is among those that are shown on demand.
        choices: What it may be, where that is known; the first is the server's own default.
        pointers: The places of the request that it fills, as JSON Pointers; what is below them counts too.
    """

    key: str
    label: str
    ways: tuple[Way, ...] = SINGLE
    hint: str = ""
    more: bool = False
    choices: tuple[str, ...] = ()
    pointers: tuple[str, ...] = ()


FIELDS: tuple[Field, ...] = (
    Field(key="command", label="Command", ways=("command",), hint="npx -y @modelcontextprotocol/server-memory", pointers=("/mcp_config/command", "/mcp_config/args")),
    Field(key="cwd", label="Folder", ways=("command",), hint="where it starts; empty: a folder of its own", pointers=("/mcp_config/cwd",)),
    Field(key="url", label="Repository", ways=("git",), hint="https://…/server.git", pointers=("/source_url",)),
    Field(key="ref", label="Ref", ways=("git",), hint="branch, tag or commit; empty: the default branch", pointers=("/source_ref",)),
    Field(key="path", label="Path", ways=("local",), hint="a folder, a file, or an archive (.zip, .tar.gz …)", pointers=("/source", "/source_data")),
    Field(key="subdir", label="Subfolder", ways=SOURCES, hint="the folder of the source that counts", pointers=("/source_subdir",)),
    Field(key="language", label="Language", ways=SOURCES, hint="empty: guessed", pointers=("/language",)),
    Field(key="entry", label="Entry point", ways=SOURCES, hint="the file to run; empty: guessed", pointers=("/entry_point",)),
    Field(key="name", label="Name", pointers=("/name",)),
    Field(key="env", label="Variables", pointers=("/mcp_config/env", "/environment_vars")),
    Field(key="labels", label="Labels", hint="team=search stage=prod", pointers=("/labels",)),
    Field(key="dependencies", label="Dependencies", ways=SOURCES, more=True, hint="packages, with blanks between them", pointers=("/dependencies",)),
    Field(key="build", label="Build step", ways=SOURCES, more=True, hint="an own command, run by sh", pointers=("/build_command",)),
    Field(key="memory_mb", label="Memory, MiB", more=True, hint="empty: the ceiling", pointers=("/limits/memory_mb",)),
    Field(key="cpu_percent", label="CPU, %", more=True, hint="100 is one core; empty: the ceiling", pointers=("/limits/cpu_percent",)),
    Field(key="disk_mb", label="Disk, MiB", more=True, hint="empty: the ceiling", pointers=("/limits/disk_mb",)),
    Field(key="processes", label="Processes", more=True, hint="empty: the ceiling", pointers=("/limits/processes",)),
    Field(key="call_timeout_s", label="Call time, s", more=True, hint="seconds that a call may take", pointers=("/limits/call_timeout_s",)),
    Field(key="log_kb_s", label="Log, KiB/s", more=True, hint="what is kept of its output; empty: the ceiling", pointers=("/limits/log_kb_s",)),
    Field(key="restart", label="Restart", more=True, choices=("on-failure", "always", "never"), pointers=("/restart",)),
    Field(key="isolation", label="Isolation", more=True, choices=("auto", "process", "confined", "namespaced"), pointers=("/isolation",)),
    Field(key="network", label="Network", more=True, choices=("open", "allow", "none"), pointers=("/network/mode", "/network")),
    Field(key="hosts", label="Hosts", more=True, hint="for network allow: host or host:port, with blanks between", pointers=("/network/hosts",)),
    Field(key="sessions", label="Sessions", more=True, choices=("shared", "per-session"), pointers=("/sessions",)),
)  # fmt: skip
LIMITS = ("memory_mb", "cpu_percent", "disk_mb", "processes", "call_timeout_s", "log_kb_s")


def fields_of(way: Way) -> tuple[Field, ...]:
    """The fields that a way of deploying has, in their order."""
    return tuple(field for field in FIELDS if way in field.ways)


def field_at(pointer: str, way: Way) -> str:
    """The field that fills a place of the request; empty: none does. The longest match counts."""
    place = pointer if pointer.startswith("/") else "/" + pointer
    best = ("", "")
    for field in fields_of(way):
        for mine in field.pointers:
            if (place == mine or place.startswith(mine + "/")) and len(mine) > len(best[0]):
                best = (mine, field.key)
    return best[1]
