"""The board: what each event makes of it, and that nothing a server says makes it raise."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from tui.board import link
from tui.board.alerts import KEPT, Alert, Inbox
from tui.board.board import FLEET, KEPT_EVENTS, NOTHING, Board, Touched
from tui.board.link import Link

if TYPE_CHECKING:
    from tui.board.rows import Row

NOW = 1_800_000_000.0
STAMP = "2027-01-15T08:00:00.000Z"
"""The same moment as `NOW`."""
ID = "11111111-1111-1111-1111-111111111111"


def document(**more: Any) -> dict[str, Any]:
    return {
        "instance_id": ID,
        "name": "alpha",
        "owner": "ann",
        "language": "python",
        "source_type": "direct",
        "isolation": "process",
        "status": "running",
        "phase": "serving",
        "desired": "running",
        "revision": 1,
        "restarts": 0,
        "pid": 10,
        "started_at": STAMP,
        "calls": 5,
        "errors": 1,
        "labels": {"team": "search"},
        "last_error": None,
    } | more


def board_with(*documents: dict[str, Any]) -> Board:
    board = Board()
    board.take_fleet(documents or [document()], NOW)
    return board


def row_after(*events: dict[str, Any], board: Board | None = None) -> Row:
    board = board or board_with()
    for event in events:
        board.take_event({"instance_id": ID, "timestamp": STAMP} | event, NOW)
    return board.rows[ID]


# -- what events do


@pytest.mark.parametrize(
    ("event", "becomes"),
    [
        ({"type": "status", "status": "stopping", "phase": "stop", "pid": 10}, {"status": "stopping", "pid": 10}),
        ({"type": "status", "status": "stopped", "pid": None}, {"status": "stopped", "pid": None, "started": None}),
        ({"type": "status", "status": "running", "pid": 11, "started_at": STAMP}, {"pid": 11, "started": NOW}),
        ({"type": "status", "candidate": {"revision": 2, "phase": "build"}}, {"candidate": "2 build"}),
        ({"type": "status", "restarts": 3, "isolation": "userns"}, {"restarts": 3, "isolation": "userns"}),
        ({"type": "changed", "labels": {"a": "b"}, "revision": 4}, {"labels": {"a": "b"}, "revision": 4}),
        ({"type": "changed", "language": "node"}, {"language": "node", "labels": {"team": "search"}}),
        ({"type": "sample", "cpu_percent": 7.5, "memory_mb": 20}, {"cpu": 7.5, "memory": 20}),
        ({"type": "sample", "calls": 6, "interval_s": 2.0, "errors": 1}, {"rate": 3.0, "calls": 11, "errors": 2}),
        ({"type": "sample", "calls_total": 70, "errors_total": 2, "calls": 1}, {"calls": 70, "errors": 2}),
        ({"type": "call", "method": "tools/call", "ok": True, "ms": 3}, {"calls": 5}),
        ({"type": "tools_changed"}, {"status": "running"}),
        ({"type": "never heard of"}, {"status": "running"}),
    ],
)
def test_an_event_changes_its_row(event: dict[str, Any], becomes: dict[str, Any]) -> None:
    row = row_after(event)
    assert {name: getattr(row, name) for name in becomes} == becomes


def test_the_latency_stays_while_there_are_no_calls() -> None:
    row = row_after({"type": "sample", "p95_ms": 12.0, "p50_ms": 3.0}, {"type": "sample", "p95_ms": None})
    assert (row.p95, row.p50) == (12.0, 3.0)
    assert list(row.history.p95) == [12.0, 0.0]


def test_figures_of_a_process_end_with_it() -> None:
    row = row_after({"type": "sample", "cpu_percent": 50, "memory_mb": 9}, {"type": "status", "status": "stopped"})
    assert (row.cpu, row.memory, row.rate, row.started) == (None, None, 0.0, None)


def test_an_instance_that_is_deployed_is_a_new_row_and_one_deleted_is_gone() -> None:
    board = board_with()
    new = {"type": "deployed", "instance_id": "b", "name": "beta", "owner": "bob", "labels": {"x": 1}}
    assert board.take_event(new, NOW).fleet
    assert (board.rows["b"].name, board.rows["b"].owner, board.rows["b"].labels) == ("beta", "bob", {"x": "1"})
    assert board.rows["b"].status == "pending"
    assert board.take_event({"type": "deleted", "instance_id": "b", "name": "beta"}, NOW).fleet
    assert list(board.rows) == [ID]
    assert [(h.type, h.name) for h in board.timeline] == [("deployed", "beta"), ("deleted", "beta")]


def test_only_what_changed_is_told() -> None:
    board = board_with()
    assert board.take_event({"type": "sample", "instance_id": ID}, NOW) == Touched(frozenset((ID,)))
    assert board.take_event({"type": "heartbeat"}, NOW) == NOTHING
    assert board.take_event({"type": "call", "instance_id": ID}, NOW) == NOTHING
    assert board.take_event({"type": "sample", "instance_id": "unknown"}, NOW) == NOTHING
    assert board.take_event({"type": "gap", "missed": 3}, NOW) == FLEET


def test_the_timeline_tells_events_in_words_and_is_bounded() -> None:
    board = board_with()
    for _ in range(KEPT_EVENTS + 5):
        board.take_event({"type": "status", "instance_id": ID, "status": "stopped", "pid": None}, NOW)
    board.take_event({"type": "post_mortem", "instance_id": ID, "code": "crashed", "reason": "it fell"}, NOW)
    assert len(board.timeline) == KEPT_EVENTS
    assert board.happened == KEPT_EVENTS + 6
    assert "it fell" in board.timeline[-1].said.text
    assert len({happening.number for happening in board.timeline}) == KEPT_EVENTS


def test_a_snapshot_after_a_gap_drops_what_is_gone_and_keeps_the_series() -> None:
    board = board_with(document(), document(instance_id="b", name="beta"))
    board.take_event({"type": "sample", "instance_id": ID, "cpu_percent": 4}, NOW)
    board.take_event({"type": "gap", "missed": 12}, NOW)
    board.take_event({"type": "gap", "missed": None}, NOW)
    board.take_event({"type": "gap", "missed": None, "instance_id": ID}, NOW)
    assert (board.gaps, board.missed) == (2, 12)
    assert board.take_fleet([document(status="stopped", pid=None)], NOW) == FLEET
    assert list(board.rows) == [ID]
    assert board.rows[ID].status == "stopped"
    assert list(board.rows[ID].history.cpu) == [4]


def test_an_instance_is_found_by_name_by_owner_and_name_and_by_id() -> None:
    board = board_with(document(), document(instance_id="b", owner="bob"))
    assert [board.row_named(name).id for name in ("alpha", "bob/alpha", "b")] == [ID, "b", "b"]  # type: ignore[union-attr]
    assert board.row_named("eve/alpha") is None


# -- what events cannot do

ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**400,
    float("nan"),
    float("inf"),
    "",
    "x\x1b[31m\u202e",
    [],
    [1],
    {},
    {"a": []},
)
MEMBERS = {
    "status": ("status", "phase", "desired", "pid", "started_at", "revision", "restarts", "incarnation", "isolation",
               "reason", "candidate", "name", "owner", "labels", "language"),
    "sample": ("cpu_percent", "memory_mb", "processes", "open_files", "disk_mb", "calls", "errors", "p50_ms", "p95_ms", "interval_s",
               "calls_total", "errors_total"),
    "deployed": ("name", "language", "source_type", "revision", "labels", "limits", "created_at", "owner"),
    "changed": ("name", "language", "source_type", "revision", "labels", "limits", "owner"),
    "post_mortem": ("code", "reason", "phase"),
    "revision_failed": ("code", "reason", "phase", "revision"),
    "watchdog": ("what", "step", "value", "limit", "unit", "reason"),
    "deleted": ("name",),
    "gap": ("missed", "reason"),
    "services": ("status", "services"),
    "call": ("method", "ok", "ms"),
    "lagged": ("missed",),
    "shutdown": ("reason",),
    "tools_changed": (),
    "notification": ("method", "params"),
}  # fmt: skip


@pytest.mark.parametrize("type_", MEMBERS)
def test_a_member_of_the_wrong_type_never_raises(type_: str) -> None:
    for name, value in itertools.product((*MEMBERS[type_], "timestamp", "instance_id", "type"), ODD):
        board = board_with(document(), document(instance_id="b", last_error={"code": "crashed", "reason": "r"}))
        for _ in range(2):
            board.take_event({"type": type_, "instance_id": ID, "timestamp": STAMP, name: value}, NOW)
            board.take_event({"type": type_, name: value}, NOW)
        for row in board.rows.values():
            assert isinstance(row.name, str)
            assert row.uptime(NOW) is None or row.uptime(NOW) >= 0  # type: ignore[operator]


@pytest.mark.parametrize("name", [*document(), "candidate", "uptime_s", "cpu_percent", "p95_ms", "processes"])
def test_a_document_with_a_member_of_the_wrong_type_never_raises(name: str) -> None:
    for value in ODD:
        board = Board()
        board.take_fleet([document(**{name: value}), document(instance_id="b")], NOW)
        assert "b" in board.rows


@pytest.mark.parametrize("event", [None, [], "status", 3, {}, {"type": None}, {"instance_id": ID}])
def test_what_is_no_event_changes_nothing(event: Any) -> None:
    board = board_with()
    assert board.take_event(event, NOW) == NOTHING
    assert not board.timeline


def test_hostile_text_is_harmless_on_the_board() -> None:
    hostile = "a\x1b]0;x\x07\u202eb\n"
    board = board_with(document(name=hostile, labels={hostile: hostile}, last_error={"reason": hostile}))
    row = board.rows[ID]
    board.take_event({"type": "post_mortem", "instance_id": ID, "code": hostile, "reason": hostile}, NOW)
    board.take_event({"type": hostile, "instance_id": ID, "x": hostile}, NOW)
    alert = next(iter(board.alerts))
    told = [row.name, *row.labels, *row.labels.values(), alert.text, alert.code]
    told += [text for h in board.timeline for text in (h.type, h.name, h.said.text)]
    assert not [text for text in told if set(text) & set("\x1b\x07\u202e\n")]


# -- alerts


def test_what_had_failed_before_is_in_the_inbox_oldest_first() -> None:
    later = {"code": "crash_loop", "reason": "second", "at": "2027-01-15T07:59:00Z"}
    earlier = {"code": "build_failed", "reason": "first", "at": "2027-01-15T07:00:00Z"}
    board = board_with(
        document(status="failed", last_error=later),
        document(instance_id="b", status="failed", last_error=earlier),
        document(instance_id="c", last_error=earlier),
    )
    assert [alert.text for alert in board.alerts] == ["first", "second"]
    assert board.unseen_alerts == 2


def test_what_failed_while_nobody_could_hear_it_is_an_alert_once() -> None:
    board = board_with()
    failure = {"code": "crash_loop", "reason": "it fell 5 times", "at": STAMP}
    board.take_fleet([document(status="failed", last_error=failure)], NOW)
    board.take_event({"type": "post_mortem", "instance_id": ID, "timestamp": STAMP} | failure, NOW)
    board.take_fleet([document(status="failed", last_error=failure)], NOW)
    assert [(alert.code, alert.times) for alert in board.alerts] == [("crash_loop", 1)]


def test_the_same_alert_again_counts_up_and_comes_back_when_it_was_seen() -> None:
    board = board_with()
    for second in (0, 10, 20):
        event = {"type": "post_mortem", "instance_id": ID, "code": "crashed", "reason": "exit status 1"}
        board.take_event(event | {"timestamp": f"2027-01-15T08:00:{second:02d}Z"}, NOW)
        assert board.unseen_alerts == 1
        board.see_alerts()
        assert board.unseen_alerts == 0
    assert [alert.times for alert in board.alerts] == [3]


def test_a_dismissed_alert_is_gone_and_the_inbox_is_bounded() -> None:
    inbox = Inbox()
    for number in range(KEPT + 3):
        inbox.take(Alert(at=number * 10.0, weight="bad", code=str(number), text="x"))
    assert len(inbox) == KEPT
    inbox.dismiss([alert.number for alert in inbox][1:])
    assert [alert.code for alert in inbox] == ["3"]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({}, {"status": "healthy", "services": {"redis": "connected"}}, None),
        (
            {},
            {"status": "degraded", "services": {"redis": "disconnected"}},
            ("warn", "Redis disconnected: calls go on"),
        ),
        ({"status": "healthy"}, {"status": "unhealthy", "services": {}}, ("bad", "unhealthy")),
        (
            {"status": "degraded", "services": {"redis": "disconnected"}},
            {"status": "healthy", "services": {"redis": "connected"}},
            ("good", "Redis connected"),
        ),
        ({"status": "healthy"}, {"status": "healthy", "uptime_s": 4}, None),
    ],
)
def test_a_service_that_goes_or_comes_back_is_an_alert(before: Any, after: Any, told: Any) -> None:
    board = Board(health=before)
    board.take_health(after, NOW)
    assert [(alert.weight, alert.text) for alert in board.alerts] == ([told] if told else [])


# -- the link


def test_the_link_keeps_its_time_while_its_state_stays() -> None:
    board = Board()
    board.take_link("away", NOW, "no route", 1)
    board.take_link("away", NOW + 9, "refused", 2, "Is it running?")
    assert board.link == Link("away", NOW, "refused", 2, "Is it running?")
    assert link.word(board.link, NOW + 12) == ("◌ away for 12s, attempt 2", "bad")
    assert link.word(board.link, NOW + 3.7) == ("◌ away for 3s, attempt 2", "bad")
    assert "refused. Is it running? This is the last picture." in link.line(board.link, NOW + 12)
    board.take_link("live", NOW + 20)
    assert board.link == Link("live", NOW + 20)


@pytest.mark.parametrize(
    ("away_s", "gaps", "missed", "said"),
    [
        (12.4, 0, 0, "Back after 12s: nothing was missed"),
        (0.25, 1, 17, "Back after 0.2s: 17 events were missed, the fleet was read anew"),
        (90.0, 2, 0, "Back after 1m30s: some events were missed, the fleet was read anew"),
    ],
)
def test_coming_back_says_how_long_it_took_and_what_was_missed(
    away_s: float, gaps: int, missed: int, said: str
) -> None:
    assert link.back(away_s, gaps, missed) == said


def test_where_there_never_was_a_picture_it_is_said_what_to_do() -> None:
    refused = link.absence(Link("refused", NOW, "A valid bearer token is needed", 0, "It came from a file."), NOW, "u")
    assert {"A valid bearer token is needed", "It came from a file."} <= {text for text, _ in refused}
    assert link.absence(Link(), NOW, "http://x")[0][0] == "◌ connecting to http://x …"
