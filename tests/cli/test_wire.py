"""`corral wire`: a line for a message, JSON Lines for programs, and what happens when the stream breaks."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from controlplane.cli import client
from tests.cli.fake_api import problem, stream

if TYPE_CHECKING:
    from collections.abc import Callable

WIRE = "GET /instances/memory/wire"


def message(**more: Any) -> dict[str, Any]:
    return {
        "type": "wire",
        "timestamp": "2026-01-02T12:00:00.123Z",
        "seq": 1,
        "direction": "to_server",
        "lane": "primary",
        "pid": 7,
        "incarnation": 1,
        "kind": "request",
        "method": "tools/call",
        "id": 5,
        "ms": None,
        "size_bytes": 1234,
        "truncated": False,
        "frame": '{"id":5}',
        **more,
    }


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that broke is taken up again at once, and given up soon."""
    monkeypatch.setattr(client, "RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(client, "RETRY_FOR_S", 0.1)


def test_each_message_is_one_line_with_its_direction_id_time_and_size(api: Any, corral: Callable[..., Any]) -> None:
    answer = message(direction="from_server", kind="response", ms=12.34, lane="private", frame='{"result":{}}')
    told = message(direction="from_server", kind="notification", method="notifications/x", id=None, frame="{}")
    noise = message(direction="from_server", kind="noise", method=None, id=None, frame="a\nb", truncated=True)
    api.on(WIRE, stream({"type": "connected"}, message(), answer, told, noise), problem(404, "not_found"))

    result = corral("wire", "memory", "-m", "tools/*", "--method", "ping", "--direction", "to_server")

    rows = [re.sub(r" +", " ", row.split("  ", 1)[1]).strip() for row in result.out.splitlines()]
    assert rows == [
        '→ ? tools/call #5 1,234 B {"id":5}',
        '← = tools/call #5 12.3 ms 1,234 B [private 7] {"result":{}}',
        "← . notifications/x 1,234 B {}",
        "← ~ - 1,234 B a b…",
    ]
    assert api.asked[0].query == {"method": "tools/*,ping", "direction": "to_server"}


def test_a_message_is_shortened_unless_all_of_it_is_wanted(api: Any, corral: Callable[..., Any]) -> None:
    long = message(frame="x" * 5000)
    api.on(WIRE, stream(long), problem(404, "not_found"), stream(long), problem(404, "not_found"))

    short, full = corral("wire", "memory").out, corral("wire", "memory", "--full").out

    assert short.rstrip().endswith("x…")
    assert short.count("x") < 200
    assert full.count("x") == 5000


def test_what_a_server_writes_cannot_steer_the_terminal(api: Any, corral: Callable[..., Any]) -> None:
    evil = "\x1b]8;;http://evil\x07 \u202e [bold]"
    api.on(WIRE, stream(message(frame=evil, method=evil, id=evil)), problem(404, "not_found"))

    out = corral("wire", "memory").out

    assert out.count("\\x1b]8;;http://evil\\x07 \\u202e [bold]") == 3
    assert not set(out) & {"\x1b", "\x07", "\u202e"}


def test_a_stream_that_breaks_is_taken_up_again_and_says_what_is_missing(api: Any, corral: Callable[..., Any]) -> None:
    api.on(WIRE, stream(message(), {"type": "lagged"}), stream({"type": "gap"}, message()), problem(404, "not_found"))

    result = corral("wire", "memory")

    assert result.code == 3
    assert len(result.out.splitlines()) == 2
    assert "-- the stream was cut because it was not read fast enough" in result.err
    assert "-- some messages are missing here" in result.err
    assert api.asked[1].headers["last-event-id"] == "e-2"


def test_as_json_each_event_is_a_line_as_it_came(api: Any, corral: Callable[..., Any]) -> None:
    events = [{"type": "connected"}, message()]
    api.on(WIRE, stream(*events), problem(403, "forbidden"))

    result = corral("wire", "memory", "--json")

    assert [json.loads(row) for row in result.out.splitlines()[:2]] == events
    assert result.code == 4
