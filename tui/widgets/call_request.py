"""The asking side of the inspector: what is called, and with what, as a form or as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from attrs import frozen
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.suggester import SuggestFromList
from textual.widgets import Input, Static, TextArea

from tui.inspector.conversation import Request
from tui.inspector.form_values import assembled, beginning, filled
from tui.inspector.jsontext import NotJson, parse, pretty
from tui.inspector.offers import METHODS, request_of
from tui.inspector.schema_form import MISSING, Field, form_of
from tui.widgets.schema_form import SchemaForm

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from tui.inspector.desk import Draft
    from tui.inspector.offers import Offer

NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


@frozen
class Attempt:
    """What would be sent. `wrong` says what is not right with it; without a request it cannot be sent at all."""

    request: Request | None
    wrong: str = ""


class TargetBar(Static, can_focus=True):
    """What is called. Enter chooses another."""

    DEFAULT_CSS = """
    TargetBar { height: auto; max-height: 3; padding: 0 1; background: $boost; }
    TargetBar:focus { background: $primary-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "pick", "Choose", show=False),
        Binding("down,j", "app.focus_next", "Into the form", show=False),
    ]

    class Opened(Message):
        """Another is to be chosen."""

    def action_pick(self) -> None:
        self.post_message(self.Opened())

    def on_click(self) -> None:
        self.post_message(self.Opened())

    def tell(self, offer: Offer | None) -> None:
        """Say what is called."""
        if offer is None:
            self.update(Content.styled("choose what to call: enter", "$text-muted"))
            return
        text = " — ".join(part for part in (offer.title, offer.text) if part)
        hints = Content.styled(f"  says it is {', '.join(offer.hints)}" if offer.hints else "", "$text-warning")
        name = "" if offer.kind == "raw" else offer.label
        kind = "JSON-RPC" if offer.kind == "raw" else offer.kind
        parts = [Content.styled(f"{kind} ", "$text-accent"), Content.styled(name, "bold"), hints]
        self.update(Content.assemble(*parts, Content.styled(f"  {text}" if text else "", "$text-muted")))


class CallRequest(Vertical):
    """Fills the draft that it shows."""

    DEFAULT_CSS = """
    CallRequest > #method, CallRequest > #json { display: none; margin: 0 1; background: $boost; }
    CallRequest > #json { height: 1fr; min-height: 3; margin-top: 1; }
    CallRequest > SchemaForm { margin-top: 1; }
    CallRequest.-json > SchemaForm, CallRequest.-raw > SchemaForm { display: none; }
    CallRequest.-json > #json, CallRequest.-raw > #json, CallRequest.-raw > #method { display: block; }
    CallRequest.-raw > #method { margin-top: 1; }
    CallRequest > #state { height: auto; max-height: 3; padding: 0 1; color: $text-warning; }
    """

    class Submitted(Message):
        """Enter in a field of one line: send it."""

    class Edited(Message):
        """Something else is entered."""

    def __init__(self, draft: Draft) -> None:
        super().__init__()
        self.draft = draft
        self.resting = ""
        """Said while there is nothing else to say."""
        self.form: Field = form_of(NO_ARGUMENTS)

    def compose(self) -> ComposeResult:
        yield TargetBar(id="target")
        yield Input(id="method", compact=True, placeholder="method", suggester=SuggestFromList(METHODS))
        yield SchemaForm(self.form, {}, id="form")
        yield TextArea(id="json", compact=True, soft_wrap=True)
        yield Static(id="state")

    async def on_mount(self) -> None:
        await self.show()

    async def take(self, offer: Offer, arguments: Any = MISSING) -> None:
        """Call this from now on, with the schema's defaults or with given arguments."""
        draft = self.draft
        draft.offer = offer
        form = form_of(offer.schema)
        draft.entries = beginning(form) if arguments is MISSING else filled(form, arguments)
        draft.json_text = pretty(_value(form, draft)) if offer.kind != "raw" else draft.json_text
        await self.show()

    async def take_raw(self, offer: Offer, method: str, params: Any) -> None:
        """A request as it was written."""
        self.draft.offer, self.draft.method, self.draft.json_text = offer, method, pretty(params or {})
        await self.show()

    async def show(self) -> None:
        """Show the draft."""
        draft, offer = self.draft, self.draft.offer
        is_raw = offer is not None and offer.kind == "raw"
        self.form = form_of(offer.schema if offer is not None and not is_raw else NO_ARGUMENTS)
        self.set_class(is_raw, "-raw")
        self.set_class(draft.as_json and not is_raw, "-json")
        self.query_one(TargetBar).tell(offer)
        with self.prevent(Input.Changed, TextArea.Changed):
            self.query_one("#method", Input).value = draft.method
            self.query_one("#json", TextArea).text = draft.json_text
        await self.query_one(SchemaForm).show(self.form, draft.entries)
        self.say("")

    async def toggle(self) -> None:
        """From the form to JSON, or back, with what is entered."""
        draft = self.draft
        if draft.offer is None or draft.offer.kind == "raw":
            return
        self._collect()
        if not draft.as_json:
            draft.json_text = pretty(_value(self.form, draft))
        else:
            try:
                value = parse(draft.json_text)
            except NotJson as error:
                self.say(f"This is no JSON, {error}: the form cannot show it")
                return
            draft.entries = filled(self.form, value)
        draft.as_json = not draft.as_json
        await self.show()
        self.focus_entry()

    def attempt(self) -> Attempt:
        """What would be sent just now."""
        self._collect()
        draft, offer = self.draft, self.draft.offer
        if offer is None:
            return Attempt(None, "Choose what to call first")
        if offer.kind == "raw":
            return self._raw()
        if draft.as_json:
            try:
                value = parse(draft.json_text or "{}")
            except NotJson as error:
                return Attempt(None, f"This is no JSON: {error}")
            problems = assembled(self.form, filled(self.form, value)).problems
        else:
            outcome = assembled(self.form, draft.entries)
            value, problems = {} if outcome.value is MISSING else outcome.value, outcome.problems
        method, params = request_of(offer, value)
        wrong = "; ".join(f"{_named(problem.key)} {problem.text}" for problem in problems[:3])
        return Attempt(Request(method=method, params=params, schema=offer.schema), wrong)

    def _raw(self) -> Attempt:
        method = self.draft.method.strip()
        try:
            params = parse(self.draft.json_text or "{}")
        except NotJson as error:
            return Attempt(None, f"The parameters are no JSON: {error}")
        if not method or not method.isprintable():
            return Attempt(None, "Name a method, such as tools/list")
        if not isinstance(params, dict):
            return Attempt(None, "The parameters must be a JSON object")
        return Attempt(Request(method=method, params=params))

    def _collect(self) -> None:
        """Take what stands in the controls just now: messages about it may still be on their way."""
        self.draft.method = self.query_one("#method", Input).value
        if self.has_class("-raw") or self.has_class("-json"):
            self.draft.json_text = self.query_one("#json", TextArea).text
        else:
            self.query_one(SchemaForm).collect()

    def complain(self, wrong: str) -> None:
        """Say what is not right, beside each field as well."""
        self.query_one(SchemaForm).complain_of_all()
        self.say(wrong)

    def say(self, text: str) -> None:
        """The line below what is entered."""
        self.query_one("#state", Static).update(Content(text or self.resting))

    def focus_entry(self) -> None:
        """Give the keyboard to what is filled in first."""
        if self.has_class("-raw"):
            self.query_one("#method").focus()
        elif self.has_class("-json"):
            self.query_one("#json").focus()
        elif not self.query_one(SchemaForm).focus_first():
            self.query_one(TargetBar).focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.draft.method = event.input.value
        self.post_message(self.Edited())

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        event.stop()
        self.draft.json_text = event.text_area.text
        self.post_message(self.Edited())

    def on_schema_form_changed(self, event: SchemaForm.Changed) -> None:
        event.stop()
        self.post_message(self.Edited())

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.post_message(self.Submitted())

    def on_schema_form_submitted(self, event: SchemaForm.Submitted) -> None:
        event.stop()
        self.post_message(self.Submitted())


def _value(form: Field, draft: Draft) -> Any:
    value = assembled(form, draft.entries).value
    return {} if value is MISSING else value


def _named(key: tuple[str | int, ...]) -> str:
    names = [part for part in key if isinstance(part, str)]
    return ".".join(names) if names else "the arguments"
