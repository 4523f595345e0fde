"""Spans by OpenTelemetry's SDK, sent by OTLP over HTTP. The only module that makes them; see `opening`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import trio
from attrs import define, field, frozen
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState

from controlplane.core.tracecontext import TraceContext
from controlplane.tracing import SpanCounts

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.sampling import Sampler

    from controlplane.tracing import Kind, Span, Value
    from controlplane.tracing.backlog import Backlog

FLUSH_S = 1.0
"""For what is left when the control plane ends."""
VALUE_MAX_CHARS = 1024
_KINDS: Mapping[Kind, SpanKind] = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
}
_NO_STATE = TraceState()
# The SDK takes a span's parent from a context under this key, as its own `set_span_in_context` would put it.
_ROOT = Context()


class _Feed(SpanProcessor):
    """Puts each span that is sampled into the backlog when it is done."""

    def __init__(self, backlog: Backlog) -> None:
        self._backlog = backlog

    def on_end(self, span: ReadableSpan) -> None:
        context = span.get_span_context()
        if context is not None and context.trace_flags.sampled:
            self._backlog.add(span)


@frozen(slots=True, eq=False)
class OtlpSpan:
    """A `tracing.Span` that is recorded, if the sampler wants it."""

    _span: trace.Span
    context: TraceContext

    def put(self, name: str, value: Value) -> None:
        self._span.set_attribute(name, value)

    def event(self, name: str, attributes: Mapping[str, Value]) -> None:
        self._span.add_event(name, attributes)

    def end(self, error: str | None = None, detail: str = "") -> None:
        if error is not None:
            self._span.set_attribute("error.type", error)
            self._span.set_status(Status(StatusCode.ERROR, detail[:VALUE_MAX_CHARS] or None))
        self._span.end()


@define(eq=False)
class OtlpTracer:
    """A `tracing.Tracer`."""

    resource: Resource
    sampler: Sampler
    version: str
    backlog: Backlog
    _tracer: trace.Tracer = field(init=False)

    def __attrs_post_init__(self) -> None:
        # It would log each failure to deliver; `Backlog` says so once.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        provider = TracerProvider(
            sampler=self.sampler,
            resource=self.resource,
            shutdown_on_exit=False,
            span_limits=SpanLimits(max_attribute_length=VALUE_MAX_CHARS),
        )
        provider.add_span_processor(_Feed(self.backlog))
        self._tracer = provider.get_tracer("corral", self.version)

    def begin(
        self,
        name: str,
        kind: Kind,
        parent: TraceContext | None,
        links: Sequence[TraceContext],
        attributes: Mapping[str, Value],
    ) -> Span:
        around = _ROOT if parent is None else trace.set_span_in_context(NonRecordingSpan(_native(parent)), _ROOT)
        span = self._tracer.start_span(
            name,
            around,
            _KINDS[kind],
            attributes,
            [trace.Link(_native(link)) for link in links],
        )
        context = span.get_span_context()
        state = context.trace_state.to_header() if context.trace_state else ""
        return OtlpSpan(span, TraceContext(context.trace_id, context.span_id, int(context.trace_flags), state))

    def statistics(self) -> SpanCounts:
        return SpanCounts(self.backlog.exported, self.backlog.dropped)

    async def close(self) -> None:
        with trio.CancelScope(shield=True):  # bounded by itself
            await trio.to_thread.run_sync(self.backlog.close, FLUSH_S)


def _native(context: TraceContext) -> SpanContext:
    state = TraceState.from_header([context.state]) if context.state else _NO_STATE
    return SpanContext(context.trace_id, context.span_id, context.is_remote, TraceFlags(context.flags), state)
