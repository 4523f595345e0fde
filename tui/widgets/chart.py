"""A plot of an instance's figures over time: a title with numbers, lines, a limit, gaps, and where it was started anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual.color import Color
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static
from textual_plotext import PlotextPlot

from tui.board.pictures import told

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from tui.board.pictures import Colour, Line, Picture

Y_TICKS = 3
"""On the axis at the left: bottom, middle, top; a plot may be seven lines high."""


class Chart(Vertical):
    """One plot with its title above it."""

    DEFAULT_CSS = """
    Chart { height: 9; width: 1fr; }
    Chart > .title { height: auto; max-height: 2; padding: 0 1; }
    Chart > .empty { height: 1fr; content-align: center middle; color: $text-muted; display: none; }
    Chart.-empty > .empty { display: block; }
    Chart.-empty > PlotextPlot { display: none; }
    """

    def __init__(self, *, id: str) -> None:  # noqa: A002  (Textual's name)
        super().__init__(id=id)
        self._picture: Picture | None = None
        self._empty = ""

    def compose(self) -> ComposeResult:
        yield Static(classes="title", markup=False)
        yield Static(classes="empty", markup=False)
        yield PlotextPlot()

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _: self._draw())

    def on_resize(self) -> None:
        if self._picture is not None:
            self.show(self._picture, self._empty)

    def show(self, picture: Picture, empty: str) -> None:
        """Show this from now on; `empty` says why, where there is no line."""
        self._picture, self._empty = picture, empty
        self.query_one(".empty", Static).update(empty)
        self.query_one(".title", Static).update(_title(picture, self.size.width - 2))
        self.set_class(picture.is_empty, "-empty")
        self._draw()

    def _draw(self) -> None:
        picture = self._picture
        if picture is None or picture.is_empty:
            return
        plot = self.query_one(PlotextPlot)
        plt = plot.plt
        plt.clear_figure()
        self._frame(plt, picture)
        for line in picture.lines:
            for times, values in line.runs:
                plt.plot(times, values, marker=line.look.marker, color=self._rgb(line.look.colour))
        plot.refresh()

    def _frame(self, plt: Any, picture: Picture) -> None:
        plt.xlim(picture.start, picture.end)
        plt.ylim(0, picture.top)
        plt.xaxes(lower=True, upper=False)
        plt.yaxes(left=True, right=False)
        places = [picture.top * n / (Y_TICKS - 1) for n in range(Y_TICKS)]
        plt.yticks(places, [picture.shown(place) for place in places])
        plt.xticks(*picture.ticks)
        if picture.limit_in_sight:
            plt.hline(picture.limit, color=self._rgb("error"))
        for mark in picture.marks:
            plt.vline(mark, color=self._rgb("warning"))

    def _rgb(self, colour: Colour) -> tuple[int, int, int]:
        return Color.parse(self.app.theme_variables[colour]).rgb


def _title(picture: Picture, width: int) -> Content:
    """What a plot shows, in numbers; a second line of it gets a line of its own where one has no room for both."""
    name = Content.styled(picture.title, "bold $text-primary")
    parts = [Content.assemble((_signed(line), f"${line.look.colour}"), told(picture, line)) for line in picture.lines]
    if picture.limit is not None:
        where = "" if picture.limit_in_sight else " (above)"
        parts.append(Content.styled(f"─ limit {picture.shown(picture.limit)}{where}", "$text-error"))
    whole = Content("  ").join([name, *parts])
    if whole.cell_length <= width or len(parts) < 2:
        return whole
    margin = " " * (name.cell_length + 2)
    return Content("\n").join([Content("  ").join([name, parts[0]]), *(Content.assemble(margin, p) for p in parts[1:])])


def _signed(line: Line) -> str:
    return f"{line.look.sign} {line.look.name} " if line.look.name else ""
