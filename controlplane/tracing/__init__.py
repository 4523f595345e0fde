"""Traces, as the rest of Corral knows them: who asked, and spans of what was done.

Off unless an OTLP endpoint is set. Then nothing of OpenTelemetry is loaded,
`is_on` is False, `begin` returns a span that is nothing, and what a client sent
is passed on to servers all the same. `export` has what is loaded when it is on.

`active` is who asked, for what runs in a request's task and in the tasks that it
starts. What outlives its request calls `take` first, or it would be counted
among its doings for ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal, Protocol

from attrs import frozen

if TYPE_CHECKING:
    from controlplane.config import Config
    from controlplane.core.tracecontext import TraceContext

Kind = Literal["internal", "server", "client"]
Value = str | int | float | bool
active: ContextVar[TraceContext | None] = ContextVar("active", default=None)


class Span(Protocol):
    """Something that is being done. `context` names it to others; None for a span that is nothing."""

    @property
    def context(self) -> TraceContext | None: ...
    def rename(self, name: str) -> None: ...
    def put(self, name: str, value: Value) -> None: ...
    def end(self, error: str | None = None, detail: str = "") -> None:
        """It is done; `error` is a word of a closed set for what went wrong, `detail` a sentence."""


@frozen(slots=True)
class Nothing:
    """The span of a control plane that makes none."""

    context: TraceContext | None = None

    def rename(self, name: str) -> None:
        """Nothing."""

    def put(self, name: str, value: Value) -> None:
        """Nothing."""

    def end(self, error: str | None = None, detail: str = "") -> None:
        """Nothing."""


NOTHING = Nothing()


@frozen(slots=True)
class SpanCounts:
    """Since the start: delivered, and lost because the receiver is away or too slow."""

    exported: int = 0
    dropped: int = 0


class Tracer(Protocol):
    """What makes spans; see `begin`."""

    @property
    def follows_parents(self) -> bool:
        """Whether a span is kept if its parent is, and not otherwise."""

    def begin(
        self,
        name: str,
        kind: Kind,
        parent: TraceContext | None,
        links: Sequence[TraceContext],
        attributes: Mapping[str, Value],
    ) -> Span: ...
    def statistics(self) -> SpanCounts: ...
    async def close(self) -> None: ...


is_on = False
"""Whether spans are made. Read it as `tracing.is_on`: a copy would not change."""
_tracer: Tracer | None = None


def is_kept(parent: TraceContext) -> bool:
    """Whether a span below this one can be kept at all; asked where even one that is not costs too much."""
    return _tracer is not None and (parent.is_sampled or not _tracer.follows_parents)


def begin(
    name: str,
    *,
    kind: Kind = "internal",
    parent: TraceContext | None = None,
    links: Sequence[TraceContext | None] = (),
    attributes: Mapping[str, Value] | None = None,
) -> Span:
    """Begin a span, which somebody must end.

    Args:
        name: Of few words: those of users belong into attributes.
        kind: As OpenTelemetry has it.
        parent: Who asked; None begins a trace.
        links: Others that it has to do with.
        attributes: What is known from the start; samplers see it.
    """
    if _tracer is None:
        return NOTHING
    return _tracer.begin(name, kind, parent, [link for link in links if link is not None], attributes or {})


@contextmanager
def during(
    name: str,
    *,
    parent: TraceContext | None = None,
    links: Sequence[TraceContext | None] = (),
    attributes: Mapping[str, Value] | None = None,
) -> Iterator[Span]:
    """A span for as long as the block lasts, of `active` unless a parent is named; what is raised there ends it as an error."""
    span = begin(name, parent=parent or active.get(), links=links, attributes=attributes)
    try:
        yield span
    except BaseException as error:
        span.end(error_word(error))
        raise
    span.end()


def take() -> TraceContext | None:
    """Who asked for what this task is to do; what it does from now on is nobody's doing but its own."""
    context = active.get()
    if context is not None:
        active.set(None)
    return context


def error_word(error: BaseException) -> str:
    """What a span calls it: the code of an error that has one, else its type."""
    code = getattr(error, "code", None)
    return code if isinstance(code, str) else type(error).__name__.lower()


def statistics() -> SpanCounts:
    """Of the spans made since the start."""
    return SpanCounts() if _tracer is None else _tracer.statistics()


def start(config: Config, version: str) -> None:
    """Make spans from now on, if the settings name an endpoint.

    Raises:
        ConfigError: they do, and what is needed is not installed or cannot be used.
    """
    if config.otel_endpoint is None:
        return
    from controlplane.tracing.opening import open_tracer  # noqa: PLC0415 - 0.3 s, and only where it is wanted

    use(open_tracer(config, version))


def use(tracer: Tracer | None) -> None:
    """Have this make the spans, or nobody."""
    global _tracer, is_on
    _tracer, is_on = tracer, tracer is not None


async def stop() -> None:
    """Deliver what is left, within a bound, and make no more spans."""
    tracer = _tracer
    use(None)
    if tracer is not None:
        await tracer.close()
