"""Spans as they are made here, and as OpenTelemetry's exporter wants them; see `opening`.

A span is a record with a clock: making one is on the path of a call. What it
takes to send it is done where it is sent, in the backlog's thread. Samplers are
the SDK's own.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from random import getrandbits
from time import time_ns
from typing import TYPE_CHECKING

import trio
from attrs import define, field
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState

from controlplane.core.tracecontext import SAMPLED, TraceContext
from controlplane.tracing import SpanCounts

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.sampling import Sampler

    from controlplane.tracing import Kind, Span, Value
    from controlplane.tracing.backlog import Backlog

FLUSH_S = 1.0
"""For what is left when the control plane ends."""
VALUE_MAX_CHARS = 1024
RANDOM = 2
"""The flag that says that a trace's id is random (Trace Context, level 2)."""
_KINDS: Mapping[Kind, SpanKind] = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
}
_NO_STATE = TraceState()
_ROOT = Context()


@define(eq=False, slots=True)
class OtlpSpan:
    """A `tracing.Span`. `sink` gets it when it is done; None for one that the sampler does not keep."""

    name: str
    kind: Kind
    context: TraceContext
    parent: TraceContext | None
    links: Sequence[TraceContext]
    attributes: dict[str, Value]
    sink: Backlog | None
    began_ns: int = field(factory=time_ns)
    ended_ns: int = 0
    failure: str | None = None
    """A sentence, maybe empty; None if nothing went wrong."""

    def rename(self, name: str) -> None:
        self.name = name

    def put(self, name: str, value: Value) -> None:
        self.attributes[name] = value

    def end(self, error: str | None = None, detail: str = "") -> None:
        if error is not None:
            self.attributes["error.type"] = error
            self.failure = detail
        sink, self.sink = self.sink, None
        if sink is not None:
            self.ended_ns = time_ns()
            sink.add(self)


@define(eq=False)
class OtlpTracer:
    """A `tracing.Tracer`."""

    sampler: Sampler
    backlog: Backlog
    follows_parents: bool

    def __attrs_post_init__(self) -> None:
        # It would log each failure to deliver; `Backlog` says so once.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)

    def begin(
        self,
        name: str,
        kind: Kind,
        parent: TraceContext | None,
        links: Sequence[TraceContext],
        attributes: Mapping[str, Value],
    ) -> Span:
        trace_id = f"{getrandbits(128) or 1:032x}" if parent is None else parent.trace_id
        is_kept = self._is_kept(name, kind, parent, trace_id, attributes)
        flags = (RANDOM if parent is None else parent.flags & RANDOM) | (SAMPLED if is_kept else 0)
        context = TraceContext(trace_id, f"{getrandbits(64) or 1:016x}", flags, "" if parent is None else parent.state)
        return OtlpSpan(name, kind, context, parent, links, dict(attributes), self.backlog if is_kept else None)

    def _is_kept(
        self, name: str, kind: Kind, parent: TraceContext | None, trace_id: str, attributes: Mapping[str, Value]
    ) -> bool:
        if parent is not None and self.follows_parents:  # as the sampler would say, 14 µs later
            return parent.is_sampled
        around = _ROOT if parent is None else trace.set_span_in_context(NonRecordingSpan(native(parent)), _ROOT)
        result = self.sampler.should_sample(around, int(trace_id, 16), name, _KINDS[kind], attributes, ())
        return result.decision is Decision.RECORD_AND_SAMPLE

    def statistics(self) -> SpanCounts:
        return SpanCounts(self.backlog.exported, self.backlog.dropped)

    async def close(self) -> None:
        with trio.CancelScope(shield=True):  # bounded by itself
            await trio.to_thread.run_sync(self.backlog.close, FLUSH_S)


@define(eq=False)
class Readable:
    """Makes what the exporter takes of a span that is done."""

    resource: Resource
    version: str
    _scope: InstrumentationScope = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._scope = InstrumentationScope("corral", self.version)

    def of(self, span: OtlpSpan) -> ReadableSpan:
        failed = span.failure is not None
        return ReadableSpan(
            span.name[:VALUE_MAX_CHARS],
            native(span.context),
            None if span.parent is None else native(span.parent),
            self.resource,
            _bounded(span.attributes),
            (),
            [trace.Link(native(link)) for link in span.links],
            _KINDS[span.kind],
            status=Status(StatusCode.ERROR, (span.failure or "")[:VALUE_MAX_CHARS] or None) if failed else Status(),
            start_time=span.began_ns,
            end_time=span.ended_ns,
            instrumentation_scope=self._scope,
        )


def native(context: TraceContext) -> SpanContext:
    """A context as OpenTelemetry has it."""
    state = TraceState.from_header([context.state]) if context.state else _NO_STATE
    return SpanContext(
        int(context.trace_id, 16), int(context.span_id, 16), context.is_remote, TraceFlags(context.flags), state
    )


def _bounded(attributes: Mapping[str, Value]) -> dict[str, Value]:
    return {name: value[:VALUE_MAX_CHARS] if isinstance(value, str) else value for name, value in attributes.items()}
