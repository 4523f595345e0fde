"""One section of facts: a heading, names at the left, values wrapped at the right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.widget import Widget

from tui.board.facts import NAME_CELLS, Section, wrapped
from tui.widgets.tones import TONES

if TYPE_CHECKING:
    from textual.geometry import Size

RULE = "─"
LEAST_VALUE_CELLS = 10


class FactSheet(Widget):
    """As high as its facts; hidden while it has none. Takes clean text only."""

    DEFAULT_CSS = """
    FactSheet { height: auto; width: 1fr; padding: 0 1 1 1; display: none; }
    FactSheet.-told { display: block; }
    """

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002  (Textual's name)
        super().__init__(id=id)
        self._section = Section("", ())
        self._made: tuple[int, list[Content]] = (-1, [])

    @property
    def section(self) -> Section:
        return self._section

    def tell(self, section: Section | None) -> None:
        """Show these facts from now on; the page is laid out anew only where it is another number of lines."""
        section = section or Section("", ())
        if section == self._section:
            return
        width, before = self._made
        self._section, self._made = section, (-1, [])
        self.set_class(bool(section.facts), "-told")
        self.refresh(layout=width < 0 or len(self._lines(width)) != len(before))

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:  # noqa: ARG002  (Textual's)
        return len(self._lines(width))

    def render(self) -> Content:
        return Content("\n").join(self._lines(self.content_size.width))

    def _lines(self, width: int) -> list[Content]:
        if self._made[0] != width:
            self._made = (width, self._make(width))
        return self._made[1]

    def _make(self, width: int) -> list[Content]:
        title = self._section.title
        rule = RULE * max(0, width - len(title) - 1)
        lines = [Content.assemble((title, "bold $text-primary"), " ", (rule, "$text-muted"))]
        for fact in self._section.facts:
            name = fact.name
            for part in wrapped(fact.cell.text, max(LEAST_VALUE_CELLS, width - NAME_CELLS)):
                value = (part, TONES[fact.cell.tone])
                lines.append(Content.assemble((name.ljust(NAME_CELLS), "$text-muted"), value))
                name = ""
        return lines
