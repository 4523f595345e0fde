"""What it is, what it may use, and how its processes ended."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from tui.board import facts
from tui.board.instance_columns import INCARNATION_COLUMNS, LANE_COLUMNS, REVISION_COLUMNS
from tui.board.story import FAILING, Story, mark_of
from tui.client import Failure, path_of
from tui.panes.base import Pane
from tui.screens.confirm import ConfirmScreen
from tui.widgets.factsheet import FactSheet
from tui.widgets.grid import HEADER_LINES, Grid
from tui.working import set_to_work

if TYPE_CHECKING:
    from textual import events
    from textual.app import ComposeResult
    from textual.widget import Widget

    from tui.board.board import Touched
    from tui.board.cells import Column
    from tui.board.facts import Section
    from tui.board.story import Document
    from tui.screens.instance import InstanceScreen

READ_PAUSE_S = 0.5
"""Between two readings: a revision that comes up, or a crash loop, changes much in little time."""
GRID_LINES = 10
"""Of each table; the rest of it scrolls."""
KEPT_PROCESSES = 100
"""Newest ones in the table: a crash loop has thousands."""
WIDE_CELLS, WIDEST_CELLS = 110, 170
"""From which the facts, and the tables too, stand side by side."""
ROLLBACK_QUESTION = (
    "Roll back to revision {}? It is started beside the one in force, and takes over once it has answered."
)

LOOK, MEND = "2 shows its log", "r restarts it, u builds it anew"
"""The next steps for one that fails, with the keys for them; in a read-only context only the first is there."""


class Page(VerticalScroll, can_focus=True):
    """The whole overview, scrolled by the keys that move everywhere."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("k", "scroll_up", "Up", show=False),
        Binding("j", "scroll_down", "Down", show=False),
        Binding("g", "scroll_home", "Top", show=False),
        Binding("G", "scroll_end", "End", show=False),
    ]


class OverviewPane(Pane):
    """Facts that change with each sample come from the board; the rest is read again when the instance's state changes."""

    title: ClassVar[str] = "Overview"
    DEFAULT_CSS = """
    OverviewPane > Page { scrollbar-size-vertical: 1; }
    OverviewPane #note { height: auto; padding: 0 1; margin-bottom: 1; color: $text-warning; display: none; }
    OverviewPane #note.-told { display: block; }
    OverviewPane .side { height: auto; width: 1fr; }
    OverviewPane .sides { height: auto; layout: vertical; }
    OverviewPane.-wide .sides.facts { layout: horizontal; }
    OverviewPane.-widest .sides { layout: horizontal; }
    OverviewPane .heading { height: 1; padding: 0 1; color: $text-primary; text-style: bold; }
    OverviewPane Grid { height: 3; margin-bottom: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("b", "rollback", "Roll back"),
        Binding("l", "process_log", "Process's log"),
        Binding("p", "process_log", "Process's log", show=False),
        # The screen's and the app's own, said here once more: who reads why it fails is to see what mends it.
        Binding("r", "app.verb('restart')", "Restart"),
        Binding("s", "app.verb('stop')", "Stop"),
        Binding("t", "app.verb('start')", "Start"),
        Binding("u", "app.verb('redeploy')", "Redeploy"),
        Binding("ctrl+r", "reload", "Read anew", show=False),
    ]

    def __init__(self, instance_id: str) -> None:
        super().__init__(instance_id)
        self.story = Story()
        self._mark: tuple[object, ...] = ()
        self._due = asyncio.Event()
        self._chosen: tuple[str, int] = ("", 0)

    def compose(self) -> ComposeResult:
        clock = self.plane.clock
        with Page(id="page"):
            yield Static(id="note", markup=False)
            yield FactSheet(id="fresh")
            with Horizontal(classes="sides facts"):
                with Vertical(classes="side"):
                    yield from (FactSheet(id=name) for name in ("state", "usage", "confinement"))
                with Vertical(classes="side"):
                    yield from (FactSheet(id=name) for name in ("launch", "protocol"))
            with Horizontal(classes="sides tables"):
                yield from self._table("Revisions (b rolls back)", "revisions", REVISION_COLUMNS, "revision", clock)
                yield from self._table(
                    "Processes (enter: why it ended)", "processes", INCARNATION_COLUMNS, "number", clock
                )
            yield from self._table("Lanes: processes that serve clients now", "lanes", LANE_COLUMNS, "pid", clock)
            yield FactSheet(id="chosen")

    def _table(
        self, title: str, name: str, columns: tuple[Column[Document], ...], key: str, clock: Any
    ) -> ComposeResult:
        with Vertical(classes="side"):
            yield Static(title, classes="heading", markup=False)
            grid: Grid[Document] = Grid(columns, lambda row: str(row.get(key)), empty="None yet", clock=clock, id=name)
            yield grid

    def main_widget(self) -> Widget:
        return self.query_one(Page)

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(event.size.width >= WIDE_CELLS, "-wide")
        self.set_class(event.size.width >= WIDEST_CELLS, "-widest")

    # -- reading

    def opened(self) -> None:
        self._due.set()
        set_to_work(self, self._keep_reading, group="view")

    def board_changed(self, touched: Touched) -> None:
        if not touched.fleet and self.instance_id not in touched.ids:
            return
        mark = mark_of(self.plane.board, self.instance_id)
        if mark != self._mark:
            self._mark = mark
            self._due.set()
        self._show_live()

    def action_reload(self) -> None:
        self._due.set()

    async def _keep_reading(self) -> None:
        """Service loop while in view: read whenever there is a reason to."""
        while True:
            await self._due.wait()
            self._due.clear()
            await self._read()
            self._show()
            await asyncio.sleep(READ_PAUSE_S)

    async def _read(self) -> None:
        """Read all three anew; what cannot be read stays as it was, and is said."""
        id_, story = self.instance_id, self.story
        document, revisions, processes = await asyncio.gather(
            self._get(path_of("instances", id_)),
            self._get(path_of("instances", id_, "revisions"), "revisions"),
            self._get(path_of("instances", id_, "incarnations"), "incarnations", limit=KEPT_PROCESSES),
        )
        story.is_gone = isinstance(document, Failure) and document.code == "not_found"
        failures = [answer for answer in (document, revisions, processes) if isinstance(answer, Failure)]
        expected = story.is_gone
        story.complaints = tuple(dict.fromkeys(str(f) for f in failures if not (expected and f.code == "not_found")))
        if not isinstance(document, Failure):
            story.document = document
        if not isinstance(revisions, Failure):
            story.revisions = revisions
        if not isinstance(processes, Failure):
            story.incarnations = processes

    async def _get(self, path: str, member: str = "", **query: Any) -> Any:
        try:
            document = await self.plane.api.get(path, **query)
            return document[member] if member else document
        except Failure as failure:
            return failure

    # -- painting

    def _show_live(self) -> None:
        row, now = self.row, self.plane.clock()
        document = self.story.document or {}
        past = None if row is not None and row.status in FAILING else self.story.last_post_mortem
        self._sheet("state").tell(facts.state(row, now, document, past))
        limits, enforcement = document.get("limits") or {}, document.get("enforcement")
        self._sheet("usage").tell(facts.usage(row, limits, enforcement) if document else None)
        running = self._grid("processes")
        running.touch([str(process.get("number")) for process in self.story.incarnations[:1]])

    def _show(self) -> None:
        if not self.is_mounted:
            return
        story = self.story
        document = story.document
        self._show_note()
        self._show_live()
        self._sheet("confinement").tell(facts.confinement(document) if document else None)
        self._sheet("launch").tell(facts.launch(document) if document else None)
        self._sheet("protocol").tell(facts.protocol(document) if document else None)
        self._fill("lanes", (document or {}).get("lanes") or () if not story.is_gone else ())
        self._fill("revisions", story.revisions)
        self._fill("processes", story.incarnations)
        self._show_post_mortem()

    def _show_note(self) -> None:
        story, said = self.story, []
        if story.is_gone:
            said.append("Deleted. What was read of it before, and its history, is all that is left.")
        said += [f"✗ {complaint} (ctrl+r tries again)" for complaint in story.complaints]
        note = self.query_one("#note", Static)
        note.update(Content("\n".join(said)))
        note.set_class(bool(said), "-told")

    def _show_post_mortem(self) -> None:
        """On top while it fails; below the tables when it is of the past, or another was chosen there."""
        last, row = self.story.last_post_mortem, self.row
        failing = row is not None and row.status in FAILING
        title, steps = ("Why it fails", self._next_steps()) if failing else ("The last post-mortem", "")
        section = facts.post_mortem(last, title, steps) if last else None
        self._sheet("fresh").tell(section if failing else None)
        self._sheet("chosen").tell(self._chosen_section() or (None if failing else section))

    def _next_steps(self) -> str:
        """What a person may do where the server names nothing."""
        return LOOK if self.plane.read_only else f"{LOOK}, {MEND}"

    def _chosen_section(self) -> Section | None:
        """Of the revision or process that enter was pressed on."""
        table, number = self._chosen
        if table == "revisions" and (revision := self.story.revision(number)) is not None:
            return facts.revision(revision)
        if table == "processes" and (process := self.story.incarnation(number)) is not None:
            return facts.process(process)
        return None

    def _fill(self, name: str, rows: Any) -> None:
        grid = self._grid(name)
        grid.show(list(rows))
        grid.styles.height = HEADER_LINES + max(2, min(GRID_LINES, len(rows)))

    def _sheet(self, name: str) -> FactSheet:
        return self.query_one(f"#{name}", FactSheet)

    def _grid(self, name: str) -> Grid[Any]:
        return self.query_one(f"#{name}", Grid)

    # -- keys

    def on_grid_chosen(self, message: Grid.Chosen) -> None:
        """Show all of a revision or a process, and go there."""
        message.stop()
        table = message.grid.id or ""
        if type(message) is not Grid.Chosen or table == "lanes":
            return
        self._chosen = (table, int(message.key))
        self._show_post_mortem()
        self.call_after_refresh(self._sheet("chosen").scroll_visible, animate=False, top=True)

    def action_rollback(self) -> None:
        """Roll back to the revision under the cursor, when that is another than the one in force."""
        grid: Grid[Document] = self._grid("revisions")
        revision = grid.current
        if self.plane.read_only:
            self.dashboard.warn("Read-only: nothing is rolled back from here")
        elif self.row is None:
            self.dashboard.warn("It is deleted: there is nothing to roll back")
        elif revision is None or revision.get("state") in {"active", "pending"}:
            grid.focus()
            self.dashboard.warn("Choose an earlier revision in the table, then press b")
        else:
            number = int(revision["revision"])
            self.dashboard.push_screen(
                ConfirmScreen(ROLLBACK_QUESTION.format(number), "Roll back"), lambda yes: self._roll_back(number, yes)
            )

    def _roll_back(self, number: int, yes: bool | None) -> None:
        if yes:
            set_to_work(self, partial(self._request_rollback, number))

    async def _request_rollback(self, number: int) -> None:
        path = path_of("instances", self.instance_id, "rollback")
        try:
            await self.plane.api.send("POST", path, {"revision": number}, query={"wait": 0})
        except Failure as failure:
            self.dashboard.warn(str(failure), failure.hint)
        else:
            self.dashboard.notify(f"revision {number} is on its way back", markup=False)
        self._due.set()

    def action_process_log(self) -> None:
        """Show the log of the process under the cursor."""
        process = self._grid("processes").current
        if process is None:
            self.dashboard.warn("It has had no process yet: all it printed is in its log")
        else:
            cast("InstanceScreen", self.screen).show_log_of(int(process["number"]))
