"""How a log line looks: what stands before its text, and what a saved one says. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from controlplane.wire.units import duration
from tui.board.cells import Cell, Tone, placed

if TYPE_CHECKING:
    from tui.board.loglines import LogLine

STAMPS = ("absolute", "relative", "off")
"""Ways to show a line's time."""
STAMP_WIDTHS = {"absolute": 13, "relative": 8, "off": 0}
SIGNS: dict[str, tuple[str, str, Tone]] = {
    "error": ("✗", "error", "bad"),
    "warning": ("!", "warn", "warn"),
    "info": ("·", "info", "accent"),
    "debug": ("∙", "debug", "dim"),
}
"""Sign, word and tone of a level; a narrow terminal has room for the word's first letter."""
STREAM_WORDS = {"stdout": "out", "stderr": "err", "system": "sys", "build": "bld", "": "   "}
LEVEL_WIDE, LEVEL_NARROW, STREAM_WIDTH = 8, 3, 4


def lead_width(stamps: str, *, is_wide: bool) -> int:
    """Cells before a line's text."""
    return STAMP_WIDTHS[stamps] + (LEVEL_WIDE if is_wide else LEVEL_NARROW) + STREAM_WIDTH


def lead_cells(line: LogLine, stamps: str, now: float, *, is_wide: bool) -> tuple[Cell, ...]:
    """What stands before a line's text: time, level by sign and word, stream."""
    if line.note:
        return ()
    sign, word, tone = SIGNS[line.level]
    level = f"{sign} {word}" if is_wide else sign + word[0].upper()
    return (
        Cell(placed(stamp(line.at, stamps, now), STAMP_WIDTHS[stamps]), "dim"),
        Cell(placed(level, LEVEL_WIDE if is_wide else LEVEL_NARROW), tone),
        Cell(placed(STREAM_WORDS[line.stream], STREAM_WIDTH), "dim"),
    )


def stamp(at: float, stamps: str, now: float) -> str:
    """A line's time of day here, or how long ago it was."""
    if stamps == "off" or not at:
        return ""
    if stamps == "relative":
        return f"-{duration(max(0.0, now - at))}"
    moment = datetime.fromtimestamp(at)  # the time on the reader's wall
    return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}"


def line_tone(line: LogLine) -> str:
    """What colour the text has."""
    if line.note:
        return "accent"
    return {"error": "bad", "warning": "warn", "debug": "dim"}.get(line.level, "dim" if line.stream == "system" else "")


def saved(line: LogLine) -> str:
    """A line as a file has it."""
    if line.note:
        return line.text
    when = datetime.fromtimestamp(line.at).astimezone().isoformat(timespec="milliseconds")
    return f"{when} {line.level:<7} {line.stream} #{line.incarnation}  {line.text}"
