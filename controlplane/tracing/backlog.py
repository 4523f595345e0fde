"""Spans that are done and wait to be delivered: bounded, sent by a thread of their own, and counted when lost.

The exporter blocks for as long as its receiver likes, so it runs in a thread;
whoever ends a span appends it to a queue and goes on. What does not fit, and
what could not be delivered, is dropped. OpenTelemetry's own processor does the
same, but tells nobody how much it lost. What a span costs to send is spent here too.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING

from attrs import define, field
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

if TYPE_CHECKING:
    from controlplane.tracing.export import OtlpSpan, Readable

BACKLOG_MAX = 4096
"""Spans, of about 1 KiB each."""
BATCH_MAX = 512
"""Spans of one request to the receiver."""
EVERY_S = 2.0
"""How long a span waits for others at most."""
log = logging.getLogger("corral.tracing")


@define(eq=False)
class Backlog:
    """Takes spans and delivers them. `close` ends the thread."""

    exporter: SpanExporter
    readable: Readable
    receiver: str
    """Who gets them, for the log: without credentials."""
    exported: int = field(default=0, init=False)
    dropped: int = field(default=0, init=False)
    _queue: deque[OtlpSpan] = field(factory=deque, init=False)
    _in_hand: int = field(default=0, init=False)
    _wake: threading.Event = field(factory=threading.Event, init=False)
    _closing: bool = field(default=False, init=False)
    _is_away: bool = field(default=False, init=False)
    _thread: threading.Thread = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def add(self, span: OtlpSpan) -> None:
        """Never blocks; from the thread that ends spans only."""
        if self._closing or len(self._queue) >= BACKLOG_MAX:
            self.dropped += 1
            return
        self._queue.append(span)
        if len(self._queue) == BATCH_MAX:
            self._wake.set()

    def close(self, within_s: float) -> None:
        """Deliver what is there and end; what takes longer is dropped. Blocks for so long."""
        self._closing = True
        self._wake.set()
        self._thread.join(within_s)
        self.exporter.shutdown()  # a request that is being tried again gives up
        self.dropped += len(self._queue) + self._in_hand

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(EVERY_S)
            self._wake.clear()
            while self._queue:
                self._deliver([self._queue.popleft() for _ in range(min(BATCH_MAX, len(self._queue)))])
                if self._is_away:
                    break

    def _deliver(self, spans: list[OtlpSpan]) -> None:
        self._in_hand = len(spans)
        try:
            is_delivered = self.exporter.export([self.readable.of(span) for span in spans]) is SpanExportResult.SUCCESS
        except Exception:  # the exporter's own bug costs spans, and nothing else
            log.debug("the span exporter failed", exc_info=True)
            is_delivered = False
        self._in_hand = 0
        if is_delivered:
            self.exported += len(spans)
        else:
            self.dropped += len(spans)
        self._tell(is_away=not is_delivered)

    def _tell(self, *, is_away: bool) -> None:
        """One line when the receiver goes away, one when it is back."""
        if is_away is self._is_away:
            return
        self._is_away = is_away
        if is_away:
            log.warning("%s takes no spans: they are dropped, and counted in corral_spans_total", self.receiver)
        else:
            log.warning("%s takes spans again; %d were dropped", self.receiver, self.dropped)
