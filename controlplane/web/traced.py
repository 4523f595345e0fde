"""A request as a span, and as who asked for what is done meanwhile; one for both doors.

Only what was admitted gets one: strangers cannot fill anybody's traces. Where no
traces are made, the client's own context is taken, so that servers hear of it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Self

from attrs import define, field

from controlplane import tracing
from controlplane.cluster.roster import HeldElsewhere
from controlplane.core.tracecontext import parse
from controlplane.errors import CorralError
from controlplane.protocol.headers import SESSION_FIELD
from controlplane.protocol.trace_meta import context_of_body, said_in
from controlplane.supervise.call_trace import named

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextvars import Token
    from types import TracebackType

    from controlplane.core.tracecontext import TraceContext
    from controlplane.tracing import Span, Value
    from controlplane.web.asgi import Message, Send
    from controlplane.web.request import Head

TRACEPARENT = b"traceparent"
TRACESTATE = b"tracestate"
_COMMANDS = (
    (re.compile(r"/api/v2/deploy"), "/api/v2/deploy"),
    (re.compile(r"/deploy"), "/deploy"),
    (re.compile(r"/instances/.+/(start|stop|restart|redeploy|rollback)"), "/instances/{ref}/"),
)
"""What starts processes, as spans name it."""
UNADMITTED = (401, 429)


def wanted(fields: Mapping[bytes, bytes]) -> bool:
    """Whether a request has to do with traces at all."""
    return tracing.is_on or TRACEPARENT in fields


def fields_of(head: Head) -> Mapping[bytes, bytes] | None:
    """A request's fields if it has to do with traces; see `wanted`."""
    return head.fields if wanted(head.fields) else None


def command_of(head: Head) -> str | None:
    """The route of a request of the API that is worth a span; None for all others."""
    if head.method != "POST":
        return None
    for pattern, route in _COMMANDS:
        if found := pattern.fullmatch(head.path):
            return route + (found[1] if pattern.groups else "")
    return None


@define(eq=False)
class Traced:
    """Around the handling of one request.

    Args:
        fields: Of its head.
        route: As the API's description has it.
        ref: The instance, as the client names it; empty for none.
        body: A JSON-RPC message or a call; empty for anything else, and where it is handed on as it comes.
    """

    fields: Mapping[bytes, bytes]
    route: str
    ref: str = ""
    body: bytes = b""
    hands_on: bool = field(default=False, kw_only=True)
    """It is another node that answers: if none does, that is how it ends."""
    _status: int = field(default=0, init=False)
    _span: Span = field(default=tracing.NOTHING, init=False)
    _token: Token[TraceContext | None] | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        asked = parse(self.fields.get(TRACEPARENT), self.fields.get(TRACESTATE))
        if tracing.is_on:
            self._span = self._begin(asked)
            asked = self._span.context
        self._token = tracing.active.set(asked)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._token is not None:
            tracing.active.reset(self._token)
        if tracing.is_on:
            self._end(error)

    def answered(self, status: int) -> None:
        """This is the answer's status."""
        self._status = status

    def put(self, name: str, value: Value) -> None:
        """Something that is known only now."""
        self._span.put(name, value)

    def watching(self, send: Send) -> Send:
        """An ASGI `send` that notes the status."""

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.answered(message["status"])
            await send(message)

        return noting

    def _begin(self, from_head: TraceContext | None) -> Span:
        # A message's own context is nearer to who asked than its carrier's (OpenTelemetry's MCP conventions).
        from_message = context_of_body(self.body)
        span = tracing.begin(
            f"POST {self.route}",
            kind="server",
            parent=from_message or from_head,
            links=(from_head,) if from_message is not None else (),
        )
        if span.context is not None and span.context.is_sampled:  # what is not kept need not be described
            self._describe(span)
        return span

    def _describe(self, span: Span) -> None:
        method, name = said_in(self.body)
        if method:
            span.rename(f"{method} {name}" if name else method)
        for key, value in (self._attributes(method) | named(method, name)).items():
            span.put(key, value)

    def _attributes(self, method: str) -> dict[str, Value]:
        found: dict[str, Value] = {"http.request.method": "POST", "http.route": self.route}
        if self.ref:
            found["corral.ref"] = self.ref
        if method:
            found["mcp.method.name"] = method
        for name, raw in (
            ("mcp.session.id", self.fields.get(SESSION_FIELD)),
            ("mcp.protocol.version", self.fields.get(b"mcp-protocol-version")),
            ("corral.request_id", self.fields.get(b"x-request-id")),
        ):
            if raw is not None:
                found[name] = raw.decode("latin-1")
        return found

    def _end(self, error: BaseException | None) -> None:
        if isinstance(error, HeldElsewhere) and not self.hands_on:
            return  # whoever hands it on makes the span
        if isinstance(error, CorralError):
            self._status = error.status
        if self._status in UNADMITTED:
            return  # a span that never ends is never sent
        if self._status:
            self._span.put("http.response.status_code", self._status)
        if self._status >= 500 or (error is not None and not isinstance(error, CorralError)):
            word = str(self._status) if error is None else tracing.error_word(error)
            self._span.end(word, getattr(error, "detail", None) or "")
        else:
            self._span.end()
