"""What passes through nginx: header fields, ids, streams; and what is written down about it."""

from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING

import httpx
import pytest

from controlplane.web.request import REQUEST_ID
from tests.nginx.front import ANSWER_LIMIT_S, Front
from tests.nginx.upstream import PATIENCE_S, Taken, Upstream

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.needs("nginx")

SPOKEN = {
    "Authorization": "Bearer s3cret-token",
    "Mcp-Session-Id": "s3cret-session",
    "MCP-Protocol-Version": "2025-11-25",
    "Mcp-Method": "tools/call",
    "Mcp-Name": "echo",
    "Mcp-Param-Region": "eu",
    "Last-Event-ID": "a-12",
    "Idempotency-Key": "k1",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "a=b",
    "Origin": "https://example.org",
    "Accept": "text/event-stream",
}


def test_what_clients_say_reaches_corral(front: Front, upstream: Upstream) -> None:
    front.get("/mcp/mine", headers=SPOKEN)

    fields = upstream.taken[0].fields
    assert {name: fields[name.lower()] for name in SPOKEN} == SPOKEN


def test_the_target_reaches_corral_as_it_was_written(front: Front, upstream: Upstream) -> None:
    target = "/instances/a%2Fb/../c//d/logs?follow=1&x=%20"

    front.raw(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())

    assert upstream.taken[0].target == target


def test_where_a_request_came_from_is_what_nginx_saw_and_not_what_a_stranger_says(
    front: Front, upstream: Upstream
) -> None:
    lies = {
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Port": "1",
        "X-Real-IP": "203.0.113.9",
        "Forwarded": "for=203.0.113.9",
    }
    front.get("/instances", headers={**lies, "Host": "corral.example.org"})

    fields = upstream.taken[0].fields
    assert fields["host"] == fields["x-forwarded-host"] == "corral.example.org"
    assert (fields["x-forwarded-for"], fields["x-forwarded-proto"]) == ("127.0.0.1", "http")
    assert fields.keys().isdisjoint({"forwarded", "x-real-ip", "x-forwarded-port"})


@pytest.mark.parametrize("sane", ["a", "Request-1.2_3", "x" * 64])
def test_a_sane_request_id_is_kept(front: Front, upstream: Upstream, sane: str) -> None:
    answer = front.get("/health", headers={"X-Request-Id": sane})

    assert answer.headers.get_list("x-request-id") == [sane]
    assert upstream.taken[0].fields["x-request-id"] == sane
    assert front.log(sane)["status"] == 200


@pytest.mark.parametrize("wild", [None, "", "a b", "x" * 65, 'a"b', "a,b"])
def test_another_request_id_is_replaced_by_a_new_one(front: Front, upstream: Upstream, wild: str | None) -> None:
    answer = front.get("/health", headers={} if wild is None else {"X-Request-Id": wild})

    (made,) = answer.headers.get_list("x-request-id")
    assert made != wild
    assert REQUEST_ID.fullmatch(made.encode())
    assert upstream.taken[0].fields["x-request-id"] == made
    assert front.log(made)["status"] == 200


def test_the_first_event_comes_at_once_and_the_stream_stays_open(fronts: Callable[..., Front]) -> None:
    more = threading.Event()

    def stream(_taken: Taken, sock: socket.socket) -> bool:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        sock.sendall(b"9\r\ndata: 1\n\n\r\n")
        more.wait(PATIENCE_S)
        sock.sendall(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")
        return True

    upstream = Upstream(stream)
    try:
        front = fronts([upstream.port])
        for path in ("/mcp/mine/stream", "/mcp/mine", "/events", "/instances/mine/logs?follow=true"):
            more.clear()
            with httpx.stream("GET", front.url + path, timeout=ANSWER_LIMIT_S) as answer:
                pieces = answer.iter_raw()
                assert next(pieces) == b"data: 1\n\n"
                more.set()
                assert next(pieces) == b"data: 2\n\n"
    finally:
        more.set()
        upstream.close()


def test_a_client_that_leaves_a_stream_is_noticed_by_corral(fronts: Callable[..., Front]) -> None:
    left = threading.Event()

    def stream(_taken: Taken, sock: socket.socket) -> bool:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        if sock.recv(1) == b"":
            left.set()
        return False

    upstream = Upstream(stream)
    try:
        with httpx.stream("GET", f"{fronts([upstream.port]).url}/events", timeout=ANSWER_LIMIT_S) as answer:
            assert next(answer.iter_raw()) == b"data: 1\n\n"
        assert left.wait(PATIENCE_S)
    finally:
        upstream.close()


def test_the_log_is_one_json_object_a_line_without_secrets(front: Front) -> None:
    front.get("/health?token=s3cret-query", headers=SPOKEN | {"X-Request-Id": "one", "User-Agent": 'a "quoted"\tone'})
    front.raw(b"nonsense s3cret-line\r\n\r\n")
    front.raw(b"GET /x?s3cret=1 HTTP/1.1\r\nHost: s\r\nX-Request-Id: two\r\nX: " + b"a" * 9000 + b"\r\n\r\n")

    line = front.log("one")
    assert (line["path"], line["status"], line["upstream_status"], line["pool"]) == (
        "/health",
        200,
        "200",
        "everything",
    )
    assert line["client"] == "127.0.0.1"
    assert line["user_agent"] == 'a "quoted"\tone'
    assert line["took_s"] >= float(line["upstream_took_s"]) - 0.01
    assert front.log("two")["status"] == 431
    assert [json.loads(each)["status"] for each in front.log_text.splitlines()] == [200, 400, 431]
    assert "s3cret" not in front.log_text


def test_answers_carry_security_fields_and_no_version(front: Front) -> None:
    headers = front.get("/health").headers

    assert headers["server"] == "nginx"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "strict-transport-security" not in headers, "that is for TLS"


def test_what_corral_says_of_these_itself_is_not_said_twice(fronts: Callable[..., Front]) -> None:
    said = {
        "content-security-policy": "script-src 'sha256-x'",
        "x-frame-options": "SAMEORIGIN",
        "x-content-type-options": "nosniff",
        "referrer-policy": "origin",
        "cache-control": "no-cache",
        "x-request-id": "ignored",
    }

    def page(_taken: Taken, sock: socket.socket) -> bool:
        fields = "".join(f"{name}: {value}\r\n" for name, value in said.items())
        sock.sendall(f"HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n".encode())
        return True

    upstream = Upstream(page)
    try:
        headers = fronts([upstream.port]).get("/docs", headers={"X-Request-Id": "mine"}).headers
        assert {name: headers.get_list(name) for name in said} == {
            name: [value] for name, value in (said | {"x-request-id": "mine"}).items()
        }
    finally:
        upstream.close()


def test_an_acme_challenge_is_answered_from_the_webroot(front: Front, upstream: Upstream) -> None:
    folder = front.folder / "acme" / ".well-known" / "acme-challenge"
    folder.mkdir(parents=True)
    (folder / "token1").write_text("the proof")

    answer = front.get("/.well-known/acme-challenge/token1")

    assert (answer.status_code, answer.text, answer.headers["content-type"]) == (200, "the proof", "text/plain")
    assert upstream.taken == []
