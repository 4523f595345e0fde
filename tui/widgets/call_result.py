"""The answering side of the inspector: what is heard while a call lasts, and what it came to, in three views."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markdown_it import MarkdownIt
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import ContentSwitcher, Markdown, Static

from controlplane.wire.text import clean, clean_lines
from tui.inspector.content import Block
from tui.inspector.desk import VIEWS
from tui.inspector.verdict import bar, reading, verdict
from tui.widgets.json_tree import JsonTree
from tui.widgets.reading import Passage, Reading
from tui.widgets.tones import toned

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.widget import Widget

    from tui.inspector.conversation import Heard
    from tui.inspector.desk import Draft, View

HEARD_LINES = 5
"""Notifications that are in sight while a call lasts; all that are kept can be read in the result."""
RAW_CHARS = 4_000_000
LAID_OUT_BLOCKS = 20
LAID_OUT_CHARS = 16_000
"""Of a result with Markdown in it; a larger one is shown as plain text, which is painted as far as it is in sight."""
NAME_CHARS = 60
"""Of what was called, before what came of it."""
NESTING = 12
"""Of Markdown: every level is a widget within a widget."""
TITLES = {"tree": "tree", "reading": "read", "raw": "raw"}


class CallResult(Vertical):
    """Shows the draft's last call."""

    DEFAULT_CSS = """
    CallResult > #verdict { height: auto; max-height: 4; padding: 0 1; }
    CallResult > #heard { height: auto; padding: 0 1; color: $text-muted; display: none; }
    CallResult.-heard > #heard { display: block; }
    CallResult > ContentSwitcher { height: 1fr; }
    CallResult VerticalScroll { height: 1fr; padding: 0 1; scrollbar-size-vertical: 1; }
    CallResult VerticalScroll:focus { background: $boost; }
    CallResult VerticalScroll > Static { height: auto; }
    CallResult Markdown { margin: 0; padding: 0; background: transparent; }
    """

    def __init__(self, draft: Draft) -> None:
        super().__init__()
        self.draft = draft

    def compose(self) -> ComposeResult:
        yield Static(id="verdict")
        yield Static(id="heard")
        with ContentSwitcher(initial="reading"):
            yield Reading(id="reading")
            yield VerticalScroll(id="laid")
            yield JsonTree(id="tree")
            yield Reading(id="raw")

    async def on_mount(self) -> None:
        await self.show()

    # -- while a call lasts

    def begin(self) -> None:
        """A call goes out: nothing is heard of it yet."""
        self.draft.heard.clear()
        self.draft.outcome = None
        self.query_one("#reading", Reading).show(())
        self.query_one(ContentSwitcher).current = "reading"
        self.show_heard()

    def wait(self, seconds: float) -> None:
        """Say how long it takes already."""
        text = f"◌ waiting {seconds:.1f} s   ctrl+x cancels the call"
        self.query_one("#verdict", Static).update(
            Content.assemble(self._called(), Content.styled(text, "$text-accent"))
        )

    def show_heard(self) -> None:
        """The last of what was heard, and how far it is."""
        heard = self.draft.heard
        self.set_class(bool(heard), "-heard")
        steps = [one for one in heard if one.kind == "progress"]
        lines = [_heard(one) for one in list(heard)[-HEARD_LINES:] if one.kind != "progress"]
        if steps:
            lines.append(Content.assemble(bar(steps[-1].done, steps[-1].total), f"  {steps[-1].text}"))
        self.query_one("#heard", Static).update(Content("\n").join(lines))

    # -- after it

    async def show(self) -> None:
        """What the last call came to."""
        self.show_heard()
        draft = self.draft
        line = self.query_one("#verdict", Static)
        if draft.outcome is None:
            note = Content.styled(draft.note or "nothing was sent yet", "$text-muted")
            line.update(Content.assemble(self._called(), note))
            return
        line.update(
            Content.assemble(
                self._called(), toned(verdict(draft.outcome)), Content.styled(f"   {self._views()}", "$text-muted")
            )
        )
        await self._show_view(draft.view)

    async def turn(self) -> None:
        """The next view."""
        self.draft.view = VIEWS[(VIEWS.index(self.draft.view) + 1) % len(VIEWS)]
        await self.show()

    def main(self) -> Widget:
        """The view that is in sight."""
        return self.query_one(f"#{self.query_one(ContentSwitcher).current}")

    def _called(self) -> Content:
        name = clean(self.draft.called[:NAME_CHARS])
        return Content.styled(f"{name} " if name else "", "bold")

    def _views(self) -> str:
        return " ".join(f"[{TITLES[view]}]" if view == self.draft.view else TITLES[view] for view in VIEWS)

    async def _show_view(self, view: View) -> None:
        outcome = self.draft.outcome
        assert outcome is not None
        had_focus = self.main().has_focus
        current: str = view
        if view == "tree":
            self.query_one(JsonTree).show(outcome.document)
        elif view == "raw":
            self.query_one("#raw", Reading).show([Passage("", tuple(clean_lines(outcome.text[:RAW_CHARS])))])
        else:
            blocks = [*reading(outcome), *self._said()]
            if _is_laid_out(blocks):
                current = "laid"
                await self._lay_out(blocks)
            else:
                self.query_one("#reading", Reading).show(Passage(block.title, block.lines) for block in blocks)
        self.query_one(ContentSwitcher).current = current
        if had_focus:
            self.main().focus()

    def _said(self) -> list[Block]:
        """All that was heard on the way, where the lines above have no room for it."""
        lines = [f"{one.level or one.kind}  {one.text}" for one in self.draft.heard]
        return [Block("text", "what it said on the way", tuple(lines))] if len(lines) > HEARD_LINES else []

    async def _lay_out(self, blocks: list[Block]) -> None:
        laid = self.query_one("#laid", VerticalScroll)
        await laid.remove_children()
        parts: list[Widget] = []
        for block in blocks:
            if block.title:
                parts.append(Static(Content.styled(block.title, "bold $text-accent")))
            if block.kind == "markdown":
                parts.append(Markdown(block.source, parser_factory=_parser, open_links=False))
            else:
                parts.append(Static(Content(block.source)))
        await laid.mount_all(parts)
        laid.scroll_home(animate=False)


def _parser() -> MarkdownIt:
    return MarkdownIt("gfm-like", {"maxNesting": NESTING, "linkify": False})


def _is_laid_out(blocks: list[Block]) -> bool:
    chars = sum(len(line) for block in blocks for line in block.lines)
    return (
        any(block.kind == "markdown" for block in blocks) and len(blocks) <= LAID_OUT_BLOCKS and chars <= LAID_OUT_CHARS
    )


def _heard(one: Heard) -> Content:
    return Content.assemble((f"{one.level or one.kind} ", "bold"), one.text)
