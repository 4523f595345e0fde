"""A small HTTP server that speaks the API's documents, scripted by a test: what to answer, and what was asked."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from attrs import define, field, frozen

TOKEN = "test-token-0123456789abcdef0123456789abcdef"
GATE_TIMEOUT_S = 20.0


@frozen
class Asked:
    """One request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@frozen
class Reply:
    """One answer; with a `gate` it waits for it: before an answer, and in a stream before the `last` of it."""

    status: int = 200
    body: bytes = b"{}"
    content_type: str = "application/json"
    headers: dict[str, str] = field(factory=dict)
    gate: threading.Event | None = None
    last: bytes = b""


def document(content: Any, status: int = 200, **more: Any) -> Reply:
    return Reply(status, json.dumps(content).encode(), **more)


def problem(status: int, code: str, **members: Any) -> Reply:
    content = {"type": f"/problems/{code}", "title": f"title of {code}", "status": status, "code": code}
    content |= {"detail": f"detail of {code}", "request_id": "req-1", **members}
    headers = {"Retry-After": "1"} if status in (429, 503) else {}
    return Reply(status, json.dumps(content).encode(), "application/problem+json", headers)


def stream(*events: Any, gate: threading.Event | None = None, last: Any = None) -> Reply:
    frames = [
        b"id: e-%d\ndata: %s\n\n" % (at, json.dumps(event).encode()) for at, event in enumerate([*events, last], 1)
    ]
    return Reply(200, b"".join(frames[:-1]), "text/event-stream", {}, gate, frames[-1] if last else b"")


@define
class FakeApi:
    """`answers` maps "METHOD /path" to replies, given in order; the last one is given again and again.

    With `in_turn` each request has a connection of its own, and they are read in the order in which they were opened.
    """

    in_turn: bool = False
    answers: dict[str, list[Reply]] = field(factory=dict)
    asked: list[Asked] = field(factory=list)
    arrived: threading.Condition = field(factory=threading.Condition)
    _server: HTTPServer = field(init=False)

    def __attrs_post_init__(self) -> None:
        kind = _InTurn if self.in_turn else ThreadingHTTPServer
        self._server = kind(("127.0.0.1", 0), _handler(self))
        if isinstance(self._server, ThreadingHTTPServer):
            self._server.daemon_threads = False
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def on(self, request: str, *replies: Reply) -> None:
        self.answers[request] = list(replies)

    def asked_for(self, request: str) -> list[Asked]:
        return [asked for asked in self.asked if f"{asked.method} {asked.path}" == request]

    def wait_for(self, request: str, times: int = 1) -> Asked:
        """Wait until a request has come so many times."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.asked_for(request)) >= times, GATE_TIMEOUT_S), request
        return self.asked_for(request)[-1]

    def close(self) -> None:
        for replies in self.answers.values():
            for reply in replies:
                if reply.gate:
                    reply.gate.set()
        self._server.shutdown()
        self._server.server_close()

    def next_reply(self, asked: Asked) -> Reply:
        with self.arrived:
            self.asked.append(asked)
            self.arrived.notify_all()
            replies = self.answers.get(f"{asked.method} {asked.path}")
            if asked.headers.get("authorization") != f"Bearer {TOKEN}":
                return problem(401, "unauthorized")
            if not replies:
                return problem(404, "not_found")
            return replies.pop(0) if len(replies) > 1 else replies[0]


class _InTurn(HTTPServer):
    request_queue_size = 64  # a connection that did not fit would be opened anew, later than its turn


def _handler(api: FakeApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = api.next_reply(Asked(self.command, parts.path, dict(parse_qsl(parts.query)), headers, body))
            try:
                self.give(reply)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def give(self, reply: Reply) -> None:
            streaming = reply.content_type == "text/event-stream"
            close = streaming or api.in_turn
            if reply.gate and not streaming:
                reply.gate.wait(GATE_TIMEOUT_S)
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.content_type)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if close:
                self.send_header("Connection", "close")
            if not streaming:
                self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)
            if streaming and reply.gate:
                reply.gate.wait(GATE_TIMEOUT_S)
            self.wfile.write(reply.last)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815  (http.server's names)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def instance(name: str = "memory", status: str = "running", **more: Any) -> dict[str, Any]:
    """One instance as the API gives it."""
    return {
        "instance_id": "7f8de0a5-9f0a-4f0e-8f5e-000000000001",
        "name": name,
        "owner": "admin",
        "language": "node",
        "source_type": "mcp_config",
        "status": status,
        "phase": status,
        "desired": "running",
        "created_at": "2026-11-22T10:00:00Z",
        "updated_at": "2026-11-22T10:00:00Z",
        "sse_endpoint": "/mcp/x/stream",
        "api_endpoint": "/mcp/x/execute",
        "mcp_endpoint": "/mcp/x",
        "isolation": "confined",
        "restarts": 0,
        "pid": 4711,
        "uptime_s": 125.0,
        "cpu_percent": 1.25,
        "memory_mb": 84.4,
        "processes": 2,
        "calls": 1234,
        "errors": 0,
        "p50_ms": 0.8,
        "p95_ms": 3.2,
        "labels": {},
        "last_error": None,
        "notes": [],
        **more,
    }


EVIDENCE = {
    "code": "exited",
    "reason": "the process exited with status 1 before its handshake was done",
    "phase": "handshake",
    "at": "2026-11-22T10:00:00Z",
    "incarnation": 1,
    "exit_code": 1,
    "stderr_tail": ["npm error 404 Not Found", "npm error \x1b]0;owned\x07 done"],
    "hint": "check the package name",
}
