"""A receiver of traces by OTLP over HTTP, as a collector is one: it decodes what it gets, and keeps it."""

from __future__ import annotations

import gzip
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

KINDS = {1: "internal", 2: "server", 3: "client"}
FAILED = 2


@frozen(kw_only=True)
class Received:
    """One span as it came in; ids in hex."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent: str
    state: str
    attributes: Mapping[str, Any]
    links: tuple[str, ...]
    failed: bool
    began_ns: int
    ended_ns: int


@define(eq=False)
class Receiver:
    """What came so far. `status` is what it answers with."""

    url: str = ""
    status: int = 200
    spans: list[Received] = field(factory=list)
    resources: list[Mapping[str, Any]] = field(factory=list)
    headers: list[Mapping[str, str]] = field(factory=list)
    paths: set[str] = field(factory=set)

    def named(self, name: str) -> list[Received]:
        return [span for span in self.spans if span.name == name]

    def take(self, body: bytes) -> None:
        message = ExportTraceServiceRequest.FromString(body)
        for resource in message.resource_spans:
            self.resources.append(_attributes(resource.resource.attributes))
            for scope in resource.scope_spans:
                self.spans += [_read(span) for span in scope.spans]


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A receiver on a free port of the loopback, for as long as the block lasts."""
    kept = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            kept.headers.append({name.lower(): value for name, value in self.headers.items()})
            kept.paths.add(self.path)
            if kept.status == 200:
                kept.take(gzip.decompress(body) if self.headers["content-encoding"] == "gzip" else body)
            self.send_response(kept.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    kept.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _read(span: Any) -> Received:
    return Received(
        name=span.name,
        kind=KINDS[span.kind],
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        state=span.trace_state,
        attributes=_attributes(span.attributes),
        links=tuple(link.span_id.hex() for link in span.links),
        failed=span.status.code == FAILED,
        began_ns=span.start_time_unix_nano,
        ended_ns=span.end_time_unix_nano,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
