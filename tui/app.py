"""The dashboard itself: which screen is in front, and which key does what everywhere. Owns nothing it shows."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, ClassVar, cast

from rich.text import Text
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType

from controlplane.wire.text import clean
from tui import themes
from tui.acting import ask_then_do
from tui.board.board import Touched
from tui.board.news import News
from tui.client import Failure
from tui.commands import COMMANDS, Order
from tui.ending import last_words, leave_at_signals
from tui.navigation import SCREENS
from tui.palette import InstanceProvider
from tui.plane import Plane
from tui.saving import save
from tui.screens.base import BoardScreen
from tui.screens.course import ask_then_redeploy
from tui.screens.fleet import FleetScreen
from tui.screens.instance import InstanceScreen
from tui.screens.keys import KeysScreen, sections
from tui.verbs import VERBS
from tui.working import set_to_work

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.screen import Screen

    from tui.board.rows import Row
    from tui.contexts import Context, Contexts
    from tui.verbs import VerbName

REPAINT_S = 0.1
"""Changes of the board are painted together, at most ten times a second."""
PAST_LINES = 50
"""Commands and filters that up and down bring back."""
DEPTH = 8
"""Screens on top of each other: who goes ever deeper gets back to the fleet by the same eight presses."""


class Dashboard(App[None]):
    """One person's view of one control plane at a time."""

    TITLE = "Corral"
    ENABLE_COMMAND_PALETTE = True
    COMMANDS = App.COMMANDS | {InstanceProvider}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "keys", "Keys", key_display="?"),
        Binding("f1", "keys", "Keys", key_display="F1", show=False, priority=True),  # where `?` is text
        Binding("a", "go('alerts')", "Alerts", show=False),
        Binding("c", "go('contexts')", "Contexts", show=False),
        Binding("u", "verb('redeploy')", "Redeploy", show=False),
        Binding("minus", "last", "The view before", key_display="-", show=False),
        Binding("ctrl+p", "command_palette", "Search commands and instances", show=False),
        Binding("ctrl+r", "reload", "Read the fleet anew", show=False),
        Binding("ctrl+s", "shoot", "Save a screenshot", show=False),
        Binding("ctrl+q,q,ctrl+c", "quit", "Quit", show=False),
    ]

    def __init__(self, contexts: Contexts, *, read_only: bool = False, theme: str = themes.DEFAULT) -> None:
        super().__init__()
        self.contexts, self.read_only = contexts, read_only
        self.commanded: deque[str] = deque(maxlen=PAST_LINES)
        self.filtered: deque[str] = deque(maxlen=PAST_LINES)
        self._ids: set[str] = set()
        self._fleet_changed = False
        self._news = News()
        self._before: tuple[str, ...] = ()
        self.plane = self._plane_of(contexts.current)
        for own in (themes.DARK, themes.LIGHT):
            self.register_theme(own)
        self.theme = theme

    def get_default_screen(self) -> Screen[None]:
        return FleetScreen()

    def on_mount(self) -> None:
        leave_at_signals(self)
        self.set_interval(REPAINT_S, self._repaint)
        self.set_interval(1.0, self._tick)
        set_to_work(self, self.plane.run, group="plane", exclusive=True)

    async def _shutdown(self) -> None:
        self.workers.cancel_all()  # first: what still reads would paint on widgets that are being taken down
        await super()._shutdown()
        await self.plane.close()

    def _fatal_error(self) -> None:
        """End with where it went wrong, and without what was known there: the framework would print every variable."""
        self.bell()
        tokens = [context.token for context in self.contexts.known if context.token]
        self._exit_renderables.append(Text("\n".join(last_words(sys.exc_info()[1], tokens))))
        self._close_messages_no_wait()

    # -- the board

    def _plane_of(self, context: Context) -> Plane:
        return Plane(context, self.note, read_only=self.read_only)

    def note(self, touched: Touched) -> None:
        """The board has changed: paint it with the next stroke."""
        self._ids |= touched.ids
        self._fleet_changed = self._fleet_changed or touched.fleet

    def _repaint(self) -> None:
        if not self.screen_stack:  # a stroke that came while the dashboard ends
            return
        screen = self.screen
        if not isinstance(screen, BoardScreen) or not screen.is_mounted:
            return
        board, now = self.plane.board, self.plane.clock()
        for notice in self._news.of(board, now, in_inbox=screen.place == "alerts"):
            self.notify(clean(notice.text), severity=notice.severity, markup=False)
            if notice.rings:
                self.bell()
        if self._ids or self._fleet_changed:
            touched = Touched(frozenset(self._ids), self._fleet_changed)
            self._ids, self._fleet_changed = set(), False
            screen.refresh_board(touched)

    def _tick(self) -> None:
        """Uptimes and 'away for' grow by themselves."""
        self._ids |= self.plane.board.rows.keys() or {""}

    async def switch(self, name: str) -> bool:
        """Show another control plane; False when there is no context of that name."""
        context = self.contexts.named(name)
        if context is not None:
            self.call_later(self._change_to, context)  # the screen that asks is taken down by it
        return context is not None

    async def _change_to(self, context: Context) -> None:
        self.workers.cancel_group(self, "plane")
        old, self.plane = self.plane, self._plane_of(context)
        self._news, self._before = News(), ()
        while len(self.screen_stack) > 1:
            await self.pop_screen()
        if isinstance(self.screen, FleetScreen):
            self.screen.start_over()
        set_to_work(self, self.plane.run, group="plane", exclusive=True)
        self.refresh_bindings()
        await old.close()

    # -- getting about

    def open_instance(self, instance_id: str, tab: str = "overview", incarnation: int = 0) -> None:
        """Show one instance, or another tab of it; of its logs, those of one process."""
        front = self.screen
        if isinstance(front, InstanceScreen) and front.instance_id == instance_id:
            front.show_tab(tab)
        else:
            row = self.plane.board.rows.get(instance_id)
            self._go_to(InstanceScreen(instance_id, row.name if row is not None else instance_id, tab))
            front = self.screen
        if incarnation and tab == "logs" and isinstance(front, InstanceScreen):
            front.call_after_refresh(front.show_log_of, incarnation)

    def _go_to(self, screen: BoardScreen) -> None:
        """Put a screen in front; one that is right below comes back by going back."""
        self._note_view()
        if len(self.screen_stack) >= DEPTH:
            self._home()
        below = self.screen_stack[-2] if len(self.screen_stack) > 1 else None
        if isinstance(below, BoardScreen) and below.view == screen.view:
            self.pop_screen()
        else:
            self.push_screen(screen)

    def _home(self) -> None:
        while len(self.screen_stack) > 1:
            self.pop_screen()

    def _note_view(self) -> None:
        if isinstance(self.screen, BoardScreen):
            self._before = self.screen.view

    async def obey(self, order: Order) -> None:
        """Carry out a command line."""
        command, argument = order.command, order.argument
        match command.does:
            case "go":
                self.action_go(command.to, argument)
            case "instance" | "verb":
                self._to_instance(order)
            case "context" if argument:
                if not await self.switch(argument):
                    self.warn(f"There is no context {argument}", "corral context add makes one")
            case "context":
                self.action_go("contexts")
            case "theme":
                self._change_theme(argument)
            case _:
                await self.run_action(command.does)

    def _to_instance(self, order: Order) -> None:
        command, argument = order.command, order.argument
        row = self.plane.board.row_named(argument) if argument else None
        if argument and row is None:
            self.warn(f"There is no instance {argument}")
        elif command.does == "verb":
            self._act(command.to, [row] if row is not None else self._selected())
        elif row is not None:
            self.open_instance(row.id, command.to)
        else:
            self.action_instance(command.to)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:  # noqa: ARG002  (Textual's)
        for command in COMMANDS:
            yield SystemCommand(command.name, command.help, partial(self.call_later, self.obey, Order(command)))

    def warn(self, text: str, hint: str = "") -> None:
        """Say, in passing, that something did not work."""
        self.notify(clean(text) + (f"\n{clean(hint)}" if hint else ""), severity="warning", markup=False)

    def remember(self, past: deque[str], line: str) -> None:
        """Keep a line for up and down; the same one again only moves."""
        if line in past:
            past.remove(line)
        if line:
            past.append(line)

    def _change_theme(self, name: str) -> None:
        if not name:
            self.action_change_theme()
        elif name in self.available_themes:
            self.theme = name
        else:
            self.warn(f"There is no theme {name}")

    # -- keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """What changes something is not there in a read-only context."""
        changes = action == "verb" or (action, parameters) == ("go", ("deploy",))
        return not (changes and self.plane.read_only)

    def action_go(self, place: str, argument: str = "") -> None:
        """Bring a place to the front; `argument` is a filter for it."""
        if place != "fleet" and place not in SCREENS:
            self.warn(f"There is no place {place}")
            return
        if place == "fleet":
            self._note_view()
            self._home()
        elif not isinstance(self.screen, BoardScreen) or self.screen.place != place:
            screen = SCREENS[place]()
            screen.place = place
            self._go_to(screen)
        if argument and isinstance(self.screen, BoardScreen):
            self.screen.filter_changed(argument)

    async def action_back(self) -> None:
        """Widen what was narrowed down, else leave the screen."""
        screen = self.screen
        if isinstance(screen, BoardScreen) and screen.take_back():
            return
        if len(self.screen_stack) > 1:
            self._note_view()
            self.pop_screen()

    def action_last(self) -> None:
        """Show the view before this one; twice: this one again."""
        match self._before:
            case ("instance", instance_id, tab):
                self.open_instance(instance_id, tab)
            case (place,) if place:
                self.action_go(place)

    def action_instance(self, tab: str) -> None:
        if rows := self._selected():
            self.open_instance(rows[0].id, tab)
        else:
            self.warn("No instance is selected")

    def action_verb(self, verb: str) -> None:
        self._act(verb, self._selected())

    def _act(self, verb: str, rows: list[Row]) -> None:
        if verb == "redeploy":
            ask_then_redeploy(self, rows)
            return
        ask_then_do(self, VERBS[cast("VerbName", verb)], [row.id for row in rows])

    def _selected(self) -> list[Row]:
        return self.screen.selected() if isinstance(self.screen, BoardScreen) else []

    def action_keys(self) -> None:
        """Every key that works here; once more: away with them."""
        if isinstance(self.screen, KeysScreen):
            self.pop_screen()
            return
        self.push_screen(KeysScreen(sections(self.screen, self)))

    async def action_shoot(self) -> None:
        """Save what is on the screen: in a terminal as its owner's alone, in a browser as a download."""
        if self.is_web:
            self.deliver_screenshot()
            return
        picture = self.export_screenshot().split("\n")
        try:
            path = await asyncio.to_thread(save, "corral", ".svg", picture, time.time())
        except OSError as error:
            self.warn("The screenshot was not saved", str(error))
        else:
            self.notify(f"Screenshot saved as {clean(path)}", markup=False)

    def action_reload(self) -> None:
        set_to_work(self, self._reload, group="reload", exclusive=True)

    async def _reload(self) -> None:
        try:
            await self.plane.refresh()
        except Failure as failure:
            self.warn(str(failure), failure.hint)
