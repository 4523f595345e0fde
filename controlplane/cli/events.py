"""`corral events`: what happens in the fleet, live, or what happened to one instance."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from controlplane.cli.client import path_of
from controlplane.cli.listing import BROKEN
from controlplane.cli.logs import moment_option
from controlplane.cli.screen import status_text
from controlplane.cli.session import Session, complete_instances, examples, json_option, pass_session
from controlplane.wire.text import clean, clean_lines
from controlplane.wire.units import local_time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controlplane.cli.client import Answer
    from controlplane.cli.screen import Screen

FREQUENT = frozenset({"heartbeat", "connected", "sample", "call", "log"})
"""Shown only when asked for by type: a glance at the fleet is for what changes."""
ENVELOPE = frozenset({"type", "instance_id", "timestamp", "name", "status", "owner", "event_id", "data", "incarnation"})
FOR_TABLES = frozenset({"started_at", "created_at", "desired", "isolation", "limits"})
"""What programs keep their tables true with, and nobody reads line by line."""
WORDS = ("phase", "method", "reason", "message", "detail")
"""Members that are sentences: shown without their names."""
NAME_WIDTH = 16
TYPE_STYLE = {"post_mortem": "red", "gap": "yellow", "lagged": "yellow", "shutdown": "yellow", "deployed": "green"}

EPILOG = examples(
    "{corral} events",
    "{corral} events memory --since 1h",
    "{corral} events --since 1d --type post_mortem",
    "{corral} events -f memory --type status --type call",
    "{corral} events --json | jq -c 'select(.type == \"post_mortem\")'",
    note="Samples, calls, log lines and heartbeats are frequent: they are shown when their --type is asked for, and "
    "always in --json, which prints one event a line when it follows.",
)


@click.command(short_help="Follow what happens in the fleet, or show one instance's past.", epilog=EPILOG)
@click.argument("name", required=False, shell_complete=complete_instances)
@click.option("-f", "--follow", is_flag=True, help="With NAME: go on with new events, until Ctrl-C.")
@click.option("--since", metavar="15m|TIME", help="Show what happened after this.")
@click.option(
    "-n", "--limit", type=click.IntRange(1, 500), default=100, show_default=True, help="Of the past: at most so many."
)
@click.option("-t", "--type", "types", multiple=True, metavar="TYPE", help="Only events of this type; repeatable.")
@json_option
@pass_session
def events(
    session: Session, /, *, name: str | None, follow: bool, since: str | None, limit: int, types: tuple[str, ...]
) -> None:
    """Follow what happens in the whole fleet, or show its past with --since; with NAME, show what happened to one
    instance, or follow it with -f."""
    if name is None and since is not None and not follow:
        _show_fleets_past(session, moment_option(since), limit, types)
    elif name is None:
        _follow(session, "/events", types, None)
    elif follow:
        _follow(session, path_of("mcp", name, "stream"), types, name)
    else:
        answer = session.api.get(
            path_of("instances", name, "events"), since=moment_option(since), limit=limit, type=",".join(types) or None
        )
        _show_past(session, answer, name)


def _show_fleets_past(session: Session, since: str | None, limit: int, types: tuple[str, ...]) -> None:
    """The newest so many, and the oldest of them first, as they would have been followed."""
    answer = session.api.get("/events/history", since=since, limit=limit, type=",".join(types) or None)
    if session.shown_as_json(answer):
        return
    past = answer.document.get("events") or []
    for event in reversed(past):
        show_event(session.screen, {**(event.get("data") or {}), **event})
    if not past:
        session.screen.note("No events.")


def _show_past(session: Session, answer: Answer, name: str) -> None:
    if session.shown_as_json(answer):
        return
    past = answer.document.get("events") or []
    for event in past:
        show_event(session.screen, {"name": name, **(event.get("data") or {}), **event})
    if not past:
        session.screen.note("No events.")


def _follow(session: Session, path: str, types: tuple[str, ...], name: str | None) -> None:
    def on_break(reason: str) -> None:
        session.screen.note((f"-- {reason}", "yellow"))

    if not session.json and session.screen.is_terminal:
        session.screen.note(("Following; Ctrl-C ends.", "dim"))
    names: dict[str, str] = {}
    for frame in session.api.follow(path, on_break=on_break):
        event = json.loads(frame.data)
        wanted = event.get("type") in types if types else session.json or event.get("type") not in FREQUENT
        if not wanted:
            continue
        if session.json:
            session.screen.json_bytes(frame.data.encode("utf-8", "backslashreplace"))
        else:
            show_event(session.screen, {"name": _name_of(session, event, names, name), **event})


def _name_of(session: Session, event: Mapping[str, Any], names: dict[str, str], name: str | None) -> str:
    """Return the name of the instance that an event is about; asked for once where the event does not say it."""
    key = event.get("instance_id")
    if not key or name:
        return name or ""
    if event.get("name"):
        names[key] = str(event["name"])
    elif key not in names:
        for instance in session.api.get("/instances", limit=500).document.get("instances") or ():
            names[str(instance.get("instance_id"))] = str(instance.get("name"))
        names.setdefault(key, str(key)[:8])
    return names[key]


def show_event(screen: Screen, event: Mapping[str, Any]) -> None:
    """Print one event on one line: when, what, whose, then its own words, then the numbers that say something."""
    kind, status = str(event.get("type")), event.get("status")
    event = _as_past(event)
    words = [clean_lines(event[key])[0] for key in WORDS if event.get(key)]
    numbers = [
        _number(key, value) for key, value in event.items() if key not in {*ENVELOPE, *FOR_TABLES, *WORDS} and value
    ]
    screen.line(
        (local_time(event.get("timestamp"), datetime.now(UTC)), "dim"),
        "  ",
        (f"{clean(kind):<12}", TYPE_STYLE.get(kind, "cyan")),
        (f"{clean(event.get('name') or '-'):<{NAME_WIDTH}}", "bold"),
        *((status_text(str(status)), "  ") if status else ()),
        "  ".join(word for word in words if word != status),
        (f"  {' '.join(numbers)}" if numbers else "", "dim"),
    )
    screen.out.file.flush()


def _as_past(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """Say of the reason of an earlier failure that it is one: a status carries it for as long as the instance lives."""
    status, reason = event.get("status"), event.get("reason")
    if event.get("type") != "status" or not reason or status in BROKEN:
        return event
    recovered = " (recovered)" if status == "running" else ""
    return {**event, "reason": f"last failure: {reason}{recovered}"}


def _number(key: str, value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"{key}={clean_lines(text)[0]}"
