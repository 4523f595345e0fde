"""The spans of an instance's starts, made from what its runner says anyway: one for a start, in it one for each phase.

A start that follows an end is a trace of its own, and linked to the start before it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from attrs import define, field

from controlplane import tracing
from controlplane.core.lifecycle import State
from controlplane.tracing import NOTHING

if TYPE_CHECKING:
    from controlplane.core.tracecontext import TraceContext
    from controlplane.model import Evidence, Instance
    from controlplane.tracing import Span

PHASES = {
    "fetch": "fetch",
    "plan": "plan",
    "build": "build",
    "prepare": "prepare",
    "preparing": "prepare",
    "spawning": "spawn",
    "handshake": "handshake",
    "commit": "commit",
    "pending": "wait",
    "waiting": "wait",
    "install": "install",
}
"""The first word of what a runner says to the span's name: a closed set, as names of spans have to be."""
_WORD = re.compile(r"[a-z]+")


@define(eq=False)
class StartTrace:
    """Of one runner, or of one candidate."""

    cause: TraceContext | None = None
    """Who asked for the next start; forgotten with it."""
    context: TraceContext | None = field(default=None, init=False)
    """Of the start under way, or of the last one."""
    _start: Span | None = field(default=None, init=False)
    _phase: Span = field(default=NOTHING, init=False)

    def begin(self, name: str, instance: Instance, revision: int | None = None) -> None:
        """A start begins, whatever became of the one before."""
        if not tracing.is_on:
            return
        self.end("superseded")
        cause, self.cause = self.cause, None
        self._start = tracing.begin(
            name,
            parent=cause,
            links=() if self.context is None or name == "deploy" else (self.context,),
            attributes={
                "corral.instance.id": str(instance.id),
                "corral.instance.name": instance.name,
                "corral.owner": instance.owner,
                "corral.revision": revision if revision is not None else instance.spec.revision,
                "corral.incarnation": instance.incarnation,
            },
        )
        self.context = self._start.context

    def phase(self, words: str) -> None:
        """A phase begins, and the one before is over."""
        if self._start is None:
            return
        self._phase.end()
        found = _WORD.match(words)
        name = PHASES.get(found[0], "phase") if found is not None else "phase"
        if name == "build" and words.startswith("build: install "):
            name = "install"
        self._phase = tracing.begin(name, parent=self.context, attributes={"corral.phase": words})

    def moved(self, to: State, words: str, instance: Instance) -> None:
        """The runner has gone to another state."""
        if not tracing.is_on:
            return
        match to:
            case State.PENDING | State.PREPARING:
                self.phase(words)
            case State.STARTING:
                if self._start is None:
                    self.begin("restart", instance)
                self.phase(words)
            case State.RUNNING:
                self.end(None)
            case State.BACKOFF | State.FAILED:
                self.end(_code(instance.last_error), words)
            case _:
                self.end("stopped")

    def end(self, error: str | None, detail: str = "") -> None:
        """The start is over; nothing if none is under way."""
        if self._start is None:
            return
        self._phase.end(error)
        self._start.end(error, detail)
        self._start, self._phase = None, NOTHING


def _code(evidence: Evidence | None) -> str:
    return "failed" if evidence is None else evidence.code
