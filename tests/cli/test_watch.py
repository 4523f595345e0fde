"""`corral incarnations`: what it asks for, and how it shows each end."""

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
