"""The fleet's timeline: what was kept before and what happens now, in one list that follows its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.tui.driving import contexts_of, drive
from tui.board.board import Board
from tui.board.fleet_history import earlier_happenings
from tui.board.timeline_columns import fitting

if TYPE_CHECKING:
    from tests.e2e.plane import Plane
    from tests.tui.driving import Driver

NOW = 1_800_000_000.0


def test_the_past_and_what_happens_now_are_one_list(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        await person.sees("live", "3 instances")
        await person.press("e")
        await person.sees("fleet › timeline", "gamma", "deployed as revision 1", "that is all that is kept")
        assert fleet.request("POST", "/instances/gamma/start?wait=30").is_success
        await person.sees("starting → running")
        await person.press("p")
        await person.sees("paused")
        assert fleet.request("POST", "/instances/gamma/stop?wait=30").is_success
        board = person.app.plane.board
        await person.until(lambda: board.timeline and "stopped" in board.timeline[-1].said.text, "gamma stopped")
        await person.press("p")
        await person.sees("stopping → stopped")
        await person.press("enter")
        await person.sees("fleet › gamma › events")

    drive(contexts_of(fleet), script)


def test_a_filter_finds_and_the_cursor_stays_where_it_was_moved(fleet: Plane) -> None:
    async def script(person: Driver) -> None:
        await person.sees("live", "3 instances")
        await person.command("timeline")
        await person.sees("that is all that is kept")
        await person.press("slash")
        await person.type("beta deployed")
        await person.press("enter")
        await person.sees("1 line ")
        await person.press("escape")
        await person.sees("alpha")
        await person.press("g")
        first = person.line_with("▸")
        assert fleet.request("PATCH", "/instances/beta", json={"labels": {"tier": "2"}}).is_success
        await person.until(lambda: person.app.plane.board.happened > 0, "an event")
        assert person.line_with("▸") == first
        assert fleet.request("PATCH", "/instances/beta", json={"labels": {}}).is_success

    drive(contexts_of(fleet), script)


def kept(second: int, type_: str = "tools_changed") -> dict[str, object]:
    return {
        "type": type_,
        "timestamp": f"2027-01-15T07:00:{second:02d}Z",
        "instance_id": "i",
        "name": "alpha",
        "data": {},
    }


def test_what_was_kept_comes_before_what_was_heard_and_each_line_has_its_own_number() -> None:
    board = Board()
    board.take_event({"type": "tools_changed", "instance_id": "i", "timestamp": "2027-01-15T07:00:30Z"}, NOW)
    earlier = earlier_happenings(
        [kept(40), kept(30), kept(20), kept(10), kept(9, "sample"), None, {}], list(board.timeline)
    )
    assert [happening.number for happening in [*earlier, *board.timeline]] == [-2, -1, 1]
    assert [happening.name for happening in earlier] == ["alpha", "alpha"]


def test_the_filter_looks_at_name_type_and_sentence() -> None:
    lines = earlier_happenings([kept(2, "deployed"), kept(1)], [])
    assert [line.type for line in fitting(lines, "ALPHA deployed")] == ["deployed"]
    assert [line.type for line in fitting(lines, "!deployed")] == ["tools_changed"]
