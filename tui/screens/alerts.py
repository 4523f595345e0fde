"""The alerts inbox: what needs a person, newest first, until it is dismissed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from tui.board.alert_columns import alert_columns, fitting
from tui.board.alerts import Alert
from tui.board.board import FLEET
from tui.board.event_columns import moment
from tui.board.fleet_history import TROUBLE, earlier_alerts
from tui.client import Failure
from tui.screens.table import TableScreen
from tui.widgets.grid import Grid
from tui.working import set_to_work

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from tui.board.board import Touched
    from tui.board.rows import Row

EARLIER = 200
"""Kept events that are read when the inbox is opened first: what is older was lived with for long."""
ALL_WELL = "Nothing needs you"


class AlertsScreen(TableScreen[Alert]):
    """Opened with `a` from everywhere. Whoever opens it has seen what is in it."""

    crumbs = ("fleet", "alerts")
    place = "alerts"
    DEFAULT_CSS = """
    AlertsScreen > #note { height: auto; max-height: 5; padding: 0 1; color: $text-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("l", "logs", "Logs"),
        Binding("o", "app.instance('overview')", "Overview"),
        Binding("r", "app.verb('restart')", "Restart"),
        Binding("d,delete", "dismiss_chosen", "Dismiss"),
        Binding("D", "dismiss_all", "Dismiss all"),
        Binding("e", "app.go('timeline')", "Timeline", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._note = ""

    def body(self) -> ComposeResult:
        seen = self.plane.board.alerts.seen
        yield Grid(alert_columns(seen), lambda a: str(a.number), empty=ALL_WELL, clock=self.plane.clock, markable=True)
        yield Static(id="note")

    def selected(self) -> list[Row]:
        ids = dict.fromkeys(alert.instance_id for alert in self.grid.chosen())
        return self.plane.board.present(ids)

    def on_mount(self) -> None:
        super().on_mount()
        if not self.plane.board.alerts.has_earlier:
            set_to_work(self, self._read_earlier, group="view")

    def board_changed(self, touched: Touched) -> None:
        if touched.fleet:
            self.show_rows()
            if self.plane.board.unseen_alerts:
                self.dashboard.note(self.plane.board.see_alerts())

    async def _read_earlier(self) -> None:
        board = self.plane.board
        try:
            page = await self.plane.api.get("/events/history", type=",".join(TROUBLE), limit=EARLIER)
        except Failure as failure:
            self._note = f"What was before is not known: {failure}"
        else:
            board.alerts.take_earlier(earlier_alerts(_events(page)))
        self.show_rows()

    def show_rows(self) -> None:
        grid, inbox = self.grid, self.plane.board.alerts
        grid.empty = "Nothing fits the filter: escape takes it back" if self._filter else ALL_WELL
        grid.show(fitting(inbox, self._filter))
        parts = [f"/{self._filter}  {len(grid.rows)} of {len(inbox)}"] if self._filter else []
        parts += [f"{len(grid.marks)} marked"] if grid.marks else []
        parts += [self._note] if self._note else []
        self.query_one("#note", Static).update(Content("\n").join([*self._whole(), Content("   ".join(parts))]))

    def _whole(self) -> list[Content]:
        """All of what the alert under the cursor says: the table often has no room for it."""
        alert = self.grid.current
        if alert is None:
            return []
        since = f"{moment(alert.at, self.plane.clock())}" + (f", ×{alert.times}" if alert.times > 1 else "")
        return [Content(f"{alert.name or 'control plane'} · {since} · {alert.text}")]

    def on_grid_highlighted(self) -> None:
        self.show_rows()

    # -- keys

    def action_logs(self) -> None:
        alert = self.grid.current
        if alert is not None:
            self._open(alert)

    def action_dismiss_chosen(self) -> None:
        self._dismiss(self.grid.chosen())

    def action_dismiss_all(self) -> None:
        self._dismiss(list(self.grid.rows))

    def _dismiss(self, alerts: list[Alert]) -> None:
        self.dashboard.note(self.plane.board.dismiss_alerts(alert.number for alert in alerts))
        self.refresh_board(FLEET)

    def on_grid_chosen(self) -> None:
        if self.grid.current is not None:
            self._open(self.grid.current)

    def on_grid_marked(self) -> None:
        self.show_rows()

    def _open(self, alert: Alert) -> None:
        """The log of the process that fell; of the control plane, its own page."""
        if alert.instance_id:
            self.dashboard.open_instance(alert.instance_id, "logs", alert.incarnation)
        else:
            self.dashboard.action_go("host")


def _events(page: Any) -> list[Any]:
    events = page.get("events") if isinstance(page, dict) else None
    return events if isinstance(events, list) else []
