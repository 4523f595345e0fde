"""Traces of a control plane that runs servers: what arrives at a receiver, and what servers are told."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests import servers
from tests.e2e.plane import ROOT, deployment, open_plane, wait_until
from tests.otlp import receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.plane import Plane
    from tests.otlp import Received, Receiver

ARRIVE_S = 30
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ASKED = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1"}
OTHER = "11111111111111111111111111111111"
MODERN = {
    "Accept": "application/json, text/event-stream",
    "MCP-Protocol-Version": "2026-07-28",
    "Mcp-Method": "tools/call",
    "Mcp-Name": "mirror",
}
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
ERAS = ("legacy", "modern")
ORIGIN = "http://127.0.0.1:1"
DOORS: dict[str, dict[str, str]] = {"hot": {}, "hypercorn": {"Origin": ORIGIN}}
"""A browser's request is the other door's."""


@pytest.fixture(scope="module")
def receiving() -> Iterator[Receiver]:
    with receiver() as kept:
        yield kept


@pytest.fixture(scope="module")
def traced(receiving: Receiver) -> Iterator[Plane]:
    with open_plane(OTEL_EXPORTER_OTLP_ENDPOINT=receiving.url, ALLOWED_ORIGINS=ORIGIN) as plane:
        yield _with_mirrors(plane)


@pytest.fixture(scope="module")
def untraced() -> Iterator[Plane]:
    with open_plane(ALLOWED_ORIGINS=ORIGIN) as plane:
        yield _with_mirrors(plane)


def _with_mirrors(plane: Plane) -> Plane:
    plane.start()
    for era in ERAS:
        plane.deploy(era, servers.source("mirror.py"), environment_vars={"ERA": era})
    return plane


def told(plane: Plane, era: str, headers: dict[str, str], meta: dict[str, Any] | None = None) -> dict[str, Any]:
    """The parameters that a server gets of a call by `execute`."""
    params = {"name": "mirror", "arguments": {"n": 1}} | ({} if meta is None else {"_meta": meta})
    body = {"method": "tools/call", "params": params}
    answer = plane.request("POST", f"/mcp/{era}/execute", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = json.loads(answer.json()["result"]["content"][0]["text"])
    return found


def told_by_endpoint(plane: Plane, era: str, headers: dict[str, str], meta: dict[str, Any]) -> dict[str, Any]:
    """The same, of a message of a modern MCP client."""
    params = {"name": "mirror", "arguments": {"n": 1}, "_meta": ENVELOPE | meta}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    answer = plane.request("POST", f"/mcp/{era}", json=body, headers=MODERN | headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = json.loads(answer.json()["result"]["content"][0]["text"])
    return found


def told_by_session(plane: Plane, era: str, headers: dict[str, str]) -> dict[str, Any]:
    """The same, of a client of the legacy era; only the call is sent with the headers."""
    accept = {"Accept": "application/json, text/event-stream"}
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
    opened = plane.request("POST", f"/mcp/{era}", json=message, headers=accept)
    assert opened.status_code == 200, opened.text
    session = accept | {"Mcp-Session-Id": opened.headers["mcp-session-id"], "MCP-Protocol-Version": "2025-06-18"}
    message = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "mirror", "arguments": {}}}
    answer = plane.request("POST", f"/mcp/{era}", json=message, headers=session | headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = json.loads(answer.json()["result"]["content"][0]["text"])
    return found


def span_with(receiving: Receiver, span_id: str) -> Received:
    def found() -> Received | None:
        return next((span for span in receiving.spans if span.span_id == span_id), None)

    span: Received = wait_until(found, ARRIVE_S, f"the span {span_id}")
    return span


def wait_named(receiving: Receiver, name: str, **attributes: str) -> Received:
    def found() -> Received | None:
        for span in receiving.named(name):
            if all(span.attributes.get(f"corral.{key}") == value for key, value in attributes.items()):
                return span
        return None

    span: Received = wait_until(found, ARRIVE_S, f"a span {name}")
    return span


# -- without a receiver: what a client sent is passed on


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("door", DOORS)
def test_a_clients_context_reaches_the_server_where_no_spans_are_made(untraced: Plane, era: str, door: str) -> None:
    params = told(untraced, era, ASKED | DOORS[door], {"mine": 1})

    assert params["arguments"] == {"n": 1}
    assert params["_meta"].items() >= (ASKED | {"mine": 1}).items()


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("door", DOORS)
def test_without_a_context_and_with_a_malformed_one_a_server_is_told_none(untraced: Plane, era: str, door: str) -> None:
    for headers in ({}, {"traceparent": "00-malformed"}, {"traceparent": f"00-{'0' * 32}-{SPAN}-01"}):
        assert "traceparent" not in told(untraced, era, headers | DOORS[door]).get("_meta", {})


@pytest.mark.parametrize("era", ERAS)
def test_what_a_client_wrote_into_its_message_stands_where_no_spans_are_made(untraced: Plane, era: str) -> None:
    meta = {"traceparent": f"00-{OTHER}-{SPAN}-00"}

    assert told(untraced, era, ASKED, meta)["_meta"]["traceparent"] == meta["traceparent"]
    assert told_by_endpoint(untraced, era, ASKED, meta)["_meta"]["traceparent"] == meta["traceparent"]


# -- with one


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("tell", [told, told_by_endpoint])
def test_a_call_is_a_span_within_its_request_and_its_server_is_told_of_it(
    traced: Plane, receiving: Receiver, era: str, door: str, tell: Callable[..., dict[str, Any]]
) -> None:
    params = tell(traced, era, ASKED | DOORS[door] | {"X-Request-Id": "mine"}, {})

    _, trace_id, span_id, flags = params["_meta"]["traceparent"].split("-")
    assert (trace_id, flags, params["_meta"]["tracestate"]) == (TRACE, "01", "vendor=1")
    call = span_with(receiving, span_id)
    assert (call.name, call.kind, call.trace_id) == ("tools/call mirror", "client", TRACE)
    assert (
        call.attributes.items()
        >= {
            "mcp.method.name": "tools/call",
            "gen_ai.tool.name": "mirror",
            "corral.instance.name": era,
            "corral.owner": "admin",
        }.items()
    )
    request = span_with(receiving, call.parent)
    assert (request.name, request.kind, request.parent) == ("tools/call mirror", "server", SPAN)
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["corral.request_id"] == "mine"
    assert request.began_ns <= call.began_ns <= call.ended_ns <= request.ended_ns


@pytest.mark.parametrize("era", ERAS)
def test_a_call_of_a_legacy_session_is_a_span_that_its_server_is_told_of(
    traced: Plane, receiving: Receiver, era: str
) -> None:
    params = told_by_session(traced, era, ASKED)

    _, trace_id, span_id, _ = params["_meta"]["traceparent"].split("-")
    assert trace_id == TRACE
    request = span_with(receiving, span_with(receiving, span_id).parent)
    assert (request.kind, request.parent) == ("server", SPAN)
    assert request.attributes["mcp.session.id"]


@pytest.mark.parametrize("era", ERAS)
def test_the_context_in_a_message_is_nearer_than_that_of_its_carrier(
    traced: Plane, receiving: Receiver, era: str
) -> None:
    params = told_by_endpoint(traced, era, ASKED, {"traceparent": f"00-{OTHER}-{SPAN}-01"})

    _, trace_id, span_id, _ = params["_meta"]["traceparent"].split("-")
    assert trace_id == OTHER
    request = span_with(receiving, span_with(receiving, span_id).parent)
    assert (request.trace_id, request.parent, request.links) == (OTHER, SPAN, (SPAN,))


def test_a_trace_that_its_client_does_not_keep_is_not_kept_here_and_the_server_hears_so(
    traced: Plane, receiving: Receiver
) -> None:
    unsampled = {"traceparent": f"00-{OTHER[:-1]}2-{SPAN}-00"}
    params = told(traced, "legacy", unsampled)
    marker = told(traced, "legacy", ASKED)  # a later one: when it is there, the other would be
    span_with(receiving, marker["_meta"]["traceparent"].split("-")[2])

    assert params["_meta"]["traceparent"].endswith("-00")
    assert not [span for span in receiving.spans if span.trace_id == OTHER[:-1] + "2"]


def test_a_call_that_fails_says_how(traced: Plane, receiving: Receiver) -> None:
    for number, (method, params) in enumerate((("tools/call", {"name": "fail"}), ("no/such", {}))):
        trace = f"{OTHER[:-1]}{number + 5}"
        headers = {"traceparent": f"00-{trace}-{SPAN}-01"}
        traced.request("POST", "/mcp/legacy/execute", json={"method": method, "params": params}, headers=headers)
        wait_until(
            lambda trace=trace: [s for s in receiving.spans if (s.trace_id, s.kind) == (trace, "client")],
            ARRIVE_S,
            "it",
        )

    failed = {
        span.name: span.attributes["error.type"] for span in receiving.spans if span.kind == "client" and span.failed
    }
    assert failed.items() >= {"tools/call fail": "tool_error", "no/such": "-32601"}.items()


def test_a_deploy_is_a_trace_with_its_phases_and_a_restart_is_another_linked_to_it(
    traced: Plane, receiving: Receiver
) -> None:
    body = deployment("crasher")
    headers = {"traceparent": f"00-{OTHER[:-1]}9-{SPAN}-01"}
    answer = traced.request("POST", "/api/v2/deploy?wait=60", json=body, headers=headers)
    assert answer.status_code == 201, answer.text

    deploy = wait_named(receiving, "deploy", **{"instance.name": "crasher"})
    request = span_with(receiving, deploy.parent)
    assert (request.name, request.kind, request.parent) == ("POST /api/v2/deploy", "server", SPAN)
    assert request.trace_id == deploy.trace_id == f"{OTHER[:-1]}9"
    phases = [span.name for span in receiving.spans if span.parent == deploy.span_id]
    assert [name for name in phases if name in {"spawn", "handshake"}] == ["spawn", "handshake"]
    assert not deploy.failed

    traced.execute("crasher", "tools/call", {"name": "exit", "arguments": {}})
    restart = wait_named(receiving, "restart", **{"instance.name": "crasher"})
    assert (restart.parent, restart.links) == ("", (deploy.span_id,))
    assert restart.trace_id != deploy.trace_id


def test_a_start_that_fails_is_a_span_that_failed(traced: Plane, receiving: Receiver) -> None:
    body = {"name": "broken", "source_type": "mcp_config", "mcp_config": {"command": "false"}}
    traced.request("POST", "/api/v2/deploy?wait=60", json=body)

    assert wait_named(receiving, "deploy", **{"instance.name": "broken"}).failed


def test_a_stranger_makes_no_span(traced: Plane, receiving: Receiver) -> None:
    trace = f"{OTHER[:-1]}b"
    headers = {"traceparent": f"00-{trace}-{SPAN}-01", "Authorization": "Bearer wrong"}
    for path in ("/mcp/legacy/execute", "/mcp/legacy", "/api/v2/deploy"):
        assert traced.request("POST", path, json={"method": "ping"}, headers=headers).status_code == 401
    span_with(receiving, told(traced, "legacy", ASKED)["_meta"]["traceparent"].split("-")[2])

    assert not [span for span in receiving.spans if span.trace_id == trace]


def test_the_page_of_metrics_counts_spans(traced: Plane, receiving: Receiver) -> None:
    told(traced, "legacy", ASKED)
    wait_until(lambda: receiving.spans, ARRIVE_S, "a span")
    page = traced.request("GET", "/metrics").text

    assert re.search(r'^corral_spans_total\{outcome="exported"\} [1-9]', page, re.MULTILINE)
    assert 'corral_spans_total{outcome="dropped"} 0' in page


def test_every_series_of_a_real_page_is_described(traced: Plane) -> None:
    page = traced.request("GET", "/metrics").text
    described = (ROOT / "docs/reference/metrics.md").read_text()

    assert [name for name in re.findall(r"^# TYPE (\S+)", page, re.MULTILINE) if f"| `{name}` |" not in described] == []


# -- the log


def test_a_log_for_machines_is_json_from_the_first_line_to_the_last() -> None:
    with open_plane(LOG_FORMAT="json") as plane:
        plane.settings = {**plane.settings, "LOG_DIR": str(plane.folder / "logs")}
        plane.start()
        plane.deploy("echo")
        assert plane.stop() == 0
        lines = [json.loads(line) for line in plane.log.splitlines()]
        kept = (plane.folder / "logs/corral.log").read_text()

        assert lines
        assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
        assert [json.loads(line) for line in kept.splitlines()] == lines
        assert plane.token not in plane.log
