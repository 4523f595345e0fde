"""What the overview says of an instance: sections of facts from the API's documents."""

from __future__ import annotations

from typing import Any

import pytest
from rich.cells import cell_len

from tui.board import facts
from tui.board.facts import Section, bar, wrapped
from tui.board.instance_columns import INCARNATION_COLUMNS, LANE_COLUMNS, REVISION_COLUMNS
from tui.board.rows import Row
from tui.board.story import Story

HOSTILE = "\x1b[2J\u202eevil\x07"


def told(section: Section) -> dict[str, str]:
    """Facts by name; what goes on from one is joined to it."""
    found: dict[str, str] = {}
    name = ""
    for fact in section.facts:
        name = fact.name or name
        found[name] = f"{found[name]}\n{fact.cell.text}" if name in found else fact.cell.text
    return found


@pytest.mark.parametrize(
    ("share", "drawn"),
    [(0, "░░░░"), (0.01, "█░░░"), (0.5, "██░░"), (1, "████"), (3, "████"), (-1, "░░░░")],
)
def test_a_bar_shows_a_share(share: float, drawn: str) -> None:
    assert bar(share, 4) == drawn


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("", 5, [""]),
        ("one two", 20, ["one two"]),
        ("one two", 5, ["one", "two"]),
        ("abc def", 3, ["abc", "def"]),
        ("abcdefgh", 3, ["abc", "def", "gh"]),
        ("漢字漢字", 5, ["漢字", "漢字"]),
    ],
)
def test_a_text_is_cut_at_blanks_where_there_are_any(text: str, width: int, lines: list[str]) -> None:
    assert wrapped(text, width) == lines
    assert all(cell_len(line) <= width for line in wrapped(text, width))


def test_use_stands_against_its_limit_with_a_word_when_it_is_near() -> None:
    row = Row(id="i", cpu=76.0, memory=10.0, processes=1)
    section = facts.usage(row, {"cpu_percent": 80, "memory_mb": 1000, "processes": 256})
    said = told(section)
    assert said["CPU"].endswith("76% of 80% (95%) at the limit")
    assert said["memory"].endswith("10M of 1000M (1.0%)")
    assert [fact.cell.tone for fact in section.facts[:2]] == ["bad", ""]


def test_a_launch_is_told_without_values_of_variables() -> None:
    said = told(
        facts.launch(
            {
                "mcp_config": {"command": "npx", "args": ["-y", "a b"], "cwd": None},
                "environment_vars": ["KEY", "REGION"],
                "labels": {"b": "2", "a": "1"},
                "notes": ["mind this"],
            }
        )
    )
    assert said["command"] == "npx -y 'a b'"
    assert said["variables"] == "KEY, REGION"
    assert said["labels"] == "a=1\nb=2"
    assert said["note"] == "! mind this"
    assert "folder" not in said


def test_a_post_mortem_is_told_whole() -> None:
    said = told(
        facts.post_mortem(
            {
                "code": "exited",
                "reason": "the process exited",
                "phase": "handshake",
                "at": "2026-01-01T00:00:00Z",
                "incarnation": 4,
                "exit_code": 3,
                "stderr_tail": ["one", "two"],
                "last_frames": ["→ {}"],
                "peak_memory_mb": 12.0,
                "peak_processes": 1,
                "ran_s": 2.0,
                "hint": "look at it",
                "samples": [{"ago_s": 1.0, "memory_mb": 8.0}, {"ago_s": 0.0, "memory_mb": 12.0}],
            }
        )
    )
    assert said["why"] == "✗ the process exited"
    assert said["ended"] == "exit 3, after serving 2.0s"
    assert said["when"].endswith("process 4")
    assert said["peaks"] == "12M memory, 1 process"
    assert said["hint"] == "→ look at it"
    assert said["before it"] == "memory: 8M → 12M\ntaken: 2 samples, from 1.0s to 0.0s before the end"
    assert said["stderr"] == "the last 2\none\ntwo"
    assert said["frames"] == "the last 1\n→ {}"


def test_next_steps_stand_where_the_server_has_no_hint() -> None:
    assert told(facts.post_mortem({"hint": None}, next_steps="2 shows its log"))["hint"] == "→ 2 shows its log"
    assert told(facts.post_mortem({"hint": "install it"}, next_steps="2 shows its log"))["hint"] == "→ install it"


def test_a_long_tail_is_cut_at_its_beginning() -> None:
    said = told(facts.post_mortem({"stderr_tail": [str(n) for n in range(500)]}))
    assert said["stderr"].startswith(f"the last {facts.STDERR_LINES} of 500\n{500 - facts.STDERR_LINES}\n")


def test_limits_say_what_holds_them_and_mounts_what_is_seen_of_the_host() -> None:
    row = Row(id="i", cpu=40.0, memory=10.0, processes=1)
    held = {"cpu_percent": "hard", "memory_mb": "soft"}
    said = told(facts.usage(row, {"cpu_percent": 80, "memory_mb": 1000}, held))
    assert said["CPU"].endswith("40% of 80% (50%), hard")
    assert said["memory"].endswith("(1.0%), soft")
    mounts = [{"source": "/a", "target": "/a", "mode": "ro"}, {"source": "/b", "target": "/data", "mode": "rw"}]
    said = told(facts.confinement({"mounts": mounts, "isolation": "namespaced"}))
    assert said["mounts"] == "/a, read-only\n/b, seen as /data, read and write"


def test_nothing_that_a_server_wrote_can_harm_the_terminal() -> None:
    document: dict[str, Any] = {
        "mcp_config": {"command": HOSTILE, "args": [HOSTILE], "cwd": HOSTILE},
        "labels": {HOSTILE: HOSTILE},
        "mounts": [{"source": HOSTILE, "target": HOSTILE, "mode": HOSTILE}],
        "notes": [HOSTILE],
        "dependencies": [HOSTILE],
        "protocol": {"version": HOSTILE, "server_info": {"name": HOSTILE, "title": HOSTILE}, "capabilities": {HOSTILE: {}},
                     "instructions": HOSTILE},
        "reason": HOSTILE, "code": HOSTILE, "phase": HOSTILE, "signal": HOSTILE, "hint": HOSTILE,
        "stderr_tail": [HOSTILE + "\nmore"], "last_frames": [HOSTILE], "samples": [{HOSTILE: 1, "memory_mb": HOSTILE}],
        "source": HOSTILE, "cause": HOSTILE, "state": HOSTILE, "kind": HOSTILE, "capabilities": [HOSTILE],
    }  # fmt: skip
    sections = [facts.launch, facts.protocol, facts.confinement, facts.post_mortem, facts.revision, facts.process]
    for section in sections:
        assert all(fact.cell.text.isprintable() for fact in section(document).facts)
    for column in (*LANE_COLUMNS, *REVISION_COLUMNS, *INCARNATION_COLUMNS):
        assert column.cell(document, 0.0).text.isprintable()


def test_the_last_post_mortem_is_the_documents_own_or_else_the_newest_processs() -> None:
    story = Story(incarnations=[{"number": 2, "post_mortem": None}, {"number": 1, "post_mortem": {"reason": "first"}}])
    assert story.last_post_mortem == {"reason": "first"}
    story.document = {"last_error": {"reason": "second"}}
    assert story.last_post_mortem == {"reason": "second"}


@pytest.mark.parametrize(
    ("process", "end", "ran"),
    [
        ({"is_running": True, "started_at": "1970-01-01T00:00:10Z"}, "● runs", "50s"),
        ({"exit_code": 3, "post_mortem": {}, "ran_s": 2.0}, "○ exit 3", "2.0s"),
        ({"exit_code": 3, "post_mortem": {"reason": "x"}, "ran_s": 2.0}, "✗ exit 3", "2.0s"),
        ({"signal": "SIGTERM", "ended_at": "x"}, "○ SIGTERM", "-"),
        ({}, "○ not seen", "-"),
    ],
)
def test_a_process_is_told_by_how_it_ended(process: dict[str, Any], end: str, ran: str) -> None:
    cells = {column.key: column.cell(process, 60.0).text for column in INCARNATION_COLUMNS}
    assert (cells["end"], cells["ran"]) == (end, ran)
