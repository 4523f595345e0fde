"""What is too much to look at: floods of lines, and results that are long, wide and deep. Keys go on doing things."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import TYPE_CHECKING

import pytest

from tests import servers
from tests.e2e.plane import open_plane
from tests.tui.driving import contexts_of, drive
from tui.panes.logs import LogsPane

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.plane import Plane
    from tests.tui.driving import Driver

FLOOD = 10_000
DROPPED = re.compile(r"dropped (\d+) lines")
"""What the control plane says in the log in place of lines that came faster than it keeps them."""
FREEZE_S = 10.0
"""A hang guard for one key."""
WIDE_TEXT = "日本語 👩‍👩‍👧‍👦 é̂̃ שלום مرحبا ｆｕｌｌ"


@pytest.fixture(scope="module")
def burdened() -> Iterator[Plane]:
    """Running: `ox`, with wide characters in all it says; its labels too."""
    with open_plane() as opened:
        opened.start()
        given = {"SPITE": json.dumps(WIDE_TEXT)}
        opened.deploy("ox", servers.source("spiteful.py"), environment_vars=given, labels={"team": WIDE_TEXT})
        yield opened


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The history of a test is its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


async def _inspect(person: Driver, tool: str) -> None:
    await person.sees("live", "ox")
    await person.command("inspect ox")
    await person.sees("Send", "tool ")
    await person.press("ctrl+o")
    await person.sees("Call what?")
    await person.type(tool)
    await person.until(lambda: f" {tool} " in person.line_with("▸tool"), f"{tool} under the cursor")
    await person.press("enter")
    await person.sees_not("Call what?")
    await person.press("f5")


def test_a_flood_of_ten_thousand_lines_is_followed_to_its_end(burdened: Plane) -> None:
    async def script(person: Driver) -> None:
        await person.sees("live", "ox")
        await person.command("logs ox")
        await person.sees("● following")
        flood = asyncio.create_task(
            asyncio.to_thread(burdened.execute, "ox", "tools/call", {"name": "flood", "arguments": {}})
        )
        for key, seen in (("f", "‖ paused"), ("f", "● following"), ("question_mark", "Keys"), ("escape", "following")):
            began = time.monotonic()
            await person.press(key)
            await person.sees(seen)
            assert time.monotonic() - began < FREEZE_S, key
        await flood
        burdened.execute(
            "ox", "tools/call", {"name": "spite", "arguments": {}}
        )  # a line after it: what was dropped last
        buffer = person.app.screen.query_one(LogsPane)._buffer

        def accounted() -> int:
            lines = [line.text for line in buffer.lines if "of the flood" in line.text]
            assert len(lines) == len(set(lines)), "none twice"
            return len(lines) + sum(int(found[1]) for line in buffer.lines if (found := DROPPED.search(line.text)))

        await person.until(lambda: accounted() >= FLOOD, "every line, or a line that says how many are not there")

    drive(contexts_of(burdened), script)


@pytest.mark.parametrize("tool", ["long", "wide", "deep"])
def test_a_result_that_is_too_much_can_be_looked_at_folded_and_left(burdened: Plane, tool: str) -> None:
    async def script(person: Driver) -> None:
        await _inspect(person, tool)
        await person.until(lambda: "✓ result" in person.text() or "✗" in person.text(), "an outcome", 60)
        for key in ("f6", "ctrl+t", "end", "home", "ctrl+t", "end", "space", "home", "enter", "ctrl+t", "end", "f6"):
            began = time.monotonic()
            await person.press(key)
            await person.pilot.pause()
            assert time.monotonic() - began < FREEZE_S, key
        await person.press("escape")
        await person.command("fleet")
        await person.sees("› fleet")

    drive(contexts_of(burdened), script)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_wide_characters_shift_no_column_and_spill_over_no_edge(burdened: Plane, size: tuple[int, int]) -> None:
    async def script(person: Driver) -> None:
        await person.sees("live", "ox", "● running")
        _fits(person)
        await person.command("open ox")
        await person.sees("1 Overview")
        for key, seen in (("2", "following"), ("3", "WHAT HAPPENED"), ("5", "8 tools"), ("6", "Send"), ("1", "status")):
            await person.press(key)
            await person.sees(seen)
            _fits(person)
            if key == "5":
                edges = {line.index("│") for line in person.lines() if line.count("│") == 1 and size[0] > 100}
                assert len(edges) <= size[1]

    drive(contexts_of(burdened), script, size=size)


def _fits(person: Driver) -> None:
    for strip in person.app.screen._compositor.render_strips():
        assert strip.cell_length == sum(segment.cell_length for segment in strip) == person.app.size.width
