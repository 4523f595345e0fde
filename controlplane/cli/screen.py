"""What the operator sees: two consoles, plain where nobody looks, and every foreign word made harmless first.

Server-supplied text is never markup, and its control characters are shown, not obeyed (`clean`). Colour never carries
meaning alone. On a pipe, tables are plain columns without any cut, and `--json` prints the API's JSON and nothing else.
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from attrs import define, field, frozen
from rich.cells import cell_len
from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.table import Table
from rich.text import Text

from controlplane.wire.text import clean, clean_json, clean_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.status import Status

    from controlplane.cli.exits import Problem

GAP = 2
"""Blanks between two columns."""
LEAST_WIDTH = 20
"""What a column that can be cut or wrapped keeps, before others are left out."""

Part = str | tuple[str, str] | Text
"""A piece of a line: foreign or our own text, the same with a style, or text that is clean already."""

STATUS_STYLE = {
    "running": ("●", "green"),
    "failed": ("✗", "bold red"),
    "stopped": ("○", "dim"),
    "stopping": ("◌", "yellow"),
    "restarting": ("↻", "yellow"),
}
"""Sign and colour of an instance's status; the word always stands beside them."""


@frozen
class Column:
    """A column of a table.

    Args:
        title: Its heading.
        right: Numbers stand at the right.
        wraps: Takes the width that is left, and wraps in it.
        gives: Is cut short, with an ellipsis, before any other column suffers.
        spare: Left out of a narrow terminal; the highest goes first, 0 never.
        style: Of its cells.
    """

    title: str
    right: bool = False
    wraps: bool = False
    gives: bool = False
    spare: int = 0
    style: str = ""


class _PipeConsole(Console):
    """A console that leaves a reader's early end (`| head`) to `main`."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


@define
class Screen:
    """Standard output for what was asked for, standard error for all else."""

    out: Console = field(factory=lambda: _console(sys.stdout))
    err: Console = field(factory=lambda: _console(sys.stderr))

    @property
    def is_terminal(self) -> bool:
        return self.out.is_terminal

    def line(self, *parts: Part) -> None:
        """Print one line on standard output, never broken by us; a tuple is text with a style."""
        self.out.print(_line(parts), soft_wrap=True)

    def say(self, *parts: Part, indent: int = 0) -> None:
        """Print a sentence on standard output, wrapped at words on a terminal."""
        _prose(self.out, parts, indent)

    def note(self, *parts: Part, indent: int = 0) -> None:
        """Print a sentence on standard error, wrapped at words on a terminal."""
        _prose(self.err, parts, indent)

    def facts(self, rows: Iterable[tuple[str, Part]], *, indent: int = 0) -> None:
        """Print titles with their values, which hang beside them on a terminal."""
        _facts(self.out, list(rows), indent)

    def raw(self, text: str) -> None:
        """Print text as it is, and flush, so that a reader of a stream is never behind."""
        self.out.file.write(text + "\n")
        self.out.file.flush()

    def json_bytes(self, body: bytes) -> None:
        """Print the API's JSON: one document on one line."""
        self.raw(clean_json(body).replace("\n", " "))

    def pretty(self, document: Any) -> None:
        """Print JSON for people: indented, in colours on a terminal."""
        text = clean_json(json.dumps(document, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace"))
        if self.is_terminal:
            self.out.print(JSONHighlighter()(text), soft_wrap=True)
        else:
            self.raw(text)

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[str | Text]]) -> None:
        """Print a table: fitted to a terminal, or whole and in plain columns on a pipe."""
        cells = [[cell if isinstance(cell, Text) else Text(clean(cell)) for cell in row] for row in rows]
        if self.is_terminal:
            self.out.print(_fitted(columns, cells, self.out.width))
            return
        for text in _plain([[column.title for column in columns], *([cell.plain for cell in row] for row in cells)]):
            self.raw(text)

    @contextmanager
    def busy(self, text: str) -> Iterator[Status | None]:
        """Show on a terminal that something is under way."""
        if not self.err.is_terminal:
            yield None
            return
        with self.err.status(Text(text)) as status:
            yield status


def _console(file: IO[str]) -> Console:
    reconfigure = getattr(file, "reconfigure", None)
    if reconfigure:  # a terminal without UTF-8 shows escapes rather than a traceback
        reconfigure(errors="backslashreplace")
    return _PipeConsole(file=file, highlight=False, markup=False, emoji=False)


def _prose(console: Console, parts: Sequence[Part], indent: int) -> None:
    _hang(console, Text(" " * indent), _line(parts))


def _facts(console: Console, rows: Sequence[tuple[str, Part]], indent: int) -> None:
    width = max((cell_len(clean(title)) for title, _ in rows), default=0)
    for title, value in rows:
        _hang(console, _line((" " * indent, (f"{clean(title):<{width + GAP}}", "dim"))), _line((value,)))


def _hang(console: Console, head: Text, body: Text) -> None:
    """Print text behind its head; on a terminal it is wrapped at words, and hangs there."""
    indent = head.cell_len
    lines = body.wrap(console, max(LEAST_WIDTH, console.width - indent)) if console.is_terminal else [body]
    for at, line in enumerate(lines):
        console.print(Text().append(head if at == 0 else " " * indent).append(line), soft_wrap=True)


def _line(parts: Iterable[Part]) -> Text:
    line = Text()
    for part in parts:
        if isinstance(part, tuple):
            line.append(clean(part[0]), part[1])
        else:
            line.append(clean(part) if isinstance(part, str) else part)
    return line


def _kept(columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int) -> list[int]:
    """Return the columns that fit a terminal, by their places: the most dispensable are left out first."""

    def needed(at: int) -> int:
        column = columns[at]
        natural = max([cell_len(column.title), *(row[at].cell_len for row in rows)])
        return min(natural, LEAST_WIDTH) if column.gives or column.wraps else natural

    kept = list(range(len(columns)))
    for at in sorted((at for at in kept if columns[at].spare), key=lambda at: -columns[at].spare):
        if sum(needed(place) + GAP for place in kept) - GAP > width:
            kept.remove(at)
    return kept


def _fitted(columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold", expand=False)
    kept = _kept(columns, rows, width)
    for column in (columns[at] for at in kept):
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            style=column.style,
            no_wrap=not (column.wraps or column.gives),
            overflow="fold" if column.wraps else "ellipsis",
        )
    for row in rows:
        for at in kept:
            if columns[at].gives:
                row[at].no_wrap, row[at].overflow = True, "ellipsis"
        table.add_row(*(row[at] for at in kept))
    return table


def _plain(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def status_text(status: str) -> Text:
    """Return an instance's status with its sign and colour."""
    sign, style = STATUS_STYLE.get(status, ("…", "cyan"))
    return Text(f"{sign} {clean(status)}", style)


def show_problem(screen: Screen, problem: Problem) -> None:
    """Print a problem's block: what, why, the evidence, what to do, and how to find it in the log."""
    screen.note(("Error: ", "bold red"), (problem.title, "bold"))
    if problem.detail and problem.detail != problem.title:
        for line in clean_lines(problem.detail):
            screen.note(line, indent=2)
    said = problem.detail.splitlines()
    _facts(screen.err, [(name, value) for name, value in problem.facts if f"{name}: {value}" not in said], 2)
    for line in (line for entry in problem.stderr_tail for line in clean_lines(entry)):
        screen.err.print(_line(("  ", ("│ ", "dim"), line)), soft_wrap=True)
    again = [f"Try again in {problem.retry_after} s."] if problem.retry_after else []
    for hint in [*problem.hint.splitlines(), *again]:
        screen.note(("Hint: ", "bold yellow"), hint, indent=2)
    reference = " ".join(str(part) for part in (problem.status, problem.code) if part)
    if problem.request_id:
        reference += f"  request {problem.request_id}"
    if reference:
        screen.note((reference.strip(), "dim"), indent=2)
