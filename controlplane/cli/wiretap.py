"""`corral wire`: the JSON-RPC messages of one instance, as they pass."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from controlplane.cli.client import path_of
from controlplane.cli.session import Session, examples, json_option, name_argument, pass_session
from controlplane.wire.text import clean, clean_lines
from controlplane.wire.units import count, local_time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controlplane.cli.screen import Part, Screen

FRAME_CHARS = 160
"""Of a message on one line; `--full` and `--json` show all that the API sends."""
METHOD_WIDTH = 24
ARROWS = {"to_server": "→", "from_server": "←"}
KIND_STYLE = {"error": "red", "noise": "yellow", "notification": "dim"}
SIGNS = {"request": "?", "response": "=", "error": "!", "notification": ".", "noise": "~"}
BREAKS = {
    "gap": "some messages are missing here",
    "lagged": "the stream was cut because it was not read fast enough",
    "shutdown": "the control plane is stopping",
}

EPILOG = examples(
    "{corral} wire memory",
    "{corral} wire memory --method tools/call --method 'notifications/*'",
    "{corral} wire memory --direction from_server --full",
    "{corral} wire memory --json | jq -c 'select(.kind == \"error\") | .frame | fromjson'",
    note="→ goes to the server, ← comes from it. ? asks, = answers, ! is an error, . is a notification, ~ is no message. "
    "An answer shows the method and the time of its request. Secrets are hidden by the control plane. It takes the role deployer.",
)


@click.command(short_help="Watch the JSON-RPC messages of an instance, live.", epilog=EPILOG)
@name_argument
@click.option(
    "-m", "--method", "methods", multiple=True, metavar="METHOD", help="Only this method, or tools/*; repeatable."
)
@click.option("--direction", type=click.Choice(list(ARROWS)), help="Only one way.")
@click.option("--full", is_flag=True, help="Show messages whole, however long.")
@json_option
@pass_session
def wire(session: Session, /, *, name: str, methods: tuple[str, ...], direction: str | None, full: bool) -> None:
    """Watch what passes between Corral and a server's processes, both ways, until Ctrl-C."""

    def on_break(reason: str) -> None:
        session.screen.note((f"-- {reason}", "yellow"))

    if not session.json and session.screen.is_terminal:
        session.screen.note(("Watching; Ctrl-C ends.", "dim"))
    query = {"method": ",".join(methods) or None, "direction": direction}
    for event in session.api.follow(path_of("instances", name, "wire"), query, on_break=on_break):
        if session.json:
            session.screen.json_bytes(event.data.encode("utf-8", "backslashreplace"))
        else:
            show_event(session.screen, json.loads(event.data), chars=None if full else FRAME_CHARS)


def show_event(screen: Screen, event: Mapping[str, Any], *, chars: int | None = FRAME_CHARS) -> None:
    """Print one event of the stream on one line.

    Args:
        screen: Where.
        event: A message, or what became of the stream itself.
        chars: How much of a message is shown; None for all of it.
    """
    kind = str(event.get("type"))
    if kind in BREAKS:
        screen.note((f"-- {BREAKS[kind]}", "yellow"))
    elif kind == "wire":
        screen.line(*_line(event, chars))
        screen.out.file.flush()


def _line(event: Mapping[str, Any], chars: int | None) -> list[Part]:
    kind, lane, ms = str(event.get("kind")), event.get("lane"), event.get("ms")
    style = KIND_STYLE.get(kind, "")
    method = clean_lines(event.get("method") or "-")[0]
    id_ = "" if event.get("id") is None else f"#{clean_lines(event['id'])[0]}"
    return [
        (local_time(event.get("timestamp"), datetime.now(UTC)), "dim"),
        "  ",
        (ARROWS.get(str(event.get("direction")), "·"), "bold"),
        " ",
        (f"{SIGNS.get(kind, clean(kind))} {method:<{METHOD_WIDTH}}", style),
        f" {id_:<5}",
        (f" {f'{ms:.1f} ms' if isinstance(ms, int | float) else '':>10}", "cyan"),
        (f" {count(event.get('size_bytes')):>7} B", "dim"),
        (f"  [{clean(lane)} {clean(event.get('pid'))}]" if lane not in (None, "primary") else "", "magenta"),
        "  ",
        _shortened(event, chars),
    ]


def _shortened(event: Mapping[str, Any], chars: int | None) -> str:
    frame = str(event.get("frame") or "")
    is_cut = bool(event.get("truncated")) or (chars is not None and len(frame) > chars)
    return " ".join(clean_lines(frame[:chars])) + ("…" if is_cut else "")
