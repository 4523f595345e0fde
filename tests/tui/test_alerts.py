"""The alerts inbox: what a real control plane's crashes put in it, what is told of them elsewhere, and its keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.plane import deployment
from tests.tui.driving import contexts_of, drive
from tui.board.alerts import Alert, Inbox
from tui.board.board import Board
from tui.board.fleet_history import earlier_alerts
from tui.board.news import ALERTS_EVERY_S, SETTLED_S, News, Notice
from tui.board.rows import Row
from tui.screens.alerts import AlertsScreen
from tui.screens.fleet import FleetScreen
from tui.screens.instance import InstanceScreen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.plane import Plane
    from tests.tui.driving import Driver

CRASHER = b"import sys\nsys.stderr.write('no database at 10.0.0.7\\n')\nsys.exit(3)\n"
NOW = 1_800_000_000.0


@pytest.fixture(scope="module")
def troubled(fleet: Plane) -> Iterator[Plane]:
    """The fleet with `crasher`, which cannot start."""
    fail(fleet, "crasher")
    yield fleet
    fleet.request("DELETE", "/instances/crasher")


def fail(plane: Plane, name: str) -> None:
    answer = plane.request("POST", "/api/v2/deploy?wait=60", json=deployment(name, CRASHER))
    assert answer.status_code == 422, answer.text


def test_what_failed_is_counted_until_the_inbox_is_opened(troubled: Plane) -> None:
    async def script(person: Driver) -> None:
        await person.sees("! 1 alert", "✗ 1 failed")
        await person.press("a")
        await person.sees("fleet › alerts", "✗ failed", "crasher", "status 3")
        assert "new" in person.line_with("status 3")
        await person.sees_not("1 alert ")
        await person.press("escape")
        await person.until(lambda: isinstance(person.app.screen, FleetScreen), "the fleet")
        assert "! 1 alert" not in person.text()
        await person.press("a")
        await person.sees("status 3")
        assert "new" not in person.line_with("status 3")

    drive(contexts_of(troubled), script)


def test_the_foot_tells_all_of_what_the_table_has_no_room_for(troubled: Plane) -> None:
    async def script(person: Driver) -> None:
        await person.sees("! 1 alert")
        await person.press("a")
        await person.sees("exited with status 3 before its handshake was")

    drive(contexts_of(troubled), script, size=(80, 24))


def test_enter_opens_the_log_of_what_fell(troubled: Plane) -> None:
    async def script(person: Driver) -> None:
        await person.sees("! 1 alert")
        await person.press("a")
        await person.sees("status 3")
        await person.press("enter")
        await person.sees("fleet › crasher › logs", "no database at 10.0.0.7")
        await person.press("escape")
        await person.until(lambda: isinstance(person.app.screen, AlertsScreen), "the inbox")

    drive(contexts_of(troubled), script)


def test_an_alert_is_dismissed_and_a_new_one_is_told_wherever_one_is(troubled: Plane) -> None:
    async def script(person: Driver) -> None:
        await person.sees("! 1 alert")
        await person.press("a")
        await person.sees("status 3")
        await person.press("d")
        await person.sees("Nothing needs you")
        await person.command("open alpha")
        await person.until(lambda: isinstance(person.app.screen, InstanceScreen), "alpha")
        troubled.request("POST", "/instances/crasher/start?wait=30")
        await person.sees("crasher: ", "! 1 alert")
        await person.press("a")
        await person.sees("fleet › alerts", "status 3")
        await person.press("slash")
        await person.type("!crasher")
        await person.sees("0 of 1", "Nothing fits the filter")
        await person.press("escape", "asterisk", "d")
        await person.sees("Nothing needs you")

    drive(contexts_of(troubled), script)


def test_what_failed_and_was_deleted_is_told_from_what_the_server_kept(fleet: Plane) -> None:
    fail(fleet, "gone")
    assert fleet.request("DELETE", "/instances/gone").is_success

    async def script(person: Driver) -> None:
        await person.sees("live")
        await person.press("a")
        await person.sees("gone", "status 3")
        assert "new" not in person.line_with("gone")

    drive(contexts_of(fleet), script)


# -- what is told in passing


def board_with(*alerts: Alert) -> Board:
    board = Board(has_picture=True)
    board.take_link("live", NOW - 100)
    for alert in alerts:
        board.alerts.take(alert)
    return board


def alert(number: int, weight: str = "bad") -> Alert:
    return Alert(at=NOW + 60 * number, weight=weight, code="exited", text="it fell", instance_id=f"{number}", name="n")  # type: ignore[arg-type]


def test_what_was_there_at_first_is_no_news() -> None:
    board, news = board_with(alert(1)), News()
    assert news.of(board, NOW, in_inbox=False) == []
    assert news.of(board, NOW, in_inbox=False) == []


def test_alerts_are_told_together_not_too_often_and_not_to_who_looks_at_them() -> None:
    board, news = board_with(), News()
    news.of(board, NOW, in_inbox=False)
    board.alerts.take(alert(1))
    assert news.of(board, NOW, in_inbox=False) == [Notice("n: it fell", "error", rings=True)]
    board.alerts.take(alert(2))
    board.alerts.take(alert(3, "warn"))
    assert news.of(board, NOW + 1, in_inbox=False) == []
    later = NOW + ALERTS_EVERY_S + 1
    assert news.of(board, later, in_inbox=False) == [
        Notice("n: it fell\n1 more: a shows them all", "error", rings=True)
    ]
    board.alerts.take(alert(4))
    assert news.of(board, later + ALERTS_EVERY_S, in_inbox=True) == []
    assert news.of(board, later + 2 * ALERTS_EVERY_S, in_inbox=False) == []


def test_a_control_plane_that_is_back_is_told_once_it_has_said_what_was_missed() -> None:
    board, news = board_with(), News()
    news.of(board, NOW, in_inbox=False)
    board.take_link("away", NOW, "no route", 1)
    assert news.of(board, NOW + 1, in_inbox=False) == []
    board.take_link("live", NOW + 12)
    assert news.of(board, NOW + 12, in_inbox=False) == []
    board.take_event({"type": "gap", "missed": 7}, NOW + 12)
    back = Notice("Back after 12s: 7 events were missed, the fleet was read anew")
    assert news.of(board, NOW + 12 + SETTLED_S, in_inbox=False) == [back]
    assert news.of(board, NOW + 20, in_inbox=False) == []


# -- what the server kept


def kept(type_: str, second: int, **data: object) -> dict[str, object]:
    stamp = f"2027-01-15T08:00:{second:02d}Z"
    return {"type": type_, "timestamp": stamp, "instance_id": "i", "name": "alpha", "owner": "ann", "data": data}


def test_kept_events_become_alerts_from_the_oldest_on() -> None:
    newest_first = [
        kept("services", 9, status="healthy", services={"redis": "connected"}),
        kept("services", 5, status="degraded", services={"redis": "disconnected"}),
        kept("revision_failed", 4, code="build_failed", reason="no such package", revision=2),
        kept("watchdog", 4, what="memory", step="calm", reason="uses 1 of 9 MiB of memory again"),
        kept("watchdog", 3, what="memory", step="kill", reason="uses 99 of 9 MiB of memory"),
        kept("watchdog", 3, what="memory", step="warn", reason="uses 8 of 9 MiB of memory for 3 s"),
        kept("status", 3, status="failed"),
        kept("post_mortem", 2, code="exited", reason="status 3"),
    ]
    told = [(alert.weight, alert.name, alert.text) for alert in earlier_alerts(newest_first)]
    assert told == [
        ("bad", "alpha", "status 3"),
        ("warn", "alpha", "it uses 8 of 9 MiB of memory for 3 s"),
        ("good", "alpha", "it uses 1 of 9 MiB of memory again"),
        ("warn", "alpha", "revision 2 did not take over: no such package"),
        ("warn", "", "Redis disconnected: calls go on"),
        ("good", "", "Redis connected"),
    ]


@pytest.mark.parametrize("odd", [None, 3, [], {}, {"type": []}, {"type": "post_mortem", "timestamp": 5}, {"data": 3}])
def test_what_is_no_kept_event_is_left_out(odd: object) -> None:
    assert earlier_alerts([odd]) == []


def test_what_was_heard_live_and_kept_is_one_alert_and_what_is_older_counts() -> None:
    board = board_with()
    live = kept("post_mortem", 30, code="exited", reason="status 3")
    board.rows = {"i": Row(id="i", name="alpha")}
    board.take_event({**live, **live["data"]}, NOW)  # type: ignore[dict-item]
    board.see_alerts()
    board.alerts.take_earlier(earlier_alerts([live, kept("post_mortem", 2, code="exited", reason="status 3")]))
    assert [(alert.times, alert.number > 0) for alert in board.alerts] == [(2, True)]
    assert board.unseen_alerts == 0


def test_each_of_several_that_were_heard_live_counts_once() -> None:
    board = board_with()
    board.rows = {"i": Row(id="i", name="alpha")}
    events = [kept("post_mortem", minute, code="exited", reason="status 3") for minute in (20, 30, 40, 50)]
    for event in events[1:]:
        board.take_event({**event, **event["data"]}, NOW)  # type: ignore[dict-item]
    board.alerts.take_earlier(earlier_alerts(events[::-1]))
    assert [alert.times for alert in board.alerts] == [4]


# -- a crash loop is one alert


def post_mortem(code: str, text: str, at: float, incarnation: int = 0, instance: str = "i") -> Alert:
    return Alert(at=at, weight="bad", code=code, text=text, instance_id=instance, incarnation=incarnation)


EXIT = post_mortem("exited", "status 3", NOW, 5)
LOOP = post_mortem("crash_loop", "gave up after 5 restarts; last: status 3", NOW + 0.1, 5)


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ([EXIT, LOOP], ["crash_loop"]),
        ([LOOP, EXIT], ["crash_loop"]),
        ([post_mortem("exited", "status 3", NOW - 9, 4), EXIT, LOOP], ["crash_loop"]),
        ([post_mortem("signalled", "SIGKILL", NOW - 9, 4), EXIT, LOOP], ["signalled", "crash_loop"]),
        ([post_mortem("exited", "status 3 with a long tail", NOW, 5), LOOP], ["crash_loop"]),
        ([post_mortem("exited", "status 4", NOW, 4), LOOP], ["exited", "crash_loop"]),
        ([post_mortem("exited", "status 3", NOW, 5, instance="j"), LOOP], ["exited", "crash_loop"]),
        ([EXIT, LOOP, post_mortem("exited", "status 3", NOW + 60, 6)], ["crash_loop", "exited"]),
    ],
)
def test_the_end_of_a_crash_loop_takes_the_place_of_its_last_exit(told: list[Alert], kept: list[str]) -> None:
    live, earlier, both = Inbox(), Inbox(), Inbox()
    for alert in told:
        live.take(alert)
    assert [alert.code for alert in live] == kept
    if told[0] is not LOOP:
        earlier.take_earlier(told)
        assert [alert.code for alert in earlier] == kept
    both.take(LOOP)
    both.take_earlier([EXIT])
    assert [alert.code for alert in both] == ["crash_loop"]
