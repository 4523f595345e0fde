"""Everything that nginx answers by itself is a problem document like Corral's."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import httpx
import pytest

from controlplane.errors import PROBLEMS
from tests.nginx.front import Front, assert_problem
from tests.nginx.upstream import Taken, Upstream

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.needs("nginx")


def parsed(raw: bytes) -> httpx.Response:
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    return httpx.Response(int(first.split()[1]), headers=fields, content=body)


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"nonsense\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "bad_request"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400, "bad_request"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "bad_request"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "uri_too_long"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431, "header_fields_too_large"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: %b\r\n" % (b"a" * 8000) * 5 + b"\r\n", 431, "header_fields_too_large"),
        (b"TRACE / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 405, "method_not_allowed"),
        (b"GET /.problem HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 404, "not_found"),
        (b"GET /.well-known/acme-challenge/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 404, "not_found"),
    ],
)
def test_what_is_not_passed_on_is_a_problem(front: Front, request_bytes: bytes, status: int, code: str) -> None:
    assert_problem(parsed(front.raw(request_bytes)), status, code)


def test_a_control_plane_that_is_away_is_a_502_that_says_when_to_come_again(front: Front, upstream: Upstream) -> None:
    upstream.close()

    for answer in (front.get("/instances"), front.post("/mcp/mine/execute", json={})):
        assert_problem(answer, 502, "bad_gateway")
        assert answer.headers["retry-after"] == "2"


def test_a_control_plane_that_does_not_answer_is_a_504(fronts: Callable[..., Front], upstream: Upstream) -> None:
    upstream.answer = lambda _taken, _sock: True
    front = fronts([upstream.port])
    text = (front.files / "site.conf").read_text()
    (front.files / "site.conf").write_text(text.replace("proxy_read_timeout 2h;", "proxy_read_timeout 100ms;"))
    assert front.run("-s", "reload").returncode == 0

    def answer() -> httpx.Response:
        """Of the configuration that is in force after the reload, whenever that is."""
        while True:
            try:
                return httpx.post(f"{front.url}/mcp/mine", json={}, timeout=2)
            except httpx.ReadTimeout:
                continue

    found = answer()
    document = assert_problem(found, 504, "gateway_timeout")
    assert "not known" in document["detail"]
    assert found.headers["retry-after"] == "5"


def test_the_problem_of_a_control_plane_passes_unchanged(fronts: Callable[..., Front]) -> None:
    body = b'{"type":"/problems/rate_limited","detail":"Corral\'s own"}'

    def refuse(_taken: Taken, sock: socket.socket) -> bool:
        fields = b"Content-Type: application/problem+json\r\nRetry-After: 7\r\nCache-Control: no-store\r\n"
        sock.sendall(b"HTTP/1.1 503 Busy\r\n%bContent-Length: %d\r\n\r\n%b" % (fields, len(body), body))
        return True

    upstream = Upstream(refuse)
    try:
        found = fronts([upstream.port]).get("/instances")
        assert (found.status_code, found.content) == (503, body)
        assert found.headers.get_list("retry-after") == ["7"]
        assert found.headers.get_list("cache-control") == ["no-store"]
    finally:
        upstream.close()


def test_titles_and_pages_of_problems_that_corral_has_as_well_are_its_own(front: Front) -> None:
    text = (front.files / "problems.conf").read_text()

    for code in ("not_found", "method_not_allowed", "payload_too_large", "rate_limited"):
        assert f"/problems/{code};" in text
        assert json.dumps(PROBLEMS[code].title) in text
