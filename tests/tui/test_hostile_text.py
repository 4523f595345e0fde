"""Whatever a tenant wrote is shown, never obeyed: asserted on every byte that a real terminal is sent."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests import servers
from tests.e2e.plane import deployment, open_plane, wait_until
from tests.tui.terminal import SEQUENCE
from tests.tui.tmux import ENDED, SEEN_S, in_tmux

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.plane import Plane
    from tests.tui.tmux import Tmux

pytestmark = pytest.mark.needs("tmux")
MARK = "31337"
"""In every planted sequence, and in nothing that the dashboard sends of itself."""
PLANTED = (
    f"\x1b[{MARK}m",
    f"\x1b[{MARK};5H",
    f"\x1b]52;c;{MARK}\x07",
    f"\x1b]0;{MARK}\x07",
    f"\x1b]8;;http://x.invalid/{MARK}\x1b\\link\x1b]8;;\x1b\\",
    f"\x1bP{MARK}\x1b\\",
    f"\x9b{MARK}m",
    f"\x9d52;c;{MARK}\x9c",
    f"\u202e{MARK}\u202c\u2066\u200b\u200f",
    f"\x00\x08\x07\x7f\r{MARK}",
)
MARKUP = "[bold red]x[/] [@click=app.quit]y[/] [/nothing] [link=http://x.invalid]z[/link] $text-error"
SPITE = "".join(PLANTED) + MARKUP
UNSAFE = re.compile(
    "[\x00-\x07\x09\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
)
"""What may not be left over once the dashboard's own sequences are taken away; backspace and such move a cursor."""


@pytest.fixture(scope="module")
def spiteful() -> Iterator[Plane]:
    """Running: `imp`, which has the planted text in everything; failed: `dud`, whose last words are it."""
    with open_plane() as opened:
        opened.start()
        given = {"SPITE": json.dumps(SPITE)}
        opened.deploy("imp", servers.source("spiteful.py"), environment_vars=given, labels={"team": MARKUP[:40]})
        opened.execute("imp", "tools/call", {"name": "spite", "arguments": {}})
        last_words = f"import sys\nsys.stderr.write({SPITE!r} + '\\n')\nsys.exit({SPITE!r})".encode()
        opened.request("POST", "/api/v2/deploy?wait=20", json=deployment("dud", last_words))
        yield opened


def obeyed(received: bytes) -> list[str]:
    """Planted sequences that came through, and characters that a terminal would obey outside of any sequence."""
    found = [repr(sequence) for sequence in SEQUENCE.findall(received) if MARK.encode() in sequence]
    left = SEQUENCE.sub(b"", received).decode(errors="replace")
    return found + [repr(left[max(0, m.start() - 30) : m.end() + 30]) for m in UNSAFE.finditer(left)][:10]


def test_nothing_that_a_server_wrote_is_obeyed_by_the_terminal(spiteful: Plane, tmp_path: Path) -> None:
    kept = tmp_path / "bytes"
    with in_tmux(spiteful, tmp_path, columns=200, lines=60) as tmux:
        tmux.run("pipe-pane", f"cat > {kept}")
        tmux.sees("imp", "dud", "● live", "[bold red]x[/]")
        _command(tmux, "open imp", "1 Overview", "instructions")
        for key, seen in (("2", r"log \x1b"), ("3", "TYPE"), ("4", "CPU"), ("5", "inputSchema"), ("7", "following")):
            tmux.type(key)
            tmux.sees(seen)
        spiteful.execute("imp", "tools/call", {"name": "spite", "arguments": {}})
        tmux.sees("tools/call")
        tmux.send("Enter")
        tmux.sees("jsonrpc")
        tmux.send("Escape")
        _sees_not(tmux, "jsonrpc")
        tmux.type("6")
        tmux.sees("Send")
        for tool, seen in (("does", "✓ result"), ("fail", "failed"), ("ask", "asks"), ("spite", "✓ result")):
            tmux.send("C-o")
            tmux.sees("Call what?")
            tmux.type(tool)
            tmux.sees(f"│ {tool} ", "▸tool")
            tmux.send("Enter")
            _sees_not(tmux, "Call what?")
            tmux.send("F5")
            tmux.sees(seen)
            if tool == "ask":
                tmux.send("C-n")
                tmux.sees("decline")
        for view in ("[raw]", "[tree]", "[read]"):
            tmux.send("C-t")
            tmux.sees(view)
        _leave(tmux, kept)


def test_nothing_that_a_failed_one_left_is_obeyed_by_the_terminal(spiteful: Plane, tmp_path: Path) -> None:
    kept = tmp_path / "bytes"
    with in_tmux(spiteful, tmp_path, columns=200, lines=60) as tmux:
        tmux.run("pipe-pane", f"cat > {kept}")
        tmux.sees("imp", "dud", "● live")
        for place in ("timeline", "alerts", "host", "tokens", "usage"):
            _command(tmux, place, f"› {place}")
        _command(tmux, "open dud", "1 Overview", "dud")
        tmux.type("2")
        tmux.sees("› logs", "31337")
        _leave(tmux, kept)


def _leave(tmux: Tmux, kept: Path) -> None:
    tmux.send("C-q")
    tmux.sees(f"{ENDED} 0")
    received = kept.read_bytes()
    assert MARK.encode() in received, "it was on the screen"
    assert obeyed(received) == []


def _command(tmux: Tmux, line: str, *seen: str) -> None:
    tmux.type(":")
    tmux.type(line)
    tmux.send("Enter")
    tmux.sees(*seen)


def _sees_not(tmux: Tmux, text: str) -> None:
    wait_until(lambda: text not in tmux.screen(), SEEN_S, f"no {text}")
