"""What an event means in words, alone and beside the one before it."""

from __future__ import annotations

from typing import Any

import pytest

from tui.board.cells import Cell
from tui.board.sentences import TELLING, Narrator, sentence

RUNNING = {"status": "running", "pid": 7, "revision": 2, "restarts": 0}
SPEC = {"language": "python", "source_type": "direct", "revision": 1, "labels": {}, "limits": {"memory_mb": 512}}


@pytest.mark.parametrize(
    ("type_", "data", "before", "said"),
    [
        ("status", RUNNING, None, Cell("running: process 7, revision 2", "good")),
        ("status", RUNNING, {"status": "starting"}, Cell("starting → running: process 7, revision 2", "good")),
        ("status", {"status": "building", "phase": "install"}, {"status": "building"}, Cell("building: install")),
        (
            "status",
            {"status": "failed", "phase": "x", "reason": "it exited with 3", "restarts": 2},
            {"status": "running"},
            Cell("running → failed: it exited with 3 (restart 2)", "bad"),
        ),
        ("status", {"status": "stopped", "phase": "stopped"}, {"status": "stopping"}, Cell("stopping → stopped", "dim")),
        (
            "status",
            RUNNING | {"candidate": {"revision": 3, "phase": "handshake"}},
            RUNNING,
            Cell("revision 3 comes up beside the one in force: handshake"),
        ),
        ("status", RUNNING, RUNNING | {"candidate": {"revision": 3}}, Cell("revision 3 is not on its way any more", "dim")),
        ("deployed", SPEC, None, Cell("deployed as revision 1 (python, direct)", "accent")),
        ("changed", SPEC | {"revision": 2}, SPEC, Cell("changed: revision 2 is in force", "accent")),
        ("changed", SPEC | {"labels": {"a": "b"}}, SPEC, Cell("changed: labels a=b", "accent")),
        ("changed", SPEC, SPEC | {"labels": {"a": "b"}}, Cell("changed: labels taken away", "accent")),
        ("changed", SPEC | {"limits": {"memory_mb": 64}}, SPEC, Cell("changed: memory 512M → 64M", "accent")),
        ("changed", SPEC, None, Cell("changed: revision 1 (python, direct)", "accent")),
        (
            "post_mortem",
            {"code": "exited", "reason": "status 3", "phase": "handshake"},
            None,
            Cell("failed during handshake (exited): status 3", "bad"),
        ),
        (
            "revision_failed",
            {"revision": 3, "reason": "status 4"},
            None,
            Cell("revision 3 did not take over: status 4", "bad"),
        ),
        ("watchdog", {"step": "warn", "reason": "uses 9"}, None, Cell("watchdog: it uses 9", "warn")),
        ("watchdog", {"step": "kill", "reason": "uses 9"}, None, Cell("watchdog: it uses 9: it is ended", "bad")),
        ("watchdog", {"step": "calm", "reason": "uses 1 again"}, None, Cell("watchdog: it uses 1 again", "good")),
        ("watchdog", {}, None, Cell("watchdog: it says nothing more", "warn")),
        ("gap", {"missed": 1200}, None, Cell("1,200 events are missing here", "warn")),
        ("gap", {"missed": None, "reason": "cut"}, None, Cell("events may be missing here: cut", "warn")),
        (
            "services",
            {"status": "degraded", "services": {"redis": "away", "mcp_manager": "healthy"}},
            None,
            Cell("the control plane is degraded: instances healthy, Redis away", "warn"),
        ),
        ("tools_changed", {}, None, Cell("its tools are others than before", "accent")),
        (
            "notification",
            {"method": "notifications/message", "params": {"level": "error", "data": "oh no"}},
            None,
            Cell("says (error): oh no", "dim"),
        ),
        ("deleted", {"name": "x"}, None, Cell("deleted: nothing is left of it but this history", "warn")),
        ("never_heard_of", {"size": 3, "name": "x"}, None, Cell("never heard of: size=3")),
        ("status", {}, None, Cell("?")),
        ("post_mortem", {}, None, Cell("failed while running: no reason is known", "bad")),
    ],
)  # fmt: skip
def test_an_event_is_told_in_words(type_: str, data: dict[str, Any], before: dict[str, Any] | None, said: Cell) -> None:
    assert sentence(type_, data, before) == said


def test_what_a_server_wrote_can_neither_harm_the_terminal_nor_fill_the_line() -> None:
    for data in (
        {"reason": "\x1b[2Jgone", "code": "\u202eevil"},
        {"reason": "x", "phase": "\x07"},
        {"method": "notifications/message", "params": {"data": "\x1b]0;title\x07" + "y" * 10_000}},
    ):
        for type_ in ("post_mortem", "notification", "status", "revision_failed", "\x1bnew"):
            said = sentence(type_, data).text
            assert said.isprintable()
            assert len(said) < TELLING + 100


def test_a_narrator_remembers_each_instance_by_itself() -> None:
    narrator = Narrator()
    narrator.tell("status", "a", {"status": "starting"})
    narrator.tell("status", "b", {"status": "restarting"})
    assert narrator.tell("status", "a", RUNNING).text.startswith("starting → running")
    narrator.tell("deleted", "b", {})
    assert narrator.tell("status", "b", RUNNING).text.startswith("running")
