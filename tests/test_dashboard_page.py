"""The reference of the dashboard says what the program does: every key of every screen, every command, every limit."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.binding import Binding
from textual.keys import format_key

import tui
from tui import app, client, following, once
from tui.board import alerts, board, event_columns, filtering, frames, loglines, rows
from tui.commands import COMMANDS
from tui.deploying import course
from tui.inspector import conversation, desk, history, outline, schema_form
from tui.panes import logs
from tui.screens import timeline
from tui.web import gate, server

PAGE = Path(__file__).parents[1] / "docs/reference/dashboard.md"
SECTIONS: dict[str, tuple[str, ...]] = {
    "Everywhere": ("Dashboard", "BoardScreen"),
    "The line at the foot": ("Prompt",),
    "Lists": ("Grid",),
    "Logs and open messages": ("Lines",),
    "Texts": ("Reading", "Output"),
    "JSON trees": ("JsonTree",),
    "Dialogs": (
        "ConfirmScreen",
        "AskScreen",
        "SecretScreen",
        "PickScreen",
        "MenuScreen",
        "NameScreen",
        "KeysScreen",
    ),
    "Fleet": ("FleetScreen",),
    "An instance": ("InstanceScreen",),
    "Overview": ("OverviewPane", "Page"),
    "Logs": ("LogsPane",),
    "Events": ("EventsPane",),
    "Metrics": ("MetricsPane",),
    "Tools": ("ToolsPane",),
    "Inspector": ("InspectorPane", "TargetBar", "SchemaForm"),
    "What was sent before": ("PastRequestsScreen",),
    "A question of the server": ("QuestionScreen",),
    "Wire": ("WirePane", "Tape"),
    "Timeline": ("TimelineScreen",),
    "Alerts": ("AlertsScreen",),
    "Host": ("HostScreen",),
    "Usage": ("UsageScreen",),
    "Tokens": ("TokensScreen",),
    "Contexts": ("ContextsScreen",),
    "Deploy": ("DeployScreen",),
    "Servers of a file": ("ServerPicker",),
    "Its course": ("CourseScreen",),
    "Several at once": ("BatchScreen",),
}
"""Whose keys stand under which heading."""
OF_LISTS = {"enter", "tab"}
"""Keys that a section may tell of although they are those of the list in it."""
WORDS = {"⏎": "enter", "↑": "up", "↓": "down", "←": "left", "→": "right", "del": "delete"}
TAKES = {
    "": "",
    "text?": "a filter",
    "instance?": "an instance",
    "context?": "a context",
    "theme?": "a theme",
}
LIMITS: dict[str, tuple[int, ...]] = {
    "lines of a log": (loglines.KEPT_LINES,),
    "characters of a log line": (loglines.MAX_TEXT,),
    "lines read from the store after a break": (logs.FILL_MOST,),
    "messages of the wire": (frames.KEPT_FRAMES, frames.KEPT_CHARS // 2**20),
    "events of one instance": (event_columns.KEPT_ENTRIES,),
    "events of the fleet, live": (board.KEPT_EVENTS,),
    "events of the fleet, read back": (timeline.MOST_EARLIER,),
    "alerts": (alerts.KEPT,),
    "samples of a trend": (rows.KEPT_SAMPLES,),
    "what a call's server said meanwhile": (desk.HEARD_KEPT,),
    "lines of a build": (course.KEPT_LINES,),
    "requests in the inspector's history": (history.KEPT, history.KEPT_INSTANCES),
    "arguments of a request in the history": (history.MAX_PARAMS_CHARS,),
    "fields of a form": (schema_form.MAX_FIELDS,),
    "lines of an unfolded JSON tree": (outline.MAX_LINES,),
    "questions of a server in one call": (conversation.MAX_ROUNDS,),
    "commands, and filters, that `up` brings back": (app.PAST_LINES,),
    "screens on top of each other": (app.DEPTH,),
    "browser tabs with `--web`": (server.MAX_TABS,),
    "wrong codes with `--web`": (gate.MAX_WRONG_CODES,),
}


def section(title: str) -> str:
    """What stands under a heading, up to the next one."""
    text = PAGE.read_text()
    found = re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"no heading {title}"
    return found[1]


def table(title: str) -> list[list[str]]:
    """The lines of the table under a heading, by cells, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def classes() -> Iterator[type[Any]]:
    """Everything in the dashboard that has keys of its own."""
    for module in pkgutil.walk_packages(tui.__path__, "tui."):
        if not module.name.endswith("__main__"):
            for found in vars(importlib.import_module(module.name)).values():
                if isinstance(found, type) and found.__module__ == module.name and "BINDINGS" in vars(found):
                    yield found


def keys_of(kind: type[Any]) -> set[str]:
    """The keys that `?` lists for it, as the page writes them."""
    bindings = [binding for binding in kind.BINDINGS if not isinstance(binding, Binding) or binding.description]
    return {_written(binding.key) for binding in Binding.make_bindings(bindings) if binding.key != "ctrl+@"}


def _written(key: str) -> str:
    modifier, plus, last = key.rpartition("+")
    shown = format_key(last)
    shown = WORDS.get(shown, shown)
    return modifier + plus + (shown.upper() if re.fullmatch(r"f\d", shown) else shown)


@pytest.mark.parametrize("title", SECTIONS)
def test_each_section_lists_the_keys_of_its_part_and_no_others(title: str) -> None:
    there = {kind.__name__: kind for kind in classes()}
    keys = set().union(*(keys_of(there[name]) for name in SECTIONS[title]))
    listed = {key for first, *_ in table(title) for key in re.findall(r"`([^`]+)`", first)}
    listed |= {key for first, *others in table(title) if "…" in first for key in re.findall(r"`(\d)`", others[0])}

    assert keys - listed == set()
    assert listed - keys - OF_LISTS == set()


def test_every_part_with_keys_has_its_section() -> None:
    covered = {name for names in SECTIONS.values() for name in names}

    assert {kind.__name__ for kind in classes()} == covered


def test_the_commands_are_listed_with_their_other_names_and_what_they_take() -> None:
    listed = [
        (name.strip("`"), tuple(re.findall(r"`([^`]+)`", also)), takes, does)
        for name, also, takes, does in table("Commands")
    ]

    assert listed == [(c.name, c.aliases, TAKES[c.takes], c.help) for c in COMMANDS]


def test_the_limits_are_those_in_force() -> None:
    listed = {what: bound for what, bound, _ in table("Limits")}

    assert listed.keys() == LIMITS.keys()
    wrong = {what for what, bound in listed.items() if not _names_all(bound, LIMITS[what])}
    assert wrong == set()


def _names_all(bound: str, values: tuple[int, ...]) -> bool:
    return [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", bound)] == list(values)


def test_the_times_exit_codes_and_words_of_the_page_are_those_in_force() -> None:
    text, codes = (
        PAGE.read_text(),
        {line.split("|")[1].strip() for line in PAGE.read_text().splitlines() if "--once" in line},
    )

    assert f"after {following.RETRY_FIRST_S:g} s" in text
    assert f"up to {following.RETRY_MOST_S:g} s; one without a byte for {client.SILENCE_S:g} s" in text.replace(
        "\n", " "
    )
    assert {str(once.EXIT_NOT_ALLOWED), str(once.EXIT_NO_CONNECTION)} <= codes
    assert f"a word of {filtering.ID_CHARS} characters" in text
    assert f"| `o` | {timeline.PAGE} older ones |" in text
