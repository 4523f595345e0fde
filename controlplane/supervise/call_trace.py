"""A call's span, and what the server is told of the trace that it belongs to.

Only for calls of a trace: of a client that sent its context, or of one whose
requests are traced here. Names and attributes are those of OpenTelemetry's MCP
conventions. Arguments and answers never go into a span.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec
from attrs import define

from controlplane import tracing
from controlplane.core.rawjson import UNDECODABLE
from controlplane.errors import CorralError
from controlplane.protocol.handshake import Era
from controlplane.protocol.trace_meta import NAME_MAX_CHARS, context_of, name_in, with_context

if TYPE_CHECKING:
    from controlplane.core.tracecontext import TraceContext
    from controlplane.protocol.session import Session
    from controlplane.supervise.runner import Runner
    from controlplane.tracing import Span, Value

TOOL_ERROR = "tool_error"
"""What the conventions call a tool's own failure."""


class _Error(msgspec.Struct):
    code: int = 0


class _Member(msgspec.Struct):
    is_error: bool = msgspec.field(name="isError", default=False)


_error = msgspec.json.Decoder(_Error).decode
_result = msgspec.json.Decoder(_Member).decode


@define(eq=False)
class CallTrace:
    """One call on its way. `params` are what the server gets."""

    params: bytes | None
    _span: Span

    def end(self, outcome: bytes | BaseException | None) -> None:
        """It is over.

        Args:
            outcome: The raw member of the answer, or why there is none; None: what is being raised.
        """
        if self._span is tracing.NOTHING:
            return
        if isinstance(outcome, bytes):
            error = failure_in(outcome)
            if error is not None and error != TOOL_ERROR:
                self._span.put("rpc.response.status_code", error)
            self._span.end(error)
            return
        raised = outcome or sys.exception()
        self._span.end(
            "cancelled" if raised is None else tracing.error_word(raised),
            raised.detail or raised.title if isinstance(raised, CorralError) else "",
        )


def begin(runner: Runner, session: Session, method: str, params: bytes | None) -> CallTrace | None:
    """None for a call that belongs to no trace, which costs one look."""
    active = tracing.active.get()
    return None if active is None else _begin(active, runner, session, method, params)


def passed_on(session: Session, params: bytes | None) -> bytes | None:
    """Parameters with the context of whoever asked, for a request that gets no span: it stays open for as long as it likes."""
    active = tracing.active.get()
    return params if active is None else _told(active, session, params, is_ours=tracing.is_on)


def _begin(
    active: TraceContext, runner: Runner, session: Session, method: str, params: bytes | None
) -> CallTrace | None:
    if not tracing.is_kept(active):
        return CallTrace(_told(active, session, params, is_ours=tracing.is_on), tracing.NOTHING)
    name = name_in(method, params)
    span = tracing.begin(
        f"{method} {name}" if name else method[:NAME_MAX_CHARS],
        kind="client",
        parent=active,
        attributes=_attributes(runner, session, method, name),
    )
    return CallTrace(_told(span.context or active, session, params, is_ours=True), span)


def _attributes(runner: Runner, session: Session, method: str, name: str) -> dict[str, Value]:
    instance, facts = runner.instance, session.facts
    found: dict[str, Value] = {
        "mcp.method.name": method[:NAME_MAX_CHARS],
        "network.transport": "pipe",
        "corral.instance.id": str(instance.id),
        "corral.instance.name": instance.name,
        "corral.owner": instance.owner,
        "corral.incarnation": instance.incarnation,
    }
    if facts is not None and facts.version is not None:
        found["mcp.protocol.version"] = facts.version
    return found | named(method, name)


def named(method: str, name: str) -> dict[str, Value]:
    """The attributes that name a tool or a prompt."""
    if not name:
        return {}
    if method == "prompts/get":
        return {"gen_ai.prompt.name": name}
    return {"gen_ai.tool.name": name, "gen_ai.operation.name": "execute_tool"}


def failure_in(member: bytes) -> str | None:
    """What went wrong by a raw member of an answer: a JSON-RPC code, `tool_error`, or None for nothing."""
    raw = member[member.index(b":") + 1 :]
    try:
        if member.startswith(b'"error"'):
            return str(_error(raw).code)
        return TOOL_ERROR if b'"isError"' in raw and _result(raw).is_error else None
    except UNDECODABLE:
        return "0" if member.startswith(b'"error"') else None


def _told(context: TraceContext, session: Session, params: bytes | None, *, is_ours: bool) -> bytes | None:
    """What the client wrote into `_meta` itself stands, unless a span of ours lies in between."""
    if session.facts is None or session.facts.era is Era.BARE:
        return params
    if not is_ours and context_of(params) is not None:
        return params
    return with_context(params, context)
