"""The dashboard itself: which screen is in front, and which key does what everywhere. Owns nothing it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType

from controlplane.wire.text import clean
from tui import themes
from tui.board.board import NOTHING, Touched
from tui.commands import COMMANDS, Order
from tui.navigation import SCREENS
from tui.plane import Plane
from tui.screens.base import BoardScreen
from tui.screens.confirm import ConfirmScreen
from tui.screens.fleet import FleetScreen
from tui.screens.instance import InstanceScreen
from tui.screens.keys import KeysScreen
from tui.verbs import VERBS, carry_out, named

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.screen import Screen

    from tui.contexts import Context, Contexts

REPAINT_S = 0.1
"""Changes of the board are painted together, at most ten times a second."""


class Dashboard(App[None]):
    """One person's view of one control plane at a time."""

    TITLE = "Corral"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "keys", "Keys", key_display="?"),
        Binding("ctrl+p", "command_palette", "Palette", show=False),
        Binding("ctrl+q,q", "quit", "Quit", show=False),
        Binding("ctrl+s", "shoot", "Screenshot", show=False),
        Binding("ctrl+r", "reload", "Read the fleet anew", show=False),
        Binding("c", "go('contexts')", "Contexts", show=False),
    ]

    def __init__(self, contexts: Contexts, *, read_only: bool = False, theme: str = themes.DEFAULT) -> None:
        super().__init__()
        self.contexts, self.read_only = contexts, read_only
        self._touched: Touched = NOTHING
        self.plane = self._plane_of(contexts.current)
        for own in (themes.DARK, themes.LIGHT):
            self.register_theme(own)
        self.theme = theme

    def get_default_screen(self) -> Screen[None]:
        return FleetScreen()

    def on_mount(self) -> None:
        self.set_interval(REPAINT_S, self._repaint)
        self.set_interval(1.0, self._tick)
        self.run_worker(self.plane.run(), group="plane", exclusive=True)

    async def on_unmount(self) -> None:
        self.workers.cancel_all()
        await self.plane.close()

    # -- the board

    def _plane_of(self, context: Context) -> Plane:
        return Plane(context, self._note, read_only=self.read_only)

    def _note(self, touched: Touched) -> None:
        self._touched |= touched

    def _repaint(self) -> None:
        if self._touched and isinstance(self.screen, BoardScreen) and self.screen.is_mounted:
            touched, self._touched = self._touched, NOTHING
            self.screen.refresh_board(touched)

    def _tick(self) -> None:
        """Uptimes and 'away for' grow by themselves."""
        self._note(Touched(frozenset(self.plane.board.rows)))

    async def switch(self, name: str) -> bool:
        """Show another control plane; False when there is no context of that name."""
        context = self.contexts.named(name)
        if context is None:
            return False
        self.workers.cancel_group(self, "plane")
        old, self.plane = self.plane, self._plane_of(context)
        while len(self.screen_stack) > 1:
            await self.pop_screen()
        self.run_worker(self.plane.run(), group="plane", exclusive=True)
        await old.close()
        await self.switch_screen(FleetScreen())
        return True

    # -- getting about

    def open_instance(self, instance_id: str, tab: str = "overview") -> None:
        """Show one instance, or another tab of it."""
        row = self.plane.board.rows.get(instance_id)
        if isinstance(self.screen, InstanceScreen) and self.screen.instance_id == instance_id:
            self.screen.show_tab(tab)
        else:
            self.push_screen(InstanceScreen(instance_id, row.name if row is not None else instance_id, tab))

    async def obey(self, order: Order) -> None:
        """Carry out a command line."""
        command, argument = order.command, order.argument
        if command.takes.startswith("instance") and argument:
            row = self.plane.board.row_named(argument)
            if row is None:
                self.warn(f"There is no instance {argument}")
                return
            verb = command.action.partition("'")[2].partition("'")[0]
            if command.action.startswith("verb"):
                self._ask_then_do(verb, [row.id])
            else:
                self.open_instance(row.id, verb)
        elif command.action == "context":
            await self._switch_or_list(argument)
        elif command.action == "theme":
            self._change_theme(argument)
        else:
            if command.name == "fleet":
                self.action_go("fleet", argument)
                return
            await self.run_action(command.action)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        yield from super().get_system_commands(screen)
        for command in COMMANDS:
            if not command.takes or command.takes.endswith("?"):
                yield SystemCommand(
                    command.name.title(), command.help, lambda c=command: self.call_later(self.obey, Order(c))
                )

    def warn(self, text: str, hint: str = "") -> None:
        """Say, in passing, that something did not work."""
        self.notify(clean(text) + (f"\n{clean(hint)}" if hint else ""), severity="warning", markup=False)

    async def _switch_or_list(self, name: str) -> None:
        if not name:
            self.action_go("contexts")
        elif not await self.switch(name):
            self.warn(f"There is no context {name}", "corral context add makes one")

    def _change_theme(self, name: str) -> None:
        if not name:
            self.action_change_theme()
        elif name in self.available_themes:
            self.theme = name
        else:
            self.warn(f"There is no theme {name}")

    # -- keys

    def action_go(self, place: str, argument: str = "") -> None:
        """Bring a screen to the front."""
        if place == "fleet":
            while len(self.screen_stack) > 1:
                self.pop_screen()
            if argument and isinstance(self.screen, FleetScreen):
                self.screen.filter_changed(argument)
        else:
            self.push_screen(SCREENS[place]())

    async def action_back(self) -> None:
        if len(self.screen_stack) > 1:
            await self.pop_screen()
        elif isinstance(self.screen, FleetScreen):
            self.screen.filter_changed("")

    def action_instance(self, tab: str) -> None:
        rows = self.screen.selected() if isinstance(self.screen, BoardScreen) else []
        if rows:
            self.open_instance(rows[0].id, tab)

    def action_verb(self, verb: str) -> None:
        rows = self.screen.selected() if isinstance(self.screen, BoardScreen) else []
        self._ask_then_do(verb, [row.id for row in rows])

    def action_keys(self) -> None:
        active = self.screen.active_bindings.values()
        keys = {(self.get_key_display(entry.binding), entry.binding.description) for entry in active if entry.enabled}
        self.push_screen(KeysScreen(sorted((pair for pair in keys if pair[1]), key=lambda pair: pair[0].lower())))

    def action_shoot(self) -> None:
        self.deliver_screenshot()

    async def action_reload(self) -> None:
        await self.plane.refresh()

    def _ask_then_do(self, name: str, ids: list[str]) -> None:
        verb = VERBS[name]  # type: ignore[index]  # from our own table of commands and keys
        rows = [row for id_ in ids if (row := self.plane.board.rows.get(id_)) is not None]
        if self.plane.read_only:
            self.warn(f"Read-only: nothing is {verb.done} from here")
        elif not rows:
            self.warn(f"Nothing is selected to {verb.name}")
        elif not verb.asks:
            self.run_worker(self._do(name, ids))
        else:
            question = verb.asks.format(named(rows))

            def answered(yes: bool | None) -> None:
                if yes:
                    self.run_worker(self._do(name, ids))

            self.push_screen(ConfirmScreen(question, verb.name.title()), answered)

    async def _do(self, name: str, ids: list[str]) -> None:
        verb = VERBS[name]  # type: ignore[index]
        rows = [row for id_ in ids if (row := self.plane.board.rows.get(id_)) is not None]
        outcome = await carry_out(self.plane.api, verb, rows)
        if outcome.done:
            self.notify(f"{verb.doing} {named(rows)}", markup=False)
        for who, failure in outcome.refused:
            self.warn(f"{who}: {failure}", failure.hint)
