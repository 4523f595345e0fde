"""The view of lines by itself, and what a log's buffer keeps, drops and knows again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from rich.cells import cell_len
from textual.app import App

from tui.board.incarnations import crashed, heading, neighbour, read
from tui.board.loglines import MAX_TEXT, LogBuffer, LogLine, Sieve, harmless, moment
from tui.board.wrapping import height, pieces
from tui.themes import DARK, LIGHT
from tui.widgets.lines import Lines

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rich.color import Color
    from rich.style import Style
    from textual.app import ComposeResult
    from textual.pilot import Pilot
    from textual.theme import Theme

    from tui.board.cells import Cell

READABLE = 3.0
"""Of large text, by WCAG: a muted colour is meant to be muted."""
WORDS = ("", "short", "x" * 100, "漢字" * 30, "a漢" * 21, "one\ntwo\n\nfour", "é" * 50, "👩‍👩‍👧" * 9)


@pytest.mark.parametrize("width", [4, 7, 20, 81])
@pytest.mark.parametrize("text", WORDS)
def test_rows_are_as_many_as_said_none_too_wide_and_together_the_text(text: str, width: int) -> None:
    rows = pieces(text, width)
    assert len(rows) == height(text, width)
    assert all(cell_len(row.text) <= width for row in rows)
    assert "".join(row.text for row in rows) == text.replace("\n", "")
    assert all(text[row.start : row.start + len(row.text)] == row.text for row in rows)


class Stage(App[None]):
    """Nothing but lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: Lines[tuple[int, str]] = Lines(lambda item: item[1], lambda item: item[0])

    def compose(self) -> ComposeResult:
        yield self.lines

    def shown(self) -> list[str]:
        return [self.lines.render_line(y).text.rstrip() for y in range(self.lines.size.height)]


def on_stage(script: Callable[[Stage, Pilot[None]], Awaitable[None]], size: tuple[int, int] = (40, 10)) -> None:
    async def main() -> None:
        app = Stage()
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await script(app, pilot)

    asyncio.run(main())


def numbered(start: int, end: int, text: str = "line") -> list[tuple[int, str]]:
    return [(number, f"{text} {number}") for number in range(start, end)]


def test_only_lines_in_sight_are_asked_for() -> None:
    asked: list[int] = []

    async def script(app: Stage, pilot: Pilot[None]) -> None:
        lines = app.lines
        lines.show(numbered(0, 100_000))
        await pilot.pause()

        def lead(item: tuple[int, str]) -> tuple[Cell, ...]:
            asked.append(item[0])
            return ()

        lines._lead = lead
        lines.lead_width = 1
        lines.refresh()
        await pilot.pause()
        assert set(asked) == set(range(99_990, 100_000))
        assert app.shown()[-1].endswith("line 99999")

    on_stage(script)


def test_what_is_in_sight_stays_where_it_is_while_lines_come_and_go() -> None:
    async def script(app: Stage, pilot: Pilot[None]) -> None:
        lines = app.lines
        lines.show(numbered(100, 200))
        await pilot.press("pageup", "pageup")
        before = app.shown()
        lines.change(0, [], numbered(200, 300))
        lines.change(0, numbered(50, 100, "older"), [])
        await pilot.pause()
        assert app.shown() == before
        lines.change(60, [], [])
        await pilot.pause()
        assert app.shown() == before
        assert not lines.following
        await pilot.press("G")
        assert app.shown()[-1].endswith("line 299")
        lines.change(0, [], [(300, "the last")])
        assert app.shown()[-1].endswith("the last")

    on_stage(script)


def test_wrapped_lines_have_the_height_that_they_need_and_others_one_row() -> None:
    async def script(app: Stage, pilot: Pilot[None]) -> None:
        lines = app.lines
        lines.show([(0, "a" * 100), (1, "漢" * 40), (2, "one\ntwo")])
        await pilot.pause()
        assert lines.virtual_size.height == 3 + 3 + 2
        await pilot.press("w")
        assert lines.virtual_size.height == 3
        assert "one ⏎ two" in app.shown()[2]
        lines.show([(0, "漢字" * 100 + "the end")])
        for _ in range(60):
            await pilot.press("right")
        assert "the end" in app.shown()[0]

    on_stage(script)


def test_a_line_higher_than_the_view_can_be_read_to_its_end_and_back() -> None:
    async def script(app: Stage, pilot: Pilot[None]) -> None:
        lines = app.lines
        lines.show([(0, "first"), (1, "".join(f"{n:06d}" for n in range(1_000))), (2, "last")])
        await pilot.press("g", "down")
        seen = "".join(app.shown())
        for _ in range(60):
            await pilot.press("down")
            seen += "".join(app.shown())
        assert "000998" in seen
        assert app.shown()[-1].endswith("last")
        for _ in range(60):
            await pilot.press("up")
        assert app.shown()[0].endswith("first")

    on_stage(script)


def test_a_match_that_is_cut_in_two_by_the_width_is_lit_up_in_both_rows() -> None:
    async def script(app: Stage, pilot: Pilot[None]) -> None:
        lines = app.lines
        lines.show([(0, "-" * 36 + "NEEDLE" + "-" * 5), (1, "nothing")])
        lines.search("needle")
        await pilot.pause()
        assert lines.matches == 1
        match = lines.get_component_rich_style("lines--match")
        lit = [s.text for y in range(3) for s in lines.render_line(y) if s.style and s.style.bgcolor == match.bgcolor]
        assert "".join(lit).upper() == "NEEDLE"

    on_stage(script)


def test_a_tail_with_many_changes_is_what_it_would_be_shown_at_once() -> None:
    async def script(app: Stage, pilot: Pilot[None]) -> None:
        lines, buffer = app.lines, LogBuffer(kept=2_000)
        lines._text, lines._key = (lambda line: line.text), (lambda line: line.seq)  # type: ignore[attr-defined]
        for number in range(9_000):
            buffer.take(event(number, "漢" * (number % 50) + f" {number}"))
            if number % 70 == 0:
                change = buffer.changes()
                if change.anew:
                    lines.show(change.after)  # type: ignore[arg-type]
                else:
                    lines.change(change.dropped, change.before, change.after)  # type: ignore[arg-type]
        await pilot.pause()
        stack, shown = lines._stack, app.shown()
        ends = [stack.end(place) for place in range(len(lines.items))]
        assert stack.base > 0
        lines.lay_out()
        assert (ends, shown) == (stack.ends, app.shown())

    on_stage(script)


@pytest.mark.parametrize("theme", [DARK, LIGHT], ids=lambda theme: theme.name)
@pytest.mark.parametrize("tone", ["", "good", "warn", "bad", "dim", "accent"])
def test_every_tone_can_be_told_from_its_ground_in_either_theme(theme: Theme, tone: str) -> None:
    async def script(app: Stage, pilot: Pilot[None]) -> None:
        app.register_theme(theme)
        app.theme = theme.name
        app.lines._line_tone = lambda _: tone
        app.lines.show(numbered(0, 3))
        app.lines.action_mark()
        await pilot.pause()
        for y in range(3):
            segment = next(s for s in app.lines.render_line(y) if "line" in s.text)
            assert segment.style is not None
            assert contrast(segment.style) >= READABLE, (y, segment.style)

    on_stage(script)


def contrast(style: Style) -> float:
    """WCAG contrast of text on its ground."""
    light, dark = sorted((luminance(style.color), luminance(style.bgcolor)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: Color | None) -> float:
    assert colour is not None
    parts = [value / 255 for value in colour.get_truecolor()]
    red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


# -- the buffer


def event(number: int, message: str, at: float | None = None, **more: object) -> dict[str, object]:
    stamp = moment(1_700_000_000 + number if at is None else at)
    return {"timestamp": stamp, "level": "info", "stream": "stderr", "incarnation": 1, "message": message} | more


def texts(buffer: LogBuffer) -> list[str]:
    return [line.text for line in buffer.lines]


def test_lines_of_the_store_that_the_stream_brought_are_known_again_a_moment_apart() -> None:
    buffer = LogBuffer()
    for number in range(5):
        buffer.take(event(number, "tick"))
    stored = [event(number, "tick", at=1_700_000_000 + number + 0.001) for number in range(3, 8)]
    assert buffer.fill(stored, 1_700_000_007) == 3
    assert len(buffer.lines) == 8
    assert not buffer.take(event(7, "tick")), "the stream brings it as well"
    assert buffer.take(event(8, "tick"))


def test_a_line_twice_in_a_moment_is_two_lines() -> None:
    buffer = LogBuffer()
    buffer.take(event(0, "twin"))
    assert buffer.fill([event(0, "twin"), event(0, "twin")], 1_700_000_000) == 1
    assert texts(buffer) == ["twin", "twin"]


def test_older_lines_come_before_and_none_twice() -> None:
    buffer = LogBuffer()
    for number in range(5, 8):
        buffer.take(event(number, f"n{number}"))
    assert buffer.put_before([event(number, f"n{number}") for number in range(2, 6)]) == 3
    assert texts(buffer) == ["n2", "n3", "n4", "n5", "n6", "n7"]
    assert buffer.put_before([event(2, "n2")]) == 0


def test_what_changed_adds_up_to_what_is_there() -> None:
    buffer, view = LogBuffer(kept=1_500), list[LogLine]()
    for number in range(7_000):
        buffer.take(event(number, str(number)))
        if number % 333 == 0:
            change = buffer.changes()
            view = list(change.after) if change.anew else [*change.before, *view[change.dropped :], *change.after]
            assert view == buffer.lines
    assert len(buffer.lines) <= 1_500
    assert buffer.let_go + len(buffer.lines) == 7_000


@pytest.mark.parametrize(
    ("sieve", "kept"),
    [
        (Sieve(), "abcd"),
        (Sieve(least="warning"), "cd"),
        (Sieve(stream="stdout"), "b"),
        (Sieve(incarnation=2), "d"),
        (Sieve(text="B"), "b"),
        (Sieve(least="warning", text="b"), ""),
    ],
)
def test_all_that_a_sieve_has_set_must_hold(sieve: Sieve, kept: str) -> None:
    buffer = LogBuffer(sieve)
    told: dict[str, dict[str, Any]] = {
        "a": {"level": "debug"},
        "b": {"stream": "stdout"},
        "c": {"level": "warning"},
        "d": {"level": "error", "incarnation": 2},
    }
    for number, (name, more) in enumerate(told.items()):
        buffer.take(event(number, name, **more))
    assert "".join(texts(buffer)) == kept


def test_hostile_text_is_harmless_and_bounded() -> None:
    shown = harmless("\x1b[31mred\x1b[0m\x1b]8;;http://x\x07link \x00 \u202eback \x9b2J " + "z" + "\u0301" * 500)
    assert shown.isprintable()
    assert "\u0301" * 4 not in shown
    assert shown.startswith("red\\x1b]8;;http://x\\x07link")
    assert harmless("two\r\nlines\n") == "two\nlines"
    assert len(harmless("\x00" * 100_000)) < MAX_TEXT * 5
    assert "[cut, 100000 characters]" in harmless("y" * 100_000)


def test_processes_are_named_with_their_end_and_the_crashed_one_is_found() -> None:
    known = read(
        [
            {"number": 4, "is_running": True},
            {"number": 3, "exit_code": 0},
            {"number": 1, "signal": "SIGKILL", "reason": "killed"},
        ]
    )
    assert crashed(known) == 1
    assert crashed(known[:2]) == 3
    assert crashed(known[:1]) is None
    assert heading(known, None) == "all processes"
    assert heading(known, 1) == "process 1 of 4 (crashed: SIGKILL)"
    assert heading(known, 3) == "process 3 of 4 (ended: exit 0)"
    assert [neighbour(known, None, -1), neighbour(known, 4, -1), neighbour(known, 3, -1), neighbour(known, 1, -1)] == [
        4, 3, 1, 1,
    ]  # fmt: skip
    assert [neighbour(known, 1, 1), neighbour(known, 4, 1), neighbour(known, None, 1)] == [3, None, None]
