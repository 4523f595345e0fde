"""One request after the other, written by hand, and what comes of each: a tool, a prompt, a resource, or raw JSON-RPC."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from attrs import evolve
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.widgets import Input, TextArea

from controlplane.wire.text import clean
from tui.inspector import history, offers
from tui.inspector.conversation import Conversation, tools_for_clients
from tui.inspector.desk import desk_of, read_offers
from tui.inspector.jsontext import compact
from tui.inspector.offer_columns import COLUMNS
from tui.panes.base import Pane
from tui.panes.inspector_copies import Copies
from tui.screens.choosing import PickScreen
from tui.screens.past_requests import PastRequestsScreen
from tui.screens.question import QuestionScreen
from tui.widgets.call_request import CallRequest, TargetBar
from tui.widgets.call_result import CallResult
from tui.widgets.typing_order import STEPS, after_typing
from tui.working import set_to_work

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from textual import events
    from textual.app import ComposeResult
    from textual.widget import Widget
    from textual.worker import Worker

    from tui.inspector.conversation import Heard, Outcome, Question, Request
    from tui.inspector.desk import Desk, Draft
    from tui.inspector.history import Entry
    from tui.inspector.offers import Offer

WIDE = 100
"""Columns from which on the result stands beside the request."""
TICK_S = 0.2
"""How often the waiting time is painted, and what was heard meanwhile."""
READ_ONLY = "read-only: nothing is sent from here"


class InspectorPane(Pane):
    """What is entered stays when the tab or the screen is left; a call under way ends with the screen."""

    title: ClassVar[str] = "Inspector"
    DEFAULT_CSS = """
    InspectorPane > #parts { height: 1fr; layout: vertical; }
    InspectorPane CallRequest { height: auto; }
    InspectorPane SchemaForm, InspectorPane CallRequest > #json { height: auto; max-height: 6; }
    InspectorPane CallRequest:focus-within SchemaForm { max-height: 10; }
    InspectorPane CallRequest:focus-within > #json { max-height: 10; }
    InspectorPane.-answered CallRequest:focus-within SchemaForm { max-height: 5; }
    InspectorPane CallResult { height: 1fr; border-top: solid $panel; }
    InspectorPane.-wide > #parts { layout: horizontal; }
    InspectorPane.-wide CallRequest { width: 2fr; height: 1fr; }
    InspectorPane.-wide SchemaForm, InspectorPane.-wide CallRequest > #json,
    InspectorPane.-wide.-answered CallRequest:focus-within SchemaForm,
    InspectorPane.-wide CallRequest:focus-within SchemaForm,
    InspectorPane.-wide CallRequest:focus-within > #json { height: 1fr; max-height: 100%; }
    InspectorPane.-wide CallResult { width: 3fr; height: 1fr; border-top: none; border-left: solid $panel; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f5,ctrl+j", "send", "Send", priority=True, key_display="F5"),
        Binding("ctrl+x", "cancel", "Cancel the call", priority=True),
        Binding("ctrl+o", "pick", "Choose", priority=True),
        Binding("ctrl+e", "toggle_json", "Form/JSON", priority=True),
        Binding("ctrl+t", "view", "View", priority=True),
        Binding("f7", "view", "View", priority=True, show=False),
        Binding("ctrl+y", "copy", "Copy", priority=True),
        Binding("ctrl+l", "past", "History", priority=True),
        Binding("f6", "other_side", "Request/result", show=False, priority=True),
        *STEPS,
        Binding("escape", "leave", "Back", show=False),
        Binding("ctrl+r", "reload", "Read anew", show=False),
    ]

    def __init__(self, instance_id: str) -> None:
        super().__init__(instance_id)
        self._call: Worker[None] | None = None
        self._began = 0.0
        self._warned_of = ""

    def compose(self) -> ComposeResult:
        with Container(id="parts"):
            yield CallRequest(self.draft)
            yield CallResult(self.draft)

    @property
    def desk(self) -> Desk:
        return desk_of(self.dashboard)

    @property
    def draft(self) -> Draft:
        return self.desk.draft(self.plane.context.url, self.instance_id)

    @property
    def name_of(self) -> str:
        """The instance, as a person knows it."""
        return self.row.name if self.row is not None else self.instance_id

    @property
    def place(self) -> str:
        """Where its history is kept."""
        return f"{self.plane.context.url} {self.instance_id}"

    @property
    def asking(self) -> CallRequest:
        return self.query_one(CallRequest)

    @property
    def result(self) -> CallResult:
        return self.query_one(CallResult)

    @property
    def is_calling(self) -> bool:
        return self._call is not None and not self._call.is_finished

    def on_mount(self) -> None:
        self.set_interval(TICK_S, self._tick)

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(event.size.width >= WIDE, "-wide")

    def main_widget(self) -> Widget | None:
        return self.query_one(TargetBar)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """What cannot be done just now does not take its key."""
        if action == "send":
            return None if self.plane.read_only else True
        if action == "cancel":
            return self.is_calling
        if action == "leave":
            return self.is_calling or not isinstance(self.app.focused, TargetBar)
        return True

    # -- what is called

    def opened(self) -> None:
        set_to_work(self, self._open, group="view")

    def action_reload(self) -> None:
        set_to_work(self, self._read, group="view")

    async def _open(self) -> None:
        self.asking.resting = READ_ONLY if self.plane.read_only else ""
        self.asking.say("")
        if (wanted := self.draft.wanted) is not None:
            self.draft.wanted = None
            await self._take(wanted)
        await self.desk.load()
        await self._read()
        found = self.draft.offered.offers
        if self.draft.offer is None and found:
            await self.asking.take(found[0])

    async def _read(self) -> None:
        found = await read_offers(self.plane.api, self.instance_id)
        if found.failure is None:
            self.draft.offered = found
        else:
            self.asking.say(f"✗ {found.failure}  ctrl+r tries again")

    async def _take(self, offer: Offer) -> None:
        if self.draft.offer is None or self.draft.offer.document != offer.document:
            await self.asking.take(offer)
        self.asking.focus_entry()

    def action_pick(self) -> None:
        set_to_work(self, self._pick, group="view")

    async def _pick(self) -> None:
        foot = "type to find · enter chooses"
        screen = PickScreen("Call what?", COLUMNS, lambda o: o.key, self._fitting, foot=foot)
        if not (self.plane.read_only or self.draft.offered.has_asked):
            set_to_work(self, partial(self._list_as_client, screen), group="view")
        key = await self.app.push_screen_wait(screen)
        chosen = next((offer for offer in self._fitting("") if offer.key == key), None)
        if chosen is not None:
            await self._take(chosen)

    def _fitting(self, text: str) -> list[Offer]:
        return offers.fitting([*self.draft.offered.offers, offers.RAW], text)

    async def _list_as_client(self, screen: PickScreen[Offer]) -> None:
        """Some servers have tools only for clients that they can ask something."""
        offered = self.draft.offered
        offered.has_asked = True
        listed = offers.tools_of(await tools_for_clients(self.plane.api, self.instance_id))
        known = {offer.key for offer in offered.offers}
        tools = sum(offer.kind == "tool" for offer in offered.offers)
        offered.offers[tools:tools] = [offer for offer in listed if offer.key not in known]
        if screen.is_current:
            screen.show_rows()

    def action_toggle_json(self) -> None:
        after_typing(self.app, self.asking.toggle)

    # -- sending

    def action_send(self) -> None:
        """Send it; what looks wrong is told first, and sent when it is asked for once more."""
        after_typing(self.app, self._attempt)

    def _attempt(self) -> None:
        if self.plane.read_only:
            self.dashboard.warn("Read-only: nothing is sent from here")
            return
        if self.is_calling:
            self.asking.say("A call is under way: ctrl+x cancels it")
            return
        attempt = self.asking.attempt()
        if attempt.request is None:
            self.asking.complain(attempt.wrong)
        elif attempt.wrong and self._warned_of != (
            said := f"{attempt.request.method} {compact(attempt.request.params)}"
        ):
            self._warned_of = said
            self.asking.complain(f"{attempt.wrong}. F5 once more sends it all the same")
        else:
            self.asking.say("")
            self._send(attempt.request)

    def _send(self, request: Request) -> None:
        self._warned_of = ""
        self._began = time.monotonic()
        self.draft.called = history.subject_of(request.params) or request.method
        self.result.begin()
        self.result.wait(0)
        self._call = set_to_work(self, partial(self._converse, request), group="call")
        self.refresh_bindings()

    async def _converse(self, request: Request) -> None:
        draft = self.draft
        draft.note = ""
        conversation = Conversation(self.plane.api, self.instance_id, request, self._hear, self._ask)
        try:
            draft.outcome = await conversation.run()
        except asyncio.CancelledError:
            draft.note = f"– cancelled after {time.monotonic() - self._began:.1f} s"
            if self.is_attached:
                self.call_later(self._ended)
            raise
        await self._ended()
        await self._remember(request, draft.outcome)

    async def _ended(self) -> None:
        self._call = None
        self.add_class("-answered")
        await self.result.show()
        self.refresh_bindings()

    def _hear(self, heard: Heard) -> None:
        self.draft.heard.append(heard)

    async def _ask(self, question: Question) -> Mapping[str, Any] | None:
        """Put a question to the person; it goes away when the call is cancelled."""
        screen = QuestionScreen(question, self.name_of)
        try:
            return await self.app.push_screen_wait(screen)
        finally:
            if screen.is_current:
                screen.dismiss(None)

    def _tick(self) -> None:
        if self.is_calling and self.is_mounted:
            self.result.wait(time.monotonic() - self._began)
            self.result.show_heard()

    def action_cancel(self) -> None:
        """Close the connection, which cancels the call at the server."""
        if self._call is not None:
            self._call.cancel()

    # -- history

    async def _remember(self, request: Request, outcome: Outcome) -> None:
        entry = history.entry_of(time.time(), request.method, request.params, request.schema)
        entry = evolve(entry, came_to=outcome.word, elapsed_s=outcome.elapsed_s)
        wrong = await self.desk.change(lambda found: history.added(found, self.place, entry))
        if wrong:
            self.dashboard.warn("The history was not written", clean(wrong))

    def action_past(self) -> None:
        set_to_work(self, self._past, group="view")

    async def _past(self) -> None:
        screen = PastRequestsScreen(self.desk, self.place, self.name_of)
        key = await self.app.push_screen_wait(screen)
        entry = screen.entry((key or "").removeprefix("repeat:"))
        if key is not None and entry is not None:
            await self._load(entry)
            if key.startswith("repeat:"):
                self.action_send()

    async def _load(self, entry: Entry) -> None:
        """Fill the form with a request from before; as raw JSON-RPC when what it calls is not there any more."""
        given = entry.params or {}
        kinds = {"tools/call": "tool", "prompts/get": "prompt", "resources/read": "resource"}
        key = f"{kinds.get(entry.method, '')} {entry.subject}"
        offer = next((offer for offer in self.draft.offered.offers if offer.key == key), None)
        if offer is None:
            await self.asking.take_raw(offers.RAW, entry.method, given)
        else:
            await self.asking.take(offer, given.get("arguments", {}))
        self.asking.focus_entry()

    # -- getting about

    async def action_view(self) -> None:
        await self.result.turn()

    def action_copy(self) -> None:
        copies = Copies(self.dashboard, self.draft, self.name_of, self.asking)
        after_typing(self.app, lambda: self._begin(copies))

    def _begin(self, copies: Copies) -> None:
        set_to_work(self, copies.run, group="view")

    def action_other_side(self) -> None:
        inside = self.app.focused is not None and self.result in self.app.focused.ancestors
        target: Widget = self.query_one(TargetBar) if inside else self.result.main()
        target.focus()

    def action_leave(self) -> None:
        """Escape ends the call, then leaves the form, then the screen."""
        if self.is_calling and not isinstance(self.app.focused, Input | TextArea):
            self.action_cancel()
        else:
            self.query_one(TargetBar).focus()

    async def on_target_bar_opened(self) -> None:
        self.action_pick()

    def on_call_request_edited(self) -> None:
        self.remove_class("-answered")

    def on_call_request_submitted(self) -> None:
        self.action_send()
