"""`corral ls` and `corral inspect`: the fleet in a table, and all of one instance."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click
from attrs import evolve
from rich.text import Text

from controlplane.cli.client import path_of
from controlplane.cli.exits import CommandFailed, program
from controlplane.cli.screen import Column, status_text
from controlplane.cli.session import Session, json_option, name_argument, pass_session
from controlplane.wire.course import course
from controlplane.wire.text import clean, clean_lines
from controlplane.wire.units import count, duration, in_unit, local_date, mebibytes, millis, percent, plain_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controlplane.cli.client import Answer
    from controlplane.cli.screen import Screen

PAGE = 500
"""The most that the API gives at once."""
STATUSES = ("pending", "building", "starting", "running", "restarting", "stopping", "stopped", "failed")

COLUMNS = (
    Column("NAME", gives=True, style="bold"),
    Column("STATUS"),
    Column("LANG", spare=4),
    Column("UP", right=True, spare=1),
    Column("CPU", right=True),
    Column("MEM", right=True),
    Column("CALLS", right=True, spare=2),
    Column("ERR", right=True),
    Column("P95", right=True, spare=3),
)
OWNER = Column("OWNER", gives=True)
NODE = Column("NODE", style="dim")
WIDE = (
    Column("ISOLATION"),
    Column("SOFT LIMITS"),
    Column("PID", right=True),
    NODE,
    Column("ID", style="dim"),
)
BROKEN = frozenset({"failed", "restarting"})
"""Statuses in which the last failure is why; in every other it is past."""


def all_pages(session: Session, path: str, noun: str, **query: str | float | None) -> Answer:
    """Fetch a whole list: one page as it came, or several as one document of the same shape."""
    answer = page = session.api.get(path, limit=PAGE, **query)
    rows: list[Any] = []
    notes: list[str] = []
    while page.document.get("next_cursor"):
        rows += page.document[noun]
        notes += page.document.get("notes") or ()
        page = session.api.get(path, limit=PAGE, cursor=page.document["next_cursor"], **query)
        document = {**page.document, noun: [*rows, *page.document[noun]]}
        if notes := list(dict.fromkeys([*notes, *(page.document.get("notes") or ())])):
            document["notes"] = notes
        body = json.dumps(document, ensure_ascii=False).encode("utf-8", "backslashreplace")
        answer = evolve(page, document=document, body=body)
    return answer


@click.command(short_help="List instances, with what they use and how they answer.")
@click.option(
    "--status",
    type=click.Choice(STATUSES),
    metavar="STATUS",
    help="Only those in this state: running, failed, stopped …",
)
@click.option("--name", help="Only the one of this name.")
@click.option("--language", help="Only those in this language.")
@click.option("-l", "--label", metavar="KEY=VALUE", help="Only those with this label.")
@click.option("--owner", help="Only this owner's (administrators).")
@click.option("-q", "--quiet", is_flag=True, help="Names only.")
@click.option("-w", "--wide", is_flag=True, help="Isolation, the limits that are soft, control planes and ids as well.")
@json_option
@pass_session
def ls(session: Session, /, *, quiet: bool, wide: bool, **filters: str | None) -> None:
    """List instances, with what they use and how they answer."""
    answer = all_pages(session, "/instances", "instances", **filters)
    if session.shown_as_json(answer):
        return
    instances = answer.document["instances"]
    if quiet:
        for instance in instances:
            session.screen.raw(clean(instance.get("name")))
    elif instances:
        _show_fleet(session.screen, instances, _nodes(session, instances) if wide else None)
    elif any(filters.values()):
        session.screen.note("No instance matches.")
    else:
        example = f"{program()} deploy memory -- npx -y @modelcontextprotocol/server-memory"
        session.screen.note("Nothing is deployed yet. Try: ", (example, "bold"))
    if not quiet:
        for note in answer.document.get("notes") or ():
            session.screen.note(clean(note))


def _nodes(session: Session, instances: list[Mapping[str, Any]]) -> Mapping[str, str]:
    """The control planes that there are, by id, with what people call them; empty where there is but one.

    Only administrators may ask for their addresses; for others they have their ids.
    """
    found = {str(instance["node"]): str(instance["node"]) for instance in instances if instance.get("node")}
    if found:
        with suppress(CommandFailed):
            for node in session.api.get("/nodes").document["nodes"]:
                found[str(node.get("id"))] = str(node.get("url"))
    return found if len(found) > 1 else {}


def _show_fleet(screen: Screen, instances: list[Mapping[str, Any]], nodes: Mapping[str, str] | None) -> None:
    """Print the table. `nodes`: as `_nodes` has them, for the wide one; None: the narrow one is wanted."""
    several = len({instance.get("owner") for instance in instances}) > 1
    wide = [] if nodes is None else [column for column in WIDE if nodes or column is not NODE]
    columns = [*([OWNER] if several else []), *COLUMNS, *wide]
    rows = []
    for instance in instances:
        more = [] if nodes is None else _wide(instance, nodes)
        rows.append([*([str(instance.get("owner"))] if several else []), *_row(instance), *more])
    screen.table(columns, rows)
    if not screen.is_terminal:
        return
    for instance in instances:
        evidence = instance.get("last_error")
        if instance.get("status") in BROKEN and evidence:
            screen.say(("✗ ", "red"), (str(instance.get("name")), "bold"), f": {evidence.get('reason')}")


def _row(instance: Mapping[str, Any]) -> list[str | Text]:
    restarts = instance.get("restarts") or 0
    status = status_text(str(instance.get("status")))
    return [
        str(instance.get("name")),
        status.append(f" ({restarts}×)", "dim") if restarts else status,
        str(instance.get("language") or "-"),
        duration(instance.get("uptime_s")),
        percent(instance.get("cpu_percent")),
        mebibytes(instance.get("memory_mb")),
        count(instance.get("calls")),
        Text(count(instance.get("errors")), "red" if instance.get("errors") else ""),
        millis(instance.get("p95_ms")),
    ]


def _wide(instance: Mapping[str, Any], nodes: Mapping[str, str]) -> list[str]:
    soft = " ".join(_of_kind(instance, "soft")) or ("none" if instance.get("enforcement") else "-")
    level = str(instance.get("isolation") or "-")
    holder = [nodes.get(str(instance.get("node")), "-")] if nodes else []
    return [level, soft, str(instance.get("pid") or "-"), *holder, str(instance.get("instance_id"))]


def _of_kind(instance: Mapping[str, Any], kind: str) -> list[str]:
    """The limits that are held in this way: `hard` by the kernel, `soft` by Corral."""
    enforcement = instance.get("enforcement") or {}
    return [plain_name(name) for name, how in enforcement.items() if how == kind]


@click.command(short_help="Show all of one instance, with why it failed.")
@name_argument
@json_option
@pass_session
def inspect(session: Session, /, *, name: str) -> None:
    """Show all of one instance: what runs, its limits and use, its tools, and why it last failed."""
    answer = session.api.get(path_of("instances", name))
    if session.shown_as_json(answer):
        return
    instance, screen = answer.document, session.screen
    status, phase = str(instance.get("status")), str(instance.get("phase"))
    parts = [status_text(status)] if phase == status else [status_text(status), f"  {phase}"]
    screen.line((str(instance.get("name")), "bold"), "  ", *parts)
    screen.facts([(title, value) for title, value in _facts(instance) if value], indent=2)
    _show_evidence(screen, instance.get("last_error") or instance.get("post_mortem"), status)


def _facts(instance: Mapping[str, Any]) -> list[tuple[str, str]]:
    config = instance.get("mcp_config") or {}
    server = (instance.get("protocol") or {}).get("server_info") or {}
    return [
        ("id", str(instance.get("instance_id"))),
        ("owner", str(instance.get("owner"))),
        ("command", " ".join([str(config.get("command", "")), *map(str, config.get("args") or ())]).strip()),
        ("folder", str(config.get("cwd") or "")),
        ("source", f"{instance.get('source_type')}, {instance.get('language')}, revision {instance.get('revision')}"),
        ("variables", ", ".join(map(str, instance.get("environment_vars") or ()))),
        ("server", " ".join(str(server[key]) for key in ("name", "version") if server.get(key))),
        ("protocol", _pairs({key: (instance.get("protocol") or {}).get(key) for key in ("era", "version", "dialect")})),
        ("node", str(instance.get("node") or "")),
        ("process", _process(instance)),
        *(("", _lane(lane)) for lane in instance.get("lanes") or () if lane.get("kind") != "primary"),
        ("use", _use(instance)),
        ("calls", _calls(instance)),
        ("limits", _in_units(instance.get("limits"))),
        ("", _enforcement(instance)),
        ("restart", _in_units(instance.get("restart"))),
        ("isolation", str(instance.get("isolation") or "")),
        ("network", _network(instance.get("network") or {})),
        *(("mount", _mount(mount)) for mount in instance.get("mounts") or ()),
        ("labels", _pairs(instance.get("labels"))),
        ("tools", ", ".join(str(tool.get("name")) for tool in instance.get("tools") or ())),
        ("created", local_date(instance.get("created_at"))),
        ("endpoint", str(instance.get("mcp_endpoint"))),
        *(("note", line) for note in instance.get("notes") or () for line in clean_lines(note)),
    ]


def _pairs(value: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{key} {item}" for key, item in (value or {}).items() if item not in (None, [], {}))


def _in_units(settings: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{plain_name(key)} {in_unit(key, value)}" for key, value in (settings or {}).items())


def _enforcement(instance: Mapping[str, Any]) -> str:
    kinds = {kind: ", ".join(_of_kind(instance, kind)) for kind in ("hard", "soft")}
    return "; ".join(f"{kind}: {names}" for kind, names in kinds.items() if names)


def _network(network: Mapping[str, Any]) -> str:
    hosts = ", ".join(map(str, network.get("hosts") or ()))
    return f"{network.get('mode') or ''}{f': {hosts}' if hosts else ''}"


def _mount(mount: Mapping[str, Any]) -> str:
    source, target = str(mount.get("source")), str(mount.get("target"))
    where = source if source == target else f"{source}, seen as {target}"
    return f"{where}, {'read and write' if mount.get('mode') == 'rw' else 'read-only'}"


def _lane(lane: Mapping[str, Any]) -> str:
    """A process beside the primary: whom it serves."""
    whose = "one session's own" if lane.get("kind") == "private" else "shared"
    asked = ", ".join(map(str, lane.get("capabilities") or ())) or "nothing"
    counts = f"{lane.get('clients')} clients, {lane.get('calls_in_flight')} calls in flight"
    return f"pid {lane.get('pid')}, {whose}, {lane.get('era')}, clients can be asked: {asked}; {counts}"


def _process(instance: Mapping[str, Any]) -> str:
    if not instance.get("pid"):
        return f"none, {instance.get('restarts')} restarts"
    uptime = duration(instance.get("uptime_s"))
    return f"pid {instance['pid']}, up {uptime}, {instance.get('restarts')} restarts"


def _use(instance: Mapping[str, Any]) -> str:
    if instance.get("memory_mb") is None:
        return ""
    cpu, memory = percent(instance.get("cpu_percent")), mebibytes(instance.get("memory_mb"))
    return f"{cpu} CPU, {memory} memory, {count(instance.get('processes'))} processes"


def _calls(instance: Mapping[str, Any]) -> str:
    numbers = f"{count(instance.get('calls'))}, {count(instance.get('errors'))} errors"
    if instance.get("p50_ms") is None:
        return numbers
    return f"{numbers}, p50 {millis(instance.get('p50_ms'))}, p95 {millis(instance.get('p95_ms'))}"


def _show_evidence(screen: Screen, evidence: Mapping[str, Any] | None, status: str) -> None:
    if not evidence:
        return
    at = local_date(evidence.get("at"))
    if status in BROKEN:
        screen.line(("  ✗ ", "red"), (f"failed {at}", "bold"))
    else:
        screen.line((f"  last failure {at}{' (recovered)' if status == 'running' else ''}", "dim"))
    seen = [(key.replace("_", " "), evidence.get(key)) for key in ("reason", "phase", "exit_code", "signal", "hint")]
    tail = [line for entry in evidence.get("stderr_tail") or () for line in clean_lines(entry)]
    rows = [(name, str(value)) for name, value in seen if value is not None]
    lines = [("last lines" if at == 0 else "", line) for at, line in enumerate(tail)]
    screen.facts([*rows, *course(evidence.get("samples")), *lines], indent=4)
