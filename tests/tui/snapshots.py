"""Pictures of screens, kept as SVG beside the tests and compared to the letter.

`python -m pytest tests/tui/test_screens.py --update-snapshots` takes them anew: look at each before it is committed.
"""

from __future__ import annotations

import difflib
import html
import re
from pathlib import Path
from typing import TYPE_CHECKING

from textual.widgets import Input, TextArea

if TYPE_CHECKING:
    from tui.app import Dashboard

FOLDER = Path(__file__).parent / "snapshots"
_FONT_FACE = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""Loaded from elsewhere by whoever opens the picture; any fixed-width font does."""
_PORT = re.compile(r"127\.0\.0\.1:\d{5}")
_NUMBER = re.compile(r"terminal-\d+")
_TEXT = re.compile(r"<text[^>]*>(.*?)</text>", re.DOTALL)


def picture(app: Dashboard, title: str = "corral tui") -> str:
    """The screen as SVG, without what differs from run to run or loads from elsewhere."""
    svg = app.export_screenshot(title=title, simplify=True)
    return _PORT.sub("127.0.0.1:55555", _FONT_FACE.sub("", _NUMBER.sub("terminal", svg))) + "\n"


def hold_still(app: Dashboard) -> None:
    """Nothing blinks."""
    for field in app.screen.query(Input):
        field.cursor_blink = False
    for area in app.screen.query(TextArea):
        area.cursor_blink = False


def check(app: Dashboard, name: str, *, update: bool) -> None:
    """Compare the screen with the kept picture.

    Raises:
        AssertionError: they differ; says in which lines, and where the new picture is.
    """
    kept, svg = FOLDER / f"{name}.svg", picture(app)
    if update:
        FOLDER.mkdir(exist_ok=True)
        kept.write_text(svg)
        return
    assert kept.exists(), f"no picture {kept.name} yet: --update-snapshots takes it"
    before = kept.read_text()
    if svg != before:
        fresh = Path("/var/tmp") / f"corral-snapshot-{kept.name}"
        fresh.write_text(svg)
        changes = "\n".join(difflib.unified_diff(words(before), words(svg), "kept", "now", lineterm="", n=0))
        raise AssertionError(f"{kept.name} differs (now: {fresh}):\n{changes or 'in colours or places only'}")


def words(svg: str) -> list[str]:
    """What stands in a picture, piece by piece."""
    return [html.unescape(text).replace("\u00a0", " ") for text in _TEXT.findall(svg)]
