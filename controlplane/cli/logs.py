"""`corral logs`: what an instance printed, and what Corral says about it; `-f` goes on across restarts of both."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from controlplane.cli.client import path_of
from controlplane.cli.session import Session, examples, json_option, name_argument, pass_session
from controlplane.wire.text import clean, clean_lines
from controlplane.wire.units import local_time, parse_moment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controlplane.cli.screen import Screen

TAIL = 100
"""Lines shown when nothing else bounds them."""
MOST_LINES = 10_000
"""Of one answer, by the API."""
PAGE = 1000
LEVELS = ("debug", "info", "warning", "error")
STREAM_STYLE = {"stdout": "", "stderr": "yellow", "system": "cyan", "build": "magenta"}

EPILOG = examples(
    "{corral} logs memory",
    "{corral} logs -f memory",
    "{corral} logs memory --since 15m --level error",
    "{corral} logs memory --stream build --tail 500",
    note="Lines of standard output are those that are no JSON-RPC message. --json prints one document, with -f one "
    "event a line.",
)


def moment_option(text: str | None, option: str = "--since") -> str | None:
    """Read the value of `option`, --since or --until.

    Raises:
        click.BadParameter: it is neither a duration nor a time.
    """
    try:
        return parse_moment(text, datetime.now(UTC)) if text else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from error


@click.command(short_help="Show what an instance printed; -f follows.", epilog=EPILOG)
@name_argument
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines, until Ctrl-C.")
@click.option("-n", "--tail", type=click.IntRange(0, MOST_LINES), help=f"The last lines only.  [default: {TAIL}]")
@click.option("--since", metavar="15m|TIME", help="Only lines after this.")
@click.option("--until", metavar="15m|TIME", help="Only lines before this.")
@click.option("--level", "levels", type=click.Choice(LEVELS), multiple=True, help="Only this level; repeatable.")
@click.option("--stream", type=click.Choice(list(STREAM_STYLE)), help="Only lines of this stream.")
@click.option("--incarnation", type=click.IntRange(min=1), metavar="N", help="Only lines of the n-th process.")
@click.option("-g", "--grep", "q", metavar="TEXT", help="Only lines that hold this text.")
@json_option
@pass_session
def logs(
    session: Session,
    /,
    *,
    name: str,
    follow: bool,
    tail: int | None,
    since: str | None,
    until: str | None,
    levels: tuple[str, ...],
    **filters: str | int | None,
) -> None:
    """Show what an instance printed, and what Corral says about it. Failed and removed instances answer too."""
    path = path_of("instances", name, "logs")
    query = {
        "since": moment_option(since),
        "until": moment_option(until, "--until"),
        "level": ",".join(levels) or None,
        **filters,
    }
    if tail is not None or not since:
        query["tail"] = TAIL if tail is None else tail
    if follow:
        _follow(session, path, query)
    elif session.json:
        answer = session.api.get(path, limit=MOST_LINES, **query)
        session.screen.json_bytes(answer.body)
    else:
        shown = _show_pages(session, path, query)
        if not shown:
            session.screen.note("No lines." if any(query[key] for key in query if key != "tail") else "No lines yet.")


def _show_pages(session: Session, path: str, query: Mapping[str, str | int | None]) -> int:
    """Print every line that fits, page by page; returns how many there were."""
    printer, shown, cursor = LinePrinter(session.screen), 0, None
    while True:
        page = session.api.get(path, limit=PAGE, cursor=cursor, **query).document
        for line in page.get("logs") or ():
            printer.show(line)
            shown += 1
        cursor = page.get("next_cursor")
        if not cursor or query.get("tail") is not None:
            return shown


def _follow(session: Session, path: str, query: Mapping[str, str | int | None]) -> None:
    printer = LinePrinter(session.screen)

    def on_break(reason: str) -> None:
        session.screen.note((f"-- {reason}", "yellow"))

    again = {**query, "follow": True, "tail": 0, "since": None}
    for event in session.api.follow(path, {**query, "follow": True}, on_break=on_break, again=again):
        if session.json:
            session.screen.json_bytes(event.data.encode("utf-8", "backslashreplace"))
        else:
            printer.event(json.loads(event.data))


class LinePrinter:
    """Prints log lines, with a rule where the instance's next process begins."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._incarnation: Any = None

    def show(self, line: Mapping[str, Any]) -> None:
        """Print one line, of the list or of the stream."""
        incarnation = line.get("incarnation")
        if self._incarnation not in (None, incarnation) and incarnation:
            self._screen.line((f"── process {incarnation} ──", "dim"))
        self._incarnation = incarnation or self._incarnation
        stream, level = str(line.get("stream")), str(line.get("log_level") or line.get("level") or "")
        style = "red" if level.lower() in ("error", "critical") else STREAM_STYLE.get(stream, "")
        when = local_time(line.get("timestamp"), datetime.now(UTC))
        for text in clean_lines(line.get("message", "")):
            self._screen.line((when, "dim"), "  ", (f"{clean(stream):<6}", style), "  ", text)
        self._screen.out.file.flush()

    def event(self, event: Mapping[str, Any]) -> None:
        """Print one event of the stream: a line, or what became of the stream itself."""
        kind = event.get("type")
        if kind in ("log", None):
            self.show(event)
        elif kind == "gap":
            self._screen.note(("-- some lines are missing here", "yellow"))
        elif kind == "lagged":
            self._screen.note(("-- the stream was cut because it was not read fast enough", "yellow"))
