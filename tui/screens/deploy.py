"""Deploy something new: four ways to say what, one form, and then its phases live."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING, ClassVar

from attrs import evolve
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Input, Select, Static, Tab, Tabs

from tui.client import Failure
from tui.deploying.batch import Batch, Item
from tui.deploying.draft import Draft, Wrong, command_line, folded, suggested_name
from tui.deploying.fields import FIELDS, WAYS, Field, field_at, fields_of
from tui.deploying.levels import labels, missing
from tui.deploying.sending import Deployment, Parcel, pack
from tui.screens.base import BoardScreen
from tui.screens.batch import BatchScreen
from tui.screens.confirm import ConfirmScreen
from tui.screens.course import CourseScreen, begin, problem_lines
from tui.widgets.form import FormLine, Variables, choice_line, text_line
from tui.widgets.server_picker import ServerPicker
from tui.working import set_to_work

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.widget import Widget

    from tui.deploying.fields import Way

PLACE = "deploy"
READ_ONLY = "Read-only: nothing is deployed from here"


class DeployScreen(BoardScreen):
    """The form. What was typed stays until it was deployed, wherever one goes meanwhile."""

    crumbs = ("fleet", "deploy")
    place = PLACE
    DEFAULT_CSS = """
    DeployScreen > Tabs { height: 2; }
    DeployScreen > #form { height: 1fr; padding: 0 1; scrollbar-size-vertical: 1; }
    DeployScreen #refusal { display: none; padding: 0 0 1 1; }
    DeployScreen #refusal.-on { display: block; }
    DeployScreen #more { height: 1; padding: 0 2; margin-top: 1; color: $text-muted; }
    DeployScreen #more:hover { color: $text-accent; }
    DeployScreen > #foot { height: auto; max-height: 4; padding: 0 2; background: $surface; }
    DeployScreen #same { color: $text-muted; height: auto; max-height: 2; }
    DeployScreen #go { color: $text-accent; text-style: bold; height: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+j", "send", "Deploy"),
        Binding("ctrl+t", "step", "Another way", priority=True),
        Binding("f7", "step", "Another way", priority=True, show=False),
        Binding("ctrl+o", "more", "More fields", priority=True),
        # At once, before the next key is looked at: what is typed quickly after it would else be in the field before.
        Binding("tab", "app.focus_next", "Next field", show=False, priority=True),
        Binding("shift+tab", "app.focus_previous", "Field before", show=False, priority=True),
        Binding("enter", "next_line", "Next field", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._sending = False
        self._missing_levels: dict[str, str] = {}

    @property
    def draft(self) -> Draft:
        kept = self.plane.kept.setdefault(PLACE, Draft())
        assert isinstance(kept, Draft)
        return kept

    # -- what there is

    def body(self) -> ComposeResult:
        yield Tabs(*(Tab(title, id=way) for way, title in WAYS.items()), active=self.draft.way)
        with VerticalScroll(id="form", can_focus=False):
            yield Static(id="refusal")
            for field in FIELDS:
                yield _line_of(field)
            yield ServerPicker()
            yield Static(id="more")
        with Vertical(id="foot"):
            yield Static(id="same")
            yield Static(id="go")

    def on_mount(self) -> None:
        for key, text in self.draft.texts.items():
            self._line(key).put(text)
        self._arrange()
        self.call_later(self.query_one(Variables).put, list(self.draft.variables))
        set_to_work(self, self._ask_levels, group="levels")

    async def _ask_levels(self) -> None:
        """Say which levels the host can give; a server that does not know is no hindrance: it judges the request."""
        try:
            document = await self.plane.api.get("/isolation")
        except Failure:
            return
        self._missing_levels = missing(document)
        line = self._line("isolation")
        line.relabel(labels(document))
        self._doubt(line)

    def _doubt(self, line: FormLine) -> None:
        """Warn of what the server would refuse."""
        if line.key == "isolation":
            line.complain(self._missing_levels.get(self.draft.text("isolation"), ""))

    def main_widget(self) -> Widget | None:
        if self.draft.way == "servers":
            return self.query_one(ServerPicker).main_widget()
        return self._line(fields_of(self.draft.way)[0].key).query_one(Input)

    def _line(self, key: str) -> FormLine:
        return self.query_one(f"#line-{key}", FormLine)

    def _arrange(self) -> None:
        """Show the lines that the chosen way has."""
        draft = self.draft
        mine = {field.key for field in fields_of(draft.way) if draft.more or not field.more}
        for field in FIELDS:
            self._line(field.key).display = field.key in mine
        self.query_one(ServerPicker).display = draft.way == "servers"
        more = self.query_one("#more", Static)
        more.display = draft.way != "servers"
        more.update("▾ less (ctrl+o)" if draft.more else "▸ more: limits, restart, isolation, network … (ctrl+o)")
        self._tell()

    def _tell(self) -> None:
        """Say what it comes to: the name, the same as a command, and how to send it."""
        draft = self.draft
        self._line("name").suggest(suggested_name(draft) or "what it is to be called")
        self.query_one("#same", Static).update(Content(f"$ {command_line(draft)}"))
        go = "ctrl+j deploys it" if draft.way != "servers" else "ctrl+j deploys those that are ticked"
        if self._sending:
            go = "◌ packing and sending …"
        elif self.plane.read_only:
            go = READ_ONLY
        self.query_one("#go", Static).update(Content(go))

    # -- typing

    def on_input_changed(self, event: Input.Changed) -> None:
        line = next((node for node in event.input.ancestors if isinstance(node, FormLine)), None)
        if line is not None:
            self.draft.texts[line.key] = event.value
            self._typed(line)

    def on_select_changed(self, event: Select.Changed) -> None:
        line = next((node for node in event.select.ancestors if isinstance(node, FormLine)), None)
        if line is not None and str(event.value) != self.draft.texts.get(line.key, _default(line.key)):
            self.draft.texts[line.key] = str(event.value)
            self._typed(line)

    def on_variables_changed(self) -> None:
        self.draft.variables = self.query_one(Variables).pairs
        self._typed(self._line("env"))

    def _typed(self, line: FormLine) -> None:
        line.complain("")
        self._doubt(line)
        taken = folded(self.draft.name)
        if any(row.name == taken for row in self.plane.board.rows.values()) and not self.draft.failed:
            self._line("name").complain(f"there is a {taken} already")
        elif line.key != "name":
            self._line("name").complain("")
        self._tell()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if any(isinstance(node, FormLine) for node in event.input.ancestors):
            self.focus_next()

    def on_tabs_tab_activated(self, event: Tabs.TabActivated) -> None:
        way: Way = next(way for way in WAYS if way == event.tab.id)
        if way == self.draft.way:
            return
        self.draft.way = way
        self._complain([])
        self._arrange()
        if not isinstance(self.focused, Tabs):
            self.focus_body()

    def on_click(self, event: object) -> None:
        if getattr(event, "widget", None) is self.query_one("#more"):
            self.action_more()

    # -- keys

    def action_step(self) -> None:
        ways = list(WAYS)
        self.query_one(Tabs).active = ways[(ways.index(self.draft.way) + 1) % len(ways)]

    def action_more(self) -> None:
        self.draft.more = not self.draft.more
        self._arrange()

    def action_next_line(self) -> None:
        self.focus_next()

    def action_send(self) -> None:
        if self.plane.read_only:
            self.dashboard.warn(READ_ONLY)
        elif self.draft.way == "servers":
            self._send_servers()
        elif not self._sending:
            self._sending = True
            self._collect()
            self._complain([])
            self._tell()
            set_to_work(self, self._send, group="send")

    def _collect(self) -> None:
        """Take what stands in the fields now: the news of the last letters may still be on their way."""
        for line in self.query(FormLine):
            if line.value != self.draft.texts.get(line.key, _default(line.key)):
                self.draft.texts[line.key] = line.value
        self.draft.variables = self.query_one(Variables).pairs

    def _send_servers(self) -> None:
        items = [Item(entry) for entry in self.query_one(ServerPicker).ticked()]
        if items:
            self.dashboard.switch_screen(BatchScreen(Batch(items)))
        else:
            self.dashboard.warn("Nothing is ticked")

    async def _send(self) -> None:
        """Pack, send, and go on to the course once the server has taken it."""
        draft, board = evolve(self.draft, texts=dict(self.draft.texts)), self.plane.board
        if draft.failed is not None and draft.failed[0] not in board.rows:
            draft.failed = self.draft.failed = None
        try:
            with ExitStack() as stack:
                packed = await asyncio.to_thread(pack, draft, stack)
                if not isinstance(packed, Parcel):
                    self._complain(packed)
                    return
                if packed.secrets and not await self._may_send(packed):
                    return
                deployment = self._begin(packed, stack.pop_all())
            await deployment.taken.wait()
            self._taken(deployment)
        finally:
            self._sending = False
            if self.is_mounted:
                self._tell()

    async def _may_send(self, parcel: Parcel) -> bool:
        """Ask about files that may hold a secret; who has gone elsewhere meanwhile is not asked, and nothing is sent."""
        if not self.is_current:
            self.dashboard.warn(f"{parcel.name} was not sent: {parcel.secrets[0]} may hold a secret")
            return False
        return await self.app.push_screen_wait(ConfirmScreen(parcel.question, "Send"))

    def _begin(self, parcel: Parcel, stack: ExitStack) -> Deployment:
        """Hand it over to the dashboard: the archive is closed with the conversation, whoever looks on."""
        deployment = Deployment(self.plane.api, parcel, self.plane.clock, stack)
        kept = self.plane.kept
        deployment.on_end = lambda: _remember(kept, deployment)
        begin(self.dashboard, deployment)
        return deployment

    def _taken(self, deployment: Deployment) -> None:
        if deployment.was_taken:
            if self.is_current:
                self.dashboard.switch_screen(CourseScreen(deployment))
        elif deployment.failure is not None:
            self._refuse(deployment.failure)

    def _refuse(self, failure: Failure) -> None:
        """It was not taken: say why, each thing beside the field that it is about."""
        wrong = [Wrong(field_at(pointer, self.draft.way), message) for pointer, message in failure.errors]
        if failure.code == "conflict" and not wrong:
            wrong = [Wrong("name", failure.detail)]
        self._complain(wrong)
        named = {entry.field for entry in wrong}
        if not wrong or "" in named:
            self._show_refusal(failure)

    def _complain(self, wrong: list[Wrong]) -> None:
        for field in FIELDS:
            about = [entry.message for entry in wrong if entry.field == field.key]
            self._line(field.key).complain("; ".join(about))
        self._show_refusal(None)
        hidden = {field.key for field in FIELDS if field.more} & {entry.field for entry in wrong}
        if hidden and not self.draft.more:
            self.action_more()
        first = next((field.key for field in FIELDS if any(entry.field == field.key for entry in wrong)), None)
        if first is not None:
            self._line(first).take_focus()

    def _show_refusal(self, failure: Failure | None) -> None:
        refusal = self.query_one("#refusal", Static)
        refusal.set_class(failure is not None, "-on")
        refusal.update(Content("\n").join(problem_lines(failure)) if failure is not None else "")
        if failure is not None:
            self.query_one("#form", VerticalScroll).scroll_home(animate=False)


def _remember(kept: dict[str, object], deployment: Deployment) -> None:
    """Once it runs the form begins anew; after a failure it is as it was, and knows what there is to try again."""
    draft, course = kept.get(PLACE), deployment.course
    if course.state == "failed" and course.instance_id and isinstance(draft, Draft):
        draft.failed = (course.instance_id, course.name)
    elif course.state != "failed":
        kept.pop(PLACE, None)


def _default(key: str) -> str:
    return next((field.choices[0] for field in FIELDS if field.key == key and field.choices), "")


def _line_of(field: Field) -> FormLine:
    if field.key == "env":
        return FormLine(field.key, field.label, Variables())
    if field.choices:
        return choice_line(field.key, field.label, field.choices)
    return text_line(field.key, field.label, field.hint)
