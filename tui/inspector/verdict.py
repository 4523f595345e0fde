"""What came of a call, in a line and in words: an answer, the server's error, or Corral's own failure. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from controlplane.wire.text import clean, clean_lines
from controlplane.wire.units import millis
from tui.board.cells import Cell
from tui.inspector.content import Block, blocks_of, size_text
from tui.inspector.jsontext import pretty, pretty_lines

if TYPE_CHECKING:
    from tui.inspector.conversation import Outcome

BAR_CELLS = 24
TEXT_CHARS = 500
"""Of one message in the line above the result."""


@frozen
class Told:
    """The members of a failure that a person acts on."""

    title: str
    detail: str
    hint: str
    evidence: Mapping[str, Any]


def verdict(outcome: Outcome) -> Cell:
    """The one line above the result."""
    facts = " · ".join(part for part in (millis(outcome.elapsed_s * 1000), _size(outcome), _rounds(outcome)) if part)
    if outcome.kind == "result":
        failed = outcome.word == "failed"
        return Cell(
            f"{'✗ the tool says that it failed' if failed else '✓ result'}   {facts}", "bad" if failed else "good"
        )
    if outcome.kind == "error":
        error = outcome.document if isinstance(outcome.document, dict) else {}
        said = f"{_text(error.get('code'))}: {_text(error.get('message'))}"
        return Cell(f"✗ the server's JSON-RPC error {said}   {facts}", "bad")
    if outcome.kind == "declined":
        return Cell("– you did not answer what it asked, so the call was cancelled", "warn")
    told = told_of(outcome)
    return Cell(f"✗ Corral: {told.title}{': ' if told.detail else ''}{told.detail}   {facts}", "bad")


def told_of(outcome: Outcome) -> Told:
    """What Corral says of its own failure, whichever way it came."""
    document = outcome.document if isinstance(outcome.document, dict) else {}
    if outcome.failure is not None:
        failure = outcome.failure
        return Told(failure.title, failure.detail, failure.hint, document)
    data = document.get("data")
    evidence = data if isinstance(data, dict) else document
    detail = document.get("message", document.get("detail"))
    return Told(_text(evidence.get("title", "")), _text(detail or ""), _text(evidence.get("hint") or ""), evidence)


def reading(outcome: Outcome) -> list[Block]:
    """The result, or what went wrong, as a person reads it."""
    if outcome.kind == "result":
        return blocks_of(outcome.document)
    if outcome.kind == "error":
        return list(_error(outcome.document))
    return list(_problem(told_of(outcome))) if outcome.kind == "problem" else []


def bar(done: float | None, total: float | None, width: int = BAR_CELLS) -> str:
    """A progress bar with its figures; without a total only the figure."""
    if done is None:
        return ""
    if not total or total <= 0:
        return f"{done:g}"
    full = int(max(0.0, min(1.0, done / total)) * width)
    return f"▕{'█' * full}{'░' * (width - full)}▏ {done:g} of {total:g}"


def _error(error: Any) -> Iterator[Block]:
    if isinstance(error, dict):
        yield Block("text", "the server answered with an error", tuple(clean_lines(str(error.get("message", "")))))
        yield Block("fact", "code", (_text(error.get("code")),))
        if "data" in error:
            yield Block("json", "data", pretty_lines(error["data"]))


def _problem(told: Told) -> Iterator[Block]:
    yield Block("text", told.title or "Corral could not make the call", tuple(clean_lines(told.detail)))
    if told.hint:
        yield Block("text", "what can be done", tuple(clean_lines(told.hint)))
    tail = told.evidence.get("stderr_tail")
    if isinstance(tail, list) and tail:
        yield Block("text", "the last lines that it wrote on stderr", tuple(clean(line) for line in tail[-100:]))
    shown = ("title", "detail", "hint", "stderr_tail", "type", "status", "instance")
    rest = {name: value for name, value in told.evidence.items() if name not in shown}
    if rest:
        yield Block("json", "evidence", pretty_lines(rest))


def _size(outcome: Outcome) -> str:
    return size_text(len(outcome.text.encode("utf-8", "replace"))) if outcome.text else ""


def _rounds(outcome: Outcome) -> str:
    return f"{outcome.rounds} rounds" if outcome.rounds > 1 else ""


def _text(value: Any) -> str:
    return clean(value[:TEXT_CHARS]) if isinstance(value, str) else clean(pretty(value)[:TEXT_CHARS])
