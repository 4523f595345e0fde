"""A request that one node hands on to another is one trace: the holder's span is below that of the node that was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from controlplane import tracing
from controlplane.config import load
from controlplane.core.tracecontext import TraceContext
from controlplane.tracing import backlog
from controlplane.web.forward import handed_on
from tests.otlp import receiver
from tests.web.fakes import request
from tests.web.test_forward import CALL, HERE, THERE, head_of, node, scripted, two_nodes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.otlp import Received, Receiver
    from tests.web.test_forward import Nodes

LIMIT_S = 20
CLIENTS = TraceContext("a" * 32, "b" * 16, 1)


@pytest.fixture
async def nodes(hot: bool) -> AsyncIterator[Nodes]:
    async with two_nodes(hot=hot) as both:
        yield both


@pytest.fixture
async def receiving(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Receiver]:
    """Both nodes, which are one process here, send their spans to it, at once."""
    monkeypatch.setattr(backlog, "EVERY_S", 0.05)
    with receiver() as kept:
        tracing.start(load({"OTEL_EXPORTER_OTLP_ENDPOINT": kept.url}), "1")
        yield kept
        await tracing.stop()


async def spans(receiving: Receiver, count: int) -> list[Received]:
    with trio.fail_after(LIMIT_S):
        while len(receiving.spans) < count:
            await trio.sleep(0.01)
    return receiving.spans


async def ask(nodes: Nodes, **fields: str) -> int:
    client = await nodes.here.connect()
    with trio.fail_after(10):
        return (await client.ask(request(body=CALL, **fields))).status


@pytest.mark.parametrize("asked", [{}, {"Traceparent": CLIENTS.traceparent}])
async def test_both_nodes_spans_are_of_one_trace(nodes: Nodes, receiving: Receiver, asked: dict[str, str]) -> None:
    assert await ask(nodes, **asked) == 200

    found = await spans(receiving, 2)
    (first,) = [span for span in found if "corral.holder" in span.attributes]
    (second,) = [span for span in found if span is not first]
    assert (first.trace_id, first.parent) == ((CLIENTS.trace_id, CLIENTS.span_id) if asked else (first.trace_id, ""))
    assert (second.trace_id, second.parent) == (first.trace_id, first.span_id)
    assert first.attributes["corral.holder"] == str(THERE)
    assert [(span.kind, span.failed) for span in found] == [("server", False)] * 2


async def test_a_span_of_what_nobody_holds_says_so(nodes: Nodes, receiving: Receiver) -> None:
    nodes.roster.take_nodes([])

    assert await ask(nodes) == 503

    (span,) = await spans(receiving, 1)
    assert span.failed
    assert span.attributes["http.response.status_code"] == 503


@pytest.mark.parametrize("token", [None, "corral_of-nobody"])
async def test_strangers_get_no_span(nodes: Nodes, receiving: Receiver, token: str | None) -> None:
    client = await nodes.here.connect()
    with trio.fail_after(10):
        assert (await client.ask(request(body=CALL, token=token))).status == 401

    await tracing.stop()

    assert receiving.spans == []


async def test_without_traces_of_our_own_the_clients_context_is_handed_on_as_it_came(nodes: Nodes) -> None:
    asked = {"Traceparent": CLIENTS.traceparent, "Tracestate": "vendor=1"}
    async with scripted(nodes, b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n") as taken:
        assert await ask(nodes, **asked) == 204

    fields = taken[0].lower().split(b"\r\n")
    assert b"traceparent: " + CLIENTS.traceparent.encode() in fields
    assert b"tracestate: vendor=1" in fields


async def test_our_own_span_takes_the_place_of_the_clients(receiving: Receiver) -> None:
    head, scope = head_of([(b"traceparent", CLIENTS.traceparent.encode()), (b"tracestate", b"vendor=1")])
    with tracing.during("ours", parent=TraceContext("c" * 32, "d" * 16, 1, "other=2")) as span:
        assert span.context is not None
        token = tracing.active.set(span.context)
        fields = handed_on(head, scope, node(THERE, 1), HERE)
        tracing.active.reset(token)

    assert [value for name, value in fields if name == b"traceparent"] == [span.context.traceparent.encode()]
    assert [value for name, value in fields if name == b"tracestate"] == [b"other=2"]
