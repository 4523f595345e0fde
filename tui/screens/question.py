"""What a server asks in the middle of a call, put to the person: a form, a model's part, or folders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Static, TextArea

from controlplane.wire.text import clean, clean_lines
from tui.inspector.content import blocks_of
from tui.inspector.form_values import beginning
from tui.inspector.jsontext import pretty_lines
from tui.inspector.schema_form import MISSING, form_of
from tui.widgets.reading import Passage, Reading
from tui.widgets.schema_form import SchemaForm
from tui.widgets.typing_order import STEPS, after_typing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from textual.app import ComposeResult

    from tui.inspector.conversation import Question

MODEL = "a person at the Corral dashboard"
MESSAGE_CHARS = 2_000
"""Of what the server says; the rest would push the form out of sight."""
TITLES = {
    "elicitation/create": "{} asks you",
    "sampling/createMessage": "{} asks for a model's answer: you are the model",
    "roots/list": "{} asks which folders it may know of",
}


class QuestionScreen(ModalScreen["Mapping[str, Any] | None"]):
    """Dismissed with the result that the server gets, or with None, which cancels the call."""

    DEFAULT_CSS = """
    QuestionScreen { align: center middle; }
    QuestionScreen > Vertical {
        width: 90%; max-width: 100; height: 85%; padding: 0 1; background: $surface; border: round $accent;
        border-title-color: $text-accent;
    }
    QuestionScreen .said { height: auto; max-height: 8; margin: 0 1 1 1; }
    QuestionScreen .warning { height: auto; color: $text-warning; margin: 0 1; }
    QuestionScreen Reading { height: 1fr; }
    QuestionScreen TextArea { height: 1fr; min-height: 3; margin: 0 1; }
    QuestionScreen Horizontal { height: auto; align-horizontal: right; }
    QuestionScreen Button { margin-left: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f5,ctrl+j", "accept", "Send the answer", priority=True),
        Binding("ctrl+n", "decline", "Decline", priority=True),
        Binding("f8", "decline", "Decline", priority=True, show=False),
        *STEPS,
        Binding("escape", "cancel", "Cancel the question"),
        Binding("ctrl+x", "cancel_call", "Cancel the call", priority=True),
    ]

    def __init__(self, question: Question, name: str) -> None:
        super().__init__()
        self._question, self._who = question, name
        self._asked_again = False

    @property
    def is_form(self) -> bool:
        return self._question.method == "elicitation/create" and self._question.params.get("mode") != "url"

    @property
    def is_url(self) -> bool:
        return self._question.method == "elicitation/create" and self._question.params.get("mode") == "url"

    def compose(self) -> ComposeResult:
        is_elicitation = self._question.method == "elicitation/create"
        with Vertical() as box:
            box.border_subtitle = f"esc cancels the {'question' if is_elicitation else 'call'} · F1 keys"
            box.border_title = Content(clean(TITLES.get(self._question.method, "{} asks").format(self._who)))
            yield from self._body()
            yield Static(id="wrong", classes="warning")
            with Horizontal():
                yield Button(self._yes(), id="accept", variant="success", compact=True)
                if is_elicitation:
                    yield Button("Decline (ctrl+n)", id="decline", compact=True)
                yield Button("Cancel the call (ctrl+x)", id="cancel_call", variant="error", compact=True)

    def _yes(self) -> str:
        if self.is_url:
            return "Done there (F5)"
        return "Answer (F5)" if not self.is_form else "Accept (F5)"

    def _body(self) -> ComposeResult:
        params = self._question.params
        if self._question.method == "elicitation/create":
            yield Static(Content(clean(str(params.get("message", ""))[:MESSAGE_CHARS])), classes="said")
        if self.is_url:
            yield Static("It wants you to open this address. Corral never opens it by itself:", classes="warning")
            yield Reading(id="said")
        elif self.is_form:
            field = form_of(params.get("requestedSchema"))
            yield Static("Do not give it what it need not know: it is not Corral that asks.", classes="warning")
            yield SchemaForm(field, beginning(field))
        elif self._question.method == "sampling/createMessage":
            yield Reading(id="said")
            yield TextArea(id="answer", compact=True, soft_wrap=True, placeholder="The model's answer")
        elif self._question.method == "roots/list":
            yield Static("One URI a line, such as file:///home/me/project; nothing: an empty list.", classes="said")
            yield TextArea(id="answer", compact=True, placeholder="file:///…")
        else:
            yield Reading(id="said")
            yield TextArea("{}", id="answer", compact=True)

    async def on_mount(self) -> None:
        for reading in self.query("#said").results(Reading):
            reading.show(self.said())
        for form in self.query(SchemaForm):
            if form.focus_first():
                return
        for area in self.query("#answer"):
            area.focus()

    def said(self) -> list[Passage]:
        """What the server says, to be read before it is answered."""
        params = self._question.params
        if self.is_url:
            return [Passage("", (clean(str(params.get("url", ""))[:MESSAGE_CHARS]),))]
        if self._question.method != "sampling/createMessage":
            return [Passage(clean(self._question.method), pretty_lines(params))]
        system = params.get("systemPrompt")
        said = [Passage("system", tuple(clean_lines(system)))] if system else []
        said += [Passage(block.title, block.lines) for block in blocks_of({"messages": params.get("messages") or []})]
        rest = {name: value for name, value in params.items() if name not in ("messages", "systemPrompt")}
        return [*said, Passage("it says besides", pretty_lines(rest))]

    # -- answers

    def answer(self) -> Mapping[str, Any]:
        """The result that the server gets."""
        if self.is_url:
            return {"action": "accept"}
        if self.is_form:
            value = self.query_one(SchemaForm).value().value
            return {"action": "accept", "content": {} if value is MISSING else value}
        text = self.query_one("#answer", TextArea).text
        if self._question.method == "sampling/createMessage":
            content = {"type": "text", "text": text}
            return {"role": "assistant", "content": content, "model": MODEL, "stopReason": "endTurn"}
        return {"roots": [{"uri": line.strip()} for line in text.splitlines() if line.strip()]}

    def action_accept(self) -> None:
        after_typing(self.app, self._accept)

    def _accept(self) -> None:
        for form in self.query(SchemaForm):
            form.collect()
        wrong = self._wrong()
        if wrong and not self._asked_again:
            self._asked_again = True
            self.query_one("#wrong", Static).update(Content(f"{wrong}. Once more sends it all the same."))
            for form in self.query(SchemaForm):
                form.complain_of_all()
            return
        self.dismiss(self.answer())

    def _wrong(self) -> str:
        if not self.is_form:
            return ""
        count = len(self.query_one(SchemaForm).value().problems)
        return f"{count} {'field does' if count == 1 else 'fields do'} not fit what it asks for" if count else ""

    def action_decline(self) -> None:
        self.dismiss({"action": "decline"} if self._question.method == "elicitation/create" else None)

    def action_cancel(self) -> None:
        self.dismiss({"action": "cancel"} if self._question.method == "elicitation/create" else None)

    def action_cancel_call(self) -> None:
        self.dismiss(None)

    def on_schema_form_changed(self) -> None:
        self._asked_again = False
        self.query_one("#wrong", Static).update("")

    def on_schema_form_submitted(self) -> None:
        self.action_accept()

    async def on_button_pressed(self, event: Button.Pressed) -> None:
        await self.run_action(event.button.id or "cancel_call")
