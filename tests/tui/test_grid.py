"""The table: only what is in sight is painted, the cursor stays on its row, and columns share the width."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from rich.cells import cell_len
from textual.app import App

from tui.board.cells import Cell, Column, fit, ordered, placed, sparkline
from tui.board.filtering import parse
from tui.board.fleet_columns import FLEET_COLUMNS, columns_for
from tui.board.rows import Row, Trouble
from tui.widgets.grid import GUTTER, Grid

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from textual.pilot import Pilot

MATTERS = ["NAME", "STATUS", "CPU", "MEM", "CALLS/S", "P95", "ERR", "RST", "UP"]


def titles(width: int, owners: int = 1) -> list[str]:
    return [column.title for column, _ in fit(columns_for(owners), width - GUTTER - 1)]


@pytest.mark.parametrize(
    ("width", "more"),
    [
        (80, []),
        (120, ["CPU TREND", "C/S TREND", "WHAT"]),
        (140, ["CPU TREND", "MEM TREND", "C/S TREND", "WHAT", "LANG"]),
        (200, ["CPU TREND", "MEM TREND", "C/S TREND", "WHAT", "CALLS", "LANG"]),
    ],
)
def test_the_columns_that_matter_are_there_in_80_cells_and_the_trends_in_120(width: int, more: list[str]) -> None:
    assert sorted(titles(width)) == sorted(MATTERS + more)


@pytest.mark.parametrize(
    ("status", "since", "said"),
    [
        ("failed", 9000.0, "was killed by SIGKILL"),
        ("restarting", 1.0, "was killed by SIGKILL"),
        ("running", 1.0, "before: was killed by SIGKILL"),
        ("running", 9000.0, "team=search"),
    ],
)
def test_a_row_says_why_it_failed_and_for_a_while_what_happened_before_it_ran_again(
    status: str, since: float, said: str
) -> None:
    trouble = Trouble(code="signalled", reason="the process was killed by SIGKILL", at=10_000.0)
    row = Row(id="i", name="alpha", status=status, trouble=trouble, labels={"team": "search"})
    what = next(column for column in FLEET_COLUMNS if column.key == "what")
    assert what.cell(row, 10_000.0 + since).text == said


def test_owners_are_told_apart_only_where_there_are_several() -> None:
    assert "OWNER" not in titles(200)
    assert "OWNER" in titles(200, owners=2)


def test_no_two_columns_sort_by_the_same_letter() -> None:
    letters = [column.letter for column in FLEET_COLUMNS if column.letter]
    assert len(letters) == len(set(letters))
    assert not set(letters) & {"G", "O"}
    assert all(column.letter for column in FLEET_COLUMNS if column.order is not None)


@pytest.mark.parametrize(
    ("text", "width", "right", "shown"),
    [
        ("abc", 5, False, "abc  "),
        ("abc", 5, True, "  abc"),
        ("abcdef", 4, False, "abc…"),
        ("日本語", 5, False, "日本…"),
        ("日本語", 4, False, "日 …"),
        ("abc", 1, False, "…"),
        ("abc", 0, False, ""),
    ],
)
def test_a_text_takes_exactly_its_cells(text: str, width: int, right: bool, shown: str) -> None:
    assert placed(text, width, right=right) == shown
    assert cell_len(shown) == width


@pytest.mark.parametrize(
    ("values", "width", "shown"),
    [([], 3, "   "), ([0, 0], 3, " ▁▁"), ([1, 2, 4, 8], 3, "▂▄█"), ([-1, 8], 2, "▁█")],
)
def test_a_sparkline_shows_the_newest_values(values: list[float], width: int, shown: str) -> None:
    assert sparkline(values, width) == shown


def test_rows_without_a_value_come_last_either_way() -> None:
    rows = [Row(id="a", cpu=None), Row(id="b", cpu=1.0), Row(id="c", cpu=5.0)]
    column = next(column for column in FLEET_COLUMNS if column.key == "cpu")
    assert [row.id for row in ordered(rows, column, 0.0, descending=False)] == ["b", "c", "a"]
    assert [row.id for row in ordered(rows, column, 0.0, descending=True)] == ["c", "b", "a"]


ROWS = [
    Row(id="1", name="search-api", owner="ann", status="running", labels={"team": "search", "tier": "1"}),
    Row(
        id="0a0a0a0a-2",
        name="chat",
        owner="bob",
        status="failed",
        trouble=Trouble(code="exited", reason="exit status 3"),
    ),
    Row(id="3", name="SEARCH-old", owner="bob", status="stopped", labels={"team": "old"}),
]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "123"),
        ("search", "13"),
        ("SEARCH bob", "3"),
        ("!search", "2"),
        ("bob !failed", "3"),
        ("status 3", "2"),
        ("!", "123"),
        ("-l team", "13"),
        ("-l team=search", "1"),
        ("-l team!=search", "23"),
        ("-l", "123"),
        ("-f srpi", "1"),
        ("-f", "123"),
        ("nothing", ""),
        ("0a0a", ""),
        ("0a0a0a0a", "2"),
        ("[bold", ""),
    ],
)
def test_a_filter_finds(text: str, found: str) -> None:
    wanted = parse(text)
    assert "".join(row.id[-1] for row in ROWS if wanted(row)) == found


# -- the widget

COUNT = 500
MARGIN = 3


class Bench(App[None]):
    """A table alone, with a count of the cells that were made."""

    def __init__(self) -> None:
        super().__init__()
        self.made = 0
        self.chosen: list[str] = []

        def cell(row: str, _now: float) -> Cell:
            self.made += 1
            return Cell(row)

        column = Column[str](key="n", title="N", width=6, cell=cell, order=lambda row, _: row)
        self.grid: Grid[str] = Grid([column], lambda row: row, markable=True)

    def compose(self) -> Any:
        yield self.grid

    def on_grid_chosen(self, message: Grid.Chosen) -> None:
        self.chosen.append(message.key)


def with_bench(script: Callable[[Bench, Pilot[None]], Awaitable[None]], size: tuple[int, int] = (40, 20)) -> None:
    async def main() -> None:
        app = Bench()
        async with app.run_test(size=size) as pilot:
            app.grid.show([f"r{number:03d}" for number in range(COUNT)])
            app.grid.focus()
            await pilot.pause()
            await script(app, pilot)

    asyncio.run(main())


def test_only_rows_in_sight_are_made() -> None:
    async def script(app: Bench, pilot: Pilot[None]) -> None:
        app.made = 0
        app.grid.touch(f"r{number:03d}" for number in range(COUNT))
        await pilot.pause()
        assert 0 < app.made <= 19 + MARGIN
        app.made = 0
        app.grid.touch(["r400"])
        await pilot.pause()
        assert app.made == 0

    with_bench(script)


def test_the_cursor_and_the_marks_stay_on_their_rows_however_they_are_sorted() -> None:
    async def script(app: Bench, pilot: Pilot[None]) -> None:
        grid = app.grid
        await pilot.press("space", "space", "down")
        assert (grid.marks, grid.current) == ({"r000", "r001"}, "r003")
        grid.show(sorted(grid.rows, reverse=True))
        await pilot.pause()
        assert grid.current == "r003"
        assert grid.chosen() == ["r001", "r000"]
        grid.show([row for row in grid.rows if row != "r003"])
        assert grid.current == "r002"
        grid.show(["r007"], {"r000"})
        assert grid.marks == {"r000"}
        assert grid.chosen() == ["r007"]
        grid.show([])
        assert not grid.current
        assert not grid.chosen()
        assert not grid.marks

    with_bench(script)


def test_a_range_is_marked_from_the_last_mark_and_all_at_once_and_none() -> None:
    async def script(app: Bench, pilot: Pilot[None]) -> None:
        await pilot.press("space", "down", "down", "ctrl+@")
        assert app.grid.marks == {"r000", "r001", "r002", "r003"}
        await pilot.press("asterisk")
        assert len(app.grid.marks) == COUNT
        await pilot.press("ctrl+backslash")
        assert app.grid.marks == set()

    with_bench(script)


def test_keys_move_the_cursor_by_rows_pages_and_to_the_edges() -> None:
    async def script(app: Bench, pilot: Pilot[None]) -> None:
        for key, row in [
            ("G", "r499"),
            ("k", "r498"),
            ("g", "r000"),
            ("pagedown", "r018"),
            ("j", "r019"),
            ("up", "r018"),
        ]:
            await pilot.press(key)
            assert app.grid.current == row
        await pilot.press("enter")
        assert app.chosen == ["r018"]

    with_bench(script)


def test_the_mouse_chooses_marks_and_scrolls_and_what_was_scrolled_to_stays() -> None:
    async def script(app: Bench, pilot: Pilot[None]) -> None:
        grid = app.grid
        await pilot.click(grid, offset=(5, 3))
        assert grid.current == "r002"
        await pilot.click(grid, offset=(5, 5), control=True)
        assert grid.marks == {"r004"}
        await pilot.double_click(grid, offset=(5, 7))
        assert app.chosen == ["r006"]
        grid.scroll_to(y=200, animate=False, force=True)
        await pilot.pause()
        grid.show(list(grid.rows))
        await pilot.pause()
        assert grid.scroll_offset.y == 200

    with_bench(script)


@pytest.mark.parametrize("size", [(1, 1), (5, 2), (20, 5), (300, 100)])
def test_no_size_is_too_small(size: tuple[int, int]) -> None:
    async def script(app: Bench, pilot: Pilot[None]) -> None:
        await pilot.press("G", "space", "g")
        await pilot.resize_terminal(10, 3)
        await pilot.press("G")
        assert app.grid.current == "r499"

    with_bench(script, size)
