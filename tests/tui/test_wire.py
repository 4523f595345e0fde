"""The wire tab: real JSON-RPC traffic of a real server, as it passes, driven by keys."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

import pytest

from tests.e2e.plane import open_plane
from tests.tui.driving import contexts_of, drive
from tui.board.frames import FrameBuffer, Wanted, detail, pretty
from tui.panes.wire import WirePane

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.plane import Plane
    from tests.tui.driving import Driver


@pytest.fixture(scope="module")
def talking() -> Iterator[Plane]:
    """`talker` runs."""
    with open_plane() as opened:
        opened.start()
        opened.deploy("talker")
        yield opened


def wire_of(person: Driver) -> WirePane:
    return person.app.screen.query_one(WirePane)


async def open_wire(person: Driver) -> None:
    await person.sees("live", "talker")
    await person.press("w")
    await person.sees("following", "Nothing has passed")


def message(number: int, **more: object) -> dict[str, object]:
    return {
        "type": "wire",
        "timestamp": "2026-01-01T00:00:00.000Z",
        "direction": "to_server",
        "kind": "request",
        "method": "tools/call",
        "id": number,
        "lane": "primary",
        "pid": 7,
        "incarnation": 1,
        "ms": None,
        "size_bytes": 2,
        "frame": "{}",
        "truncated": False,
    } | more


def test_each_call_is_seen_both_ways_with_kind_method_and_id(talking: Plane) -> None:
    async def script(person: Driver) -> None:
        await open_wire(person)
        talking.tool("talker", "echo", text="hello wire")
        await person.sees("? request", "✓ response")
        request, response = person.line_with("? request"), person.line_with("✓ response")
        assert "→" in request
        assert "tools/call" in request
        assert "←" in response
        assert "hello wire" in response
        talking.execute("talker", "no/such")
        await person.sees("✗ error", "no/such")
        talking.tool("talker", "noise")
        await person.sees("! noise", "this is not JSON")

    drive(contexts_of(talking), script, size=(200, 60))


def test_enter_opens_a_message_with_its_other_half_and_escape_closes_it(talking: Plane) -> None:
    async def script(person: Driver) -> None:
        await open_wire(person)
        talking.tool("talker", "echo", text="both halves")
        await person.sees("✓ response")
        await person.press("up", "enter")
        await person.sees('"method": "tools/call"', '"text": "both halves"', "held")
        assert person.text().count('"jsonrpc": "2.0"') == 2
        await person.press("escape")
        await person.sees_not('"jsonrpc": "2.0"')
        await person.sees("Wire")
        await person.press("escape")
        await person.sees("NAME", "STATUS")

    drive(contexts_of(talking), script)


def test_the_filter_finds_methods_and_text_and_one_direction_is_enough(talking: Plane) -> None:
    async def script(person: Driver) -> None:
        await open_wire(person)
        talking.tool("talker", "echo", text="sought after")
        talking.execute("talker", "tools/list")
        await person.sees("tools/list")
        await person.press("slash")
        await person.type("sought")
        await person.press("enter")
        await person.sees_not("tools/list")
        await person.sees("2 of 4 messages")
        await person.press("o")
        await person.sees("1 of 4 messages", "only → to server")
        await person.press("slash", "escape")
        await person.sees("2 of 4 messages")

    drive(contexts_of(talking), script)


def test_a_pause_holds_the_picture_and_counts_what_passes(talking: Plane) -> None:
    async def script(person: Driver) -> None:
        await open_wire(person)
        talking.tool("talker", "echo", text="early")
        await person.sees("early")
        await person.press("space")
        await person.sees("paused, 0 passed since")
        talking.tool("talker", "echo", text="late")
        await person.sees("paused, 2 passed since")
        assert "late" not in person.text()
        await person.press("p")
        await person.sees("late", "following")
        await person.press("x")
        await person.sees("no messages", "Nothing has passed")

    drive(contexts_of(talking), script, size=(200, 60))


def test_messages_are_copied_and_exported_as_json_lines(
    talking: Plane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    async def script(person: Driver) -> None:
        await open_wire(person)
        talking.tool("talker", "echo", text="to keep")
        await person.sees("✓ response")
        await person.press("y")
        await person.until(lambda: "to keep" in person.app.clipboard, "the answer in the clipboard")
        await person.press("W")
        path = await person.until(lambda: next(iter(tmp_path.glob("talker-wire-*.jsonl")), None), "the file")
        await person.sees("2 messages exported")
        documents = [json.loads(line) for line in path.read_text().splitlines()]
        assert [d["kind"] for d in documents] == ["request", "response"]
        assert json.loads(documents[1]["frame"])["id"] == documents[0]["id"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    drive(contexts_of(talking), script)


def test_who_may_not_watch_is_told_why_in_place(talking: Plane) -> None:
    answer = talking.request("POST", "/tokens", json={"name": "looker", "role": "viewer"})
    assert answer.status_code == 201, answer.text
    token = answer.json()["token"]

    async def script(person: Driver) -> None:
        await person.sees("live")
        await person.press("w")
        await person.sees("✗", "ctrl+r tries again", "takes the role deployer")

    drive(contexts_of(talking, token=token), script)


def test_nothing_is_tapped_while_another_tab_is_in_view(talking: Plane) -> None:
    async def script(person: Driver) -> None:
        await open_wire(person)
        talking.tool("talker", "echo", text="seen")
        await person.sees("✓ response")
        pane = wire_of(person)
        await person.press("1")
        await person.until(lambda: not pane.in_view, "another tab")
        await person.until(lambda: not [w for w in person.app.workers if w.node is pane and w.is_running], "no stream")
        talking.tool("talker", "echo", text="unseen")
        await person.press("7")
        await person.sees("the tap was closed for")
        assert "unseen" not in person.text()

    drive(contexts_of(talking), script)


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
def test_it_has_room_in_a_small_terminal_and_uses_a_large_one(talking: Plane, size: tuple[int, int]) -> None:
    async def script(person: Driver) -> None:
        await open_wire(person)
        talking.tool("talker", "echo", text="roomy")
        await person.sees("✓ response", "tools/call")
        await person.press("enter")
        await person.sees('"text": "roomy"', "? request")

    drive(contexts_of(talking), script, size=size)


# -- what is kept


def test_the_number_and_the_size_of_what_is_kept_are_bounded() -> None:
    buffer = FrameBuffer(kept=10, kept_chars=100)
    for number in range(30):
        buffer.take(message(number))
    assert [frame.id for frame in buffer.frames] == [str(n) for n in range(20, 30)]
    assert buffer.let_go == 20
    buffer.take(message(99, frame="x" * 95))
    assert [frame.id for frame in buffer.frames] == ["28", "29", "99"]


def test_an_answer_belongs_to_the_request_of_its_process_with_its_id_the_other_way() -> None:
    buffer = FrameBuffer()
    buffer.take(message(1))
    buffer.take(message(1, direction="from_server", method="sampling/createMessage"))
    buffer.take(message(1, pid=8, direction="from_server", kind="response"))
    buffer.take(message(1, direction="from_server", kind="response", frame='{"mine": 1}'))
    request, sampling, stranger, answer = buffer.frames
    assert buffer.counterpart(request) is answer
    assert buffer.counterpart(answer) is request
    assert buffer.counterpart(sampling) is None
    assert buffer.counterpart(stranger) is None


@pytest.mark.parametrize(
    ("text", "ids"), [("", "12"), ("TOOLS/", "1"), ("!tools", "2"), ("ping needle", "2"), ("nothing", "")]
)
def test_words_of_a_filter_must_all_be_there_and_those_after_a_bang_must_not(text: str, ids: str) -> None:
    buffer = FrameBuffer()
    buffer.take(message(1))
    buffer.take(message(2, method="ping", frame='"Needle"'))
    assert "".join(frame.id for frame in buffer.wanted(Wanted(text))) == ids


def test_no_character_of_a_message_is_obeyed_in_the_table_or_in_full() -> None:
    buffer = FrameBuffer()
    buffer.take(message(1, method="a\x1b[2J", id="x\u202e\x07", lane="\x9b", kind="noise", frame='{"\x1b]0;t\x07": 1'))
    frame = buffer.frames[0]
    shown = [frame.method, frame.id, frame.lane, frame.head, *(line for line, _ in detail(frame))]
    assert all(text.isprintable() for text in shown)
    assert pretty('{"a": [1, "\\u001b"]}') == ["{", '  "a": [', "    1,", '    "\\u001b"', "  ]", "}"]
    assert pretty("[" * 60_000) == ["[" * 60_000], "nested too deep to be indented"
