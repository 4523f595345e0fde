"""`logs` and `events`: lists, streams, and what happens when a stream breaks."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from controlplane.cli import client
from tests.cli.fake_api import Reply, document, problem, stream

LOGS = "GET /instances/memory/logs"


def line(message: str, at: str = "2026-01-02T12:00:00.123Z", **more):
    return {"timestamp": at, "log_level": "info", "stream": "stderr", "incarnation": 1, "message": message, **more}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A stream that broke is taken up again at once, and given up soon."""
    monkeypatch.setattr(client, "RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(client, "RETRY_FOR_S", 0.1)


def test_logs_show_time_stream_and_message_and_where_a_new_process_begins(api, corral):
    api.on(LOGS, document({"logs": [line("one"), line("two\nlines", incarnation=2)], "next_cursor": None}))
    rows = corral("logs", "memory").out.splitlines()
    assert [re.sub(r"^\S+ \S+  ", "", row) for row in rows] == [
        "stderr  one",
        "── process 2 ──",
        "stderr  two",
        "stderr  lines",
    ]
    assert re.match(r"2026-01-0\d \d\d:\d0:00\.123  stderr", rows[0])
    assert api.asked[0].query == {"tail": "100", "limit": "1000"}


def test_colours_of_a_server_are_dropped_and_other_controls_made_visible(api, corral):
    messages = [
        "\x1b[1;31mred\x1b[0m",
        "\x1b]8;;http://evil\x07link",
        "a\rb",
        "bell\x07 \u202eabc",
        "[bold]not markup[/bold]",
    ]
    api.on(LOGS, document({"logs": [line(message) for message in messages]}))
    texts = [row.split("stderr  ")[1] for row in corral("logs", "memory").out.splitlines()]
    assert texts == [
        "red",
        "\\x1b]8;;http://evil\\x07link",
        "a",
        "b",
        "bell\\x07 \\u202eabc",
        "[bold]not markup[/bold]",
    ]


def test_log_filters_become_query_members(api, corral):
    api.on(LOGS, document({"logs": []}))
    before = datetime.now(UTC)
    result = corral(
        *"logs memory --since 15m --until 2026-01-31T12:00:00+01:00 --level error --level warning --stream build".split(),  # noqa: SIM905
        *["--incarnation", "2", "--grep", "a b", "-n", "7"],
    )
    query = api.asked[0].query
    since = datetime.fromisoformat(query.pop("since"))
    assert abs(before - timedelta(minutes=15) - since) < timedelta(seconds=10)
    assert query == {
        "until": "2026-01-31T11:00:00.000Z",
        "level": "error,warning",
        "stream": "build",
        "incarnation": "2",
        "q": "a b",
        "tail": "7",
        "limit": "1000",
    }
    assert result.err == "No lines.\n"


def test_lines_since_a_time_are_all_shown_however_many_pages_they_are(api, corral):
    api.on(
        LOGS,
        document({"logs": [line("one")], "next_cursor": "c1"}),
        document({"logs": [line("two")], "next_cursor": None}),
    )
    assert len(corral("logs", "memory", "--since", "1h").out.splitlines()) == 2
    first, second = api.asked
    assert ("tail" in first.query, second.query["cursor"]) == (False, "c1")


def test_following_logs_goes_on_after_the_stream_breaks_without_repeating_its_tail(api, corral):
    def event(message: str):
        return {
            "type": "log",
            "timestamp": "2026-11-22T10:00:00Z",
            "level": "error",
            "stream": "stdout",
            "message": message,
        }

    api.on(LOGS, stream(event("one"), event("two")), stream({"type": "gap"}, event("three")), problem(404, "not_found"))
    result = corral("logs", "-f", "memory", "--level", "error")
    assert result.code == 3
    assert [row.rsplit("  ", 1)[1] for row in result.out.splitlines()] == ["one", "two", "three"]
    assert "-- the server ended the stream; trying again" in result.err
    assert "-- some lines are missing here" in result.err
    first, second, third = api.asked
    assert first.query == {"follow": "true", "tail": "100", "level": "error"}
    assert second.query == {"follow": "true", "tail": "0", "level": "error"}
    assert "last-event-id" not in first.headers
    assert second.headers["last-event-id"] == "e-2"
    assert third.headers["last-event-id"] == "e-2"


def test_following_as_json_is_one_event_a_line(api, corral):
    events = [{"type": "connected"}, {"type": "log", "message": "x\u009b"}]
    api.on("GET /mcp/memory/stream", stream(*events), problem(403, "forbidden"))
    result = corral("events", "-f", "memory", "--json")
    lines = result.out.splitlines()
    assert [json.loads(row) for row in lines[:2]] == events
    assert json.loads(lines[2])["code"] == "forbidden"
    assert result.code == 4


def test_a_stream_that_was_never_there_fails_at_once(api, corral):
    api.on(LOGS, problem(503, "storage_unavailable"))
    result = corral("logs", "-f", "memory")
    assert result.code == 1
    assert len(api.asked) == 1


def test_a_stream_is_given_up_when_the_server_stays_away(api, corral):
    api.on("GET /events", stream({"type": "status", "name": "memory"}), problem(503, "shutting_down"))
    result = corral("events")
    assert result.code == 1
    assert len(api.asked) > 2
    assert "title of shutting_down" in result.err


def test_a_stream_that_is_none_is_an_error(api, corral):
    api.on("GET /events", Reply(200, b"<html>hello</html>", "text/html"))
    result = corral("events")
    assert result.code == 1
    assert "something that is not Corral" in result.err


def test_the_reason_of_an_earlier_failure_is_told_as_past(api, corral):
    of = {"type": "status", "name": "memory", "reason": "it crashed"}
    events = [{**of, "status": status, "phase": status} for status in ("restarting", "starting", "running", "stopped")]
    api.on("GET /events", stream(*events), problem(404, "not_found"))
    ends = [line.partition("memory")[2].split(maxsplit=2)[2] for line in corral("events").out.splitlines()]
    past = "last failure: it crashed"
    assert ends == ["it crashed", past, f"{past} (recovered)", past]


def test_fleet_events_leave_out_what_is_frequent_unless_asked_for(api, corral):
    events = [
        {"type": "heartbeat", "timestamp": "2026-11-22T10:00:00Z"},
        {"type": "sample", "instance_id": "i1", "cpu_percent": 1.0},
        {
            "type": "status",
            "instance_id": "i1",
            "name": "memory",
            "status": "failed",
            "reason": "exit\x1b[2J",
            "pid": None,
        },
    ]
    api.on("GET /events", stream(*events), problem(404, "not_found"))
    out = corral("events").out
    assert len(out.splitlines()) == 1
    assert out.split()[-4:] == ["memory", "✗", "failed", "exit\\x1b[2J"]
    api.on("GET /events", stream(*events), problem(404, "not_found"))
    api.on("GET /instances", document({"instances": [{"instance_id": "i1", "name": "memory"}]}))
    assert corral("events", "-t", "sample").out.split()[-2:] == ["memory", "cpu_percent=1.0"]


def test_past_events_of_one_instance_are_listed(api, corral):
    past = {"event_id": "e", "type": "post_mortem", "timestamp": "2026-11-22T10:00:00Z", "instance_id": "i1"}
    api.on("GET /instances/memory/events", document({"events": [{**past, "data": {"reason": "it crashed"}}]}))
    result = corral("events", "memory", "--since", "1h")
    assert result.out.split()[-4:] == ["post_mortem", "memory", "it", "crashed"]
    assert "since" in api.asked[0].query
