"""`corral incarnations · usage · events --since`: what they ask for, and how they show it."""

from __future__ import annotations

from tests.cli.fake_api import document


def test_processes_are_listed_with_how_each_came_to_its_end(api, corral):
    row = {"pid": 4711, "started_at": "2026-11-22T10:00:00Z", "ended_at": None, "exit_code": None, "signal": None}
    row |= {"is_running": False, "ran_s": None, "reason": None, "revision": None}
    rows = [
        {**row, "number": 5, "is_running": True, "ran_s": 5.25, "revision": 2},
        {**row, "number": 4, "signal": "SIGKILL", "ran_s": 3700, "ended_at": "x", "reason": "it was \x1b[31mkilled"},
        {**row, "number": 3, "exit_code": 0, "ended_at": "x"},
        {**row, "number": 2},
    ]
    api.on("GET /instances/memory/incarnations", document({"incarnations": rows, "next_cursor": None}))
    shown = corral("incarnations", "memory", "-n", "4")
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert lines[0].split() == ["N", "REV", "PID", "STARTED", "RAN", "END", "REASON"]
    for line, words in zip(lines[1:], ("5.2s ● runs", "1h1m SIGKILL", "status 0", "unseen"), strict=True):
        assert all(word in line for word in words.split()), line
    assert "\x1b" not in shown.out
    assert api.asked_for("GET /instances/memory/incarnations")[0].query == {"limit": "4"}


def test_an_instance_that_never_had_a_process_is_said_to_have_had_none(api, corral):
    api.on("GET /instances/memory/incarnations", document({"incarnations": [], "next_cursor": None}))
    shown = corral("incarnations", "memory")
    assert (shown.code, shown.out) == (0, "")
    assert "no process" in shown.err


def test_use_is_shown_beside_what_bounds_it(api, corral):
    quotas = [
        {"name": "instances", "used": 2, "limit": 10, "unit": "instances", "scope": "owner"},
        {"name": "memory", "used": 2048.25, "limit": None, "unit": "MiB", "scope": "owner"},
        {"name": "call_rate", "used": None, "limit": 100, "unit": "calls/s", "scope": "token"},
        {"name": "later", "used": 1, "limit": 2, "unit": "new", "scope": "moon"},
    ]
    row = {"name": "grace", "instances": 2, "running": 1, "memory_mb": 2048.25, "cpu_percent": 1.5, "processes": 3}
    row |= {"calls": 1200, "errors": 3}
    api.on("GET /usage", document({"owner": "grace", "role": "deployer", "quotas": quotas, "total": row, "owners": []}))
    shown = corral("usage", "--owner", "grace")
    assert shown.code == 0
    lines = [line.split() for line in shown.out.splitlines()]
    assert lines[0] == ["grace", "deployer"]
    assert lines[2][:4] == ["instances", "2", "10", "instances"]
    assert lines[3][:5] == ["memory", "2,048.2", "no", "limit", "MiB"]
    assert lines[4] == ["call_rate", "-", "100", "calls/s", "each", "token"]
    assert lines[5][-1] == "moon"
    assert lines[-1] == ["grace", "2", "1", "2,048.2", "MiB", "1.5", "%", "1,200", "3"]
    assert api.asked_for("GET /usage")[0].query == {"owner": "grace"}


def test_use_by_day_is_shown_when_it_is_asked_for(api, corral):
    row = {"name": "grace", "instances": 2, "running": 1, "memory_mb": 1, "cpu_percent": 1, "processes": 3}
    row |= {"calls": 1200, "errors": 3}
    day = {"day": "2026-11-30", "cpu_s": 12.34, "calls": 1200, "errors": 3, "bytes_in": 2**20, "bytes_out": 1572864}
    day |= {"peak_memory_mb": 512.0}
    found = {"owner": "grace", "role": "deployer", "quotas": [], "total": row, "owners": [], "days": [day]}
    api.on("GET /usage", document(found))
    shown = corral("usage", "--days", "7")
    assert shown.code == 0
    assert api.asked_for("GET /usage")[0].query == {"days": "7"}
    assert shown.out.splitlines()[-1].split() == [
        "2026-11-30",
        "12.3",
        "1,200",
        "3",
        "1",
        "MiB",
        "1.5",
        "MiB",
        "512",
        "MiB",
    ]
    assert corral("usage", "--days", "401").code == 2


def test_the_fleets_past_is_shown_as_it_would_have_been_followed(api, corral):
    row = {"timestamp": "2026-11-22T10:00:00Z", "instance_id": "x", "name": "cow", "owner": "grace"}
    rows = [
        {**row, "event_id": "2", "type": "post_mortem", "data": {"reason": "it was killed"}},
        {**row, "event_id": "1", "type": "status", "data": {"status": "running", "isolation": "confined", "pid": 7}},
    ]
    api.on("GET /events/history", document({"events": rows, "next_cursor": None}))
    shown = corral("events", "--since", "2026-11-22T00:00:00Z", "--type", "status", "--type", "post_mortem", "-n", "5")
    assert shown.code == 0
    first, last = shown.out.splitlines()
    assert "cow" in first
    assert "running" in first
    assert "pid=7" in first
    assert "isolation" not in first
    assert "it was killed" in last
    asked = api.asked_for("GET /events/history")[0].query
    assert asked == {"since": "2026-11-22T00:00:00.000Z", "type": "status,post_mortem", "limit": "5"}
