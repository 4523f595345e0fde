"""One deploy or redeploy, live: its phases with their times, what its build prints, and how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from controlplane.wire.text import clean, clean_lines
from controlplane.wire.units import duration
from tui.deploying.sending import Deployment, redeploy_of
from tui.screens.base import BoardScreen
from tui.screens.confirm import ConfirmScreen
from tui.widgets.output import Output
from tui.working import set_to_work

if TYPE_CHECKING:
    from collections.abc import Iterator

    from textual.app import ComposeResult
    from textual.widget import Widget

    from tui.app import Dashboard
    from tui.board.board import Touched
    from tui.board.rows import Row
    from tui.client import Failure
    from tui.deploying.course import Course, Phase

LOOK_EVERY_S = 0.1
PHASES_SHOWN = 6
"""Of a course: the newest; the log has all."""
EVIDENCE_LINES = 12
WORTH_SHOWING_S = 0.1
"""A phase that was over sooner has no time beside it."""

STATES = {
    "sending": ("◌", "sending", "$text-warning"),
    "going": ("◐", "under way", "$text-accent"),
    "running": ("●", "runs", "bold $text-success"),
    "waiting": ("◐", "still under way: the fleet shows how it goes on", "$text-warning"),
    "failed": ("✗", "failed", "bold $text-error"),
    "lost": ("◌", "the connection broke: it goes on there", "$text-warning"),
}


def begin(dashboard: Dashboard, deployment: Deployment) -> None:
    """Let it run as long as the dashboard does, and tell how it ended whoever looks at something else by then."""

    async def run() -> None:
        await deployment.run()
        front = dashboard.screen
        if deployment.course.state == "sending" or (isinstance(front, CourseScreen) and front.is_about(deployment)):
            return
        name, (sign, word, _) = deployment.course.name, STATES[deployment.course.state]
        if deployment.failure is None:
            dashboard.notify(f"{sign} {clean(name)} {word}", markup=False)
        elif deployment.was_taken:
            dashboard.warn(f"{sign} {name} {word}: {deployment.failure.detail or deployment.failure.title}")

    set_to_work(dashboard, run, group="deploys", exit_on_error=False)


def ask_then_redeploy(dashboard: Dashboard, rows: list[Row]) -> None:
    """Build and start the source of one instance anew, if that is what is wanted."""
    if dashboard.plane.read_only:
        dashboard.warn("Read-only: nothing is redeployed from here")
        return
    if len(rows) != 1:
        dashboard.warn("One at a time is redeployed" if rows else "Nothing is selected to redeploy")
        return
    row, plane = rows[0], dashboard.plane

    def answered(yes: bool | None) -> None:
        if yes:
            deployment = Deployment(plane.api, redeploy_of(row.id, row.name), plane.clock)
            begin(dashboard, deployment)
            dashboard.push_screen(CourseScreen(deployment))

    question = f"Redeploy {row.name}? The same source anew; what runs goes on until the new revision has answered."
    dashboard.push_screen(ConfirmScreen(question, "Redeploy"), answered)


class CourseScreen(BoardScreen):
    """Leaving it leaves the deploy running."""

    DEFAULT_CSS = """
    CourseScreen > #state { height: auto; padding: 0 1; background: $surface; }
    CourseScreen > #phases { height: auto; padding: 1 1 0 1; }
    CourseScreen > #problem { height: auto; max-height: 60%; padding: 1 1 0 1; display: none; }
    CourseScreen > #problem.-on { display: block; }
    CourseScreen > #printed { height: 1; padding: 0 1; margin-top: 1; color: $text-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,o", "open", "Open it"),
        Binding("l", "logs", "Logs"),
        Binding("e", "edit", "Change and try again"),
        Binding("escape", "leave", "Back", show=False),
    ]

    def __init__(self, deployment: Deployment) -> None:
        super().__init__()
        self._deployment = deployment
        self.crumbs = ("fleet", deployment.parcel.what, deployment.course.name)
        self._shown: object = None

    @property
    def _is_of_form(self) -> bool:
        """Whether it was sent from the form, which then has it still: a redeploy of the same source has none."""
        return bool(self._deployment.parcel.document)

    @property
    def course(self) -> Course:
        return self._deployment.course

    def is_about(self, deployment: Deployment) -> bool:
        return deployment is self._deployment

    def body(self) -> ComposeResult:
        yield Static(id="state")
        yield Static(id="phases")
        with VerticalScroll(id="problem", can_focus=False):
            yield Static(id="why")
        yield Static(id="printed")
        yield Output("nothing yet", id="output")

    def main_widget(self) -> Widget:
        return self.query_one(Output)

    def on_mount(self) -> None:
        self.set_interval(LOOK_EVERY_S, self._look)
        self._look()

    def selected(self) -> list[Row]:
        row = self.plane.board.rows.get(self.course.instance_id)
        return [row] if row is not None else []

    def board_changed(self, touched: Touched) -> None:
        """The course is looked at by a clock of its own."""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "edit":
            return self._is_of_form and self.course.state == "failed"
        return super().check_action(action, parameters)

    def _look(self) -> None:
        course, now = self.course, self.plane.clock()
        self.query_one("#state", Static).update(self._state(now))
        self.query_one("#phases", Static).update(Content("\n").join(self._phases(now)))
        seen = (course.printed, course.state)
        if seen != self._shown:
            self._shown = seen
            self._show_output()
            self._show_problem()
            self.refresh_bindings()

    def _state(self, now: float) -> Content:
        course, (sign, word, style) = self.course, STATES[self.course.state]
        parts = [
            Content.styled(f"{sign} {course.name} {word}", style),
            Content.styled(duration(course.took(now)), "$text-muted"),
        ]
        if course.state == "running":
            parts.append(Content.styled("enter opens it", "$text-accent"))
        elif course.state == "going":
            parts.append(Content.styled("esc leaves it to go on by itself", "$text-muted"))
        lines = [Content("   ").join(parts)]
        lines += [Content.styled(f"  {note}", "$text-muted") for note in self._deployment.parcel.notes]
        notes = course.instance.get("notes")
        lines += [Content.styled(f"  {clean(note)}", "$text-warning") for note in (notes or ())]
        return Content("\n").join(lines)

    def _phases(self, now: float) -> Iterator[Content]:
        phases = list(self.course.phases)
        if len(phases) > PHASES_SHOWN:
            yield Content.styled(f"  {len(phases) - PHASES_SHOWN} before", "$text-muted")
        for phase in phases[-PHASES_SHOWN:]:
            yield _phase_line(phase, now)

    def _show_output(self) -> None:
        course, output = self.course, self.query_one(Output)
        kept = len(course.output)
        text = (
            f"build output: {course.printed:,} line{'s' * (course.printed != 1)}"
            if course.printed
            else "build output: none"
        )
        if course.printed > kept:
            text += f", the last {kept:,} of them here; l shows the log"
        output.empty = "" if course.is_over else "nothing yet"
        output.show(course.output)
        self.query_one("#printed", Static).update(Content(text))

    def _show_problem(self) -> None:
        failure = self._deployment.failure
        self.query_one("#problem").set_class(failure is not None, "-on")
        if failure is not None:
            self.query_one("#why", Static).update(Content("\n").join(problem_lines(failure)))

    # -- keys

    def action_open(self) -> None:
        self._open("overview")

    def action_logs(self) -> None:
        self._open("logs")

    def _open(self, tab: str) -> None:
        if not self.course.instance_id:
            self.dashboard.warn("There is nothing to open yet")
            return
        self.dashboard.open_instance(self.course.instance_id, tab)

    def action_edit(self) -> None:
        self.dashboard.action_go("deploy")

    def action_leave(self) -> None:
        if self.course.state in {"sending", "going"}:
            self.notify(f"{clean(self.course.name)} goes on by itself; the fleet shows how", markup=False)
        self.dashboard.call_later(self.dashboard.action_back)


def _phase_line(phase: Phase, now: float) -> Content:
    sign, style = ("◐", "$text-accent") if phase.ended is None else ("✓", "$text-success")
    if phase.failed:
        sign, style = "✗", "bold $text-error"
    took = (phase.ended if phase.ended is not None else now) - phase.began
    parts = [Content.styled(f"{sign} ", style), Content(phase.name)]
    if took >= WORTH_SHOWING_S:
        parts.append(Content.styled(f"  {duration(took)}", "$text-muted"))
    return Content.assemble(*parts)


def problem_lines(failure: Failure) -> Iterator[Content]:
    """Everything that a refusal says: what, why, what to do, and what was seen."""
    yield Content.styled(f"✗ {failure.title}", "bold $text-error")
    for line in clean_lines(failure.detail) if failure.detail else ():
        yield Content(f"  {line}")
    for line in clean_lines(failure.hint) if failure.hint else ():
        yield Content.styled(f"  → {line}", "$text-accent")
    for pointer, message in failure.errors:
        yield Content.assemble((f"  {pointer} ", "bold"), message)
    document = failure.document if isinstance(failure.document, dict) else {}
    facts = [
        f"{word} {clean(document[key])}"
        for key, word in (("phase", "phase"), ("exit_code", "exit status"), ("signal", "signal"))
        if document.get(key) is not None
    ]
    if facts:
        yield Content.styled("  " + " · ".join(facts), "$text-muted")
    tail = document.get("stderr_tail")
    for entry in tail[-EVIDENCE_LINES:] if isinstance(tail, list) else ():
        yield from (Content.styled(f"  │ {line}", "$text-muted") for line in clean_lines(entry))
