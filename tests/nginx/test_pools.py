"""Plain calls have connections to Corral to themselves, as its hot lane lasts for as long as nothing else comes on one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from controlplane.web.hot_head import PlainHead, parse_head
from tests.nginx.front import Front
from tests.nginx.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.needs("nginx")

JSON = {"Content-Type": "application/json"}
MCP = JSON | {"Accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Front, Upstream]]:
    upstream = Upstream()
    front = Front([upstream.port])
    try:
        yield front.start(), upstream
    finally:
        front.close()
        upstream.close()


def pool_of(pair: tuple[Front, Upstream], request: bytes) -> str:
    """Where nginx sent a request. What it sent to the pool of calls must be what the hot lane takes."""
    front, upstream = pair
    before = len(upstream.taken)
    number = f"pool-{before}"
    line, _, rest = request.partition(b"\r\n")
    head = line + b"\r\nHost: localhost\r\nConnection: close\r\nX-Request-Id: " + number.encode() + b"\r\n" + rest
    answer = front.raw(head)
    assert b"HTTP/1.1 200 OK" in answer, answer
    pool = str(front.log(number)["pool"])
    plain = isinstance(parse_head(upstream.taken[before].head), PlainHead)
    assert plain or pool == "everything", upstream.taken[before].head
    return pool


def head(line: str, body: bytes = b"{}", /, **fields: str) -> bytes:
    given = {"Content-Length": str(len(body))} | {name.replace("_", "-"): value for name, value in fields.items()}
    return (
        f"{line} HTTP/1.1\r\n{''.join(f'{name}: {value}{chr(13)}{chr(10)}' for name, value in given.items())}\r\n".encode()
        + body
    )


@pytest.mark.parametrize(
    "request_bytes",
    [
        head("POST /mcp/mine/execute"),
        head("POST /mcp/me/mine/execute"),
        head("POST /mcp/mine"),
        head("POST /mcp/me/mine", Accept="application/json, text/event-stream"),
        head("POST /mcp/0193-ab.c_d", Accept="application/json, text/event-stream", Mcp_Session_Id="x"),
        head("POST /mcp/mine/execute", Accept="*/*"),
        head("POST /mcp/mine/execute", Accept="application/json"),
        head("POST /mcp/mine/execute", Upgrade="h2c", HTTP2_Settings="AAMAAABk"),
        head("POST /mcp/mine/execute", Expect="100-continue"),
        head("POST /mcp/mine/execute", TE="trailers", Trailer="x", Proxy_Connection="keep-alive"),
        head("POST /mcp/mine/execute", bytes(300_000)),
        b"POST /mcp/mine/execute HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        head("POST /mcp/mine/execute", traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ],
)
def test_a_plain_call_goes_to_the_pool_of_calls(pair: tuple[Front, Upstream], request_bytes: bytes) -> None:
    assert pool_of(pair, request_bytes) == "calls"


@pytest.mark.parametrize(
    "request_bytes",
    [
        head("GET /health", b""),
        head("GET /mcp/mine", b""),
        head("DELETE /mcp/mine", b""),
        head("POST /mcp/mine/messages?session=x"),
        head("POST /mcp/mine/messages"),
        head("POST /mcp/me/mine/messages"),
        head("POST /mcp/mine/sse"),
        head("POST /mcp/mine?x=1"),
        head("POST /mcp/m%69ne"),
        head("POST /mcp//mine"),
        head("POST /mcp/.mine"),
        head("POST /mcp/mine/execute/"),
        head("POST /mcp/a/b/c"),
        head("POST /mcp/mine", Origin="http://localhost"),
        head("POST /mcp/mine", Content_Encoding="gzip"),
        head("POST /mcp/mine", Content_Range="bytes 0-1/2"),
        head("POST /mcp/mine", Access_Control_Request_Method="POST"),
        head("POST /mcp/mine/execute", Accept="text/event-stream"),
        head("POST /mcp/mine/execute", Accept="application/json;q=0.1, text/event-stream"),
        head("POST /mcp/mine/execute", Accept="image/png"),
        head("POST /mcp/mine/execute", Accept="application/json;q=0"),
        b"POST /mcp/mine HTTP/1.1\r\n\r\n",
        head("POST /instances/mine/start"),
        head("POST /deploy"),
    ],
)
def test_everything_else_goes_to_the_other_pool(pair: tuple[Front, Upstream], request_bytes: bytes) -> None:
    assert pool_of(pair, request_bytes) == "everything"


def test_the_pools_share_no_connection(pair: tuple[Front, Upstream]) -> None:
    front, upstream = pair
    before = len(upstream.taken)
    with front.client() as client:
        for number in range(20):
            client.post(f"/mcp/server{number}/execute", json={})
            client.get("/health")

    taken = upstream.taken[before:]
    calls = {each.connection for each in taken if each.head.startswith(b"POST")}
    others = {each.connection for each in taken if each.head.startswith(b"GET")}
    assert len(taken) == 40
    assert calls.isdisjoint(others)


def test_connections_to_corral_are_kept(pair: tuple[Front, Upstream]) -> None:
    front, upstream = pair
    taken, connections = len(upstream.taken), upstream.connections
    for _ in range(30):  # each on a connection of its own to nginx
        front.post("/mcp/mine/execute", json={})

    assert len(upstream.taken) - taken == 30
    assert upstream.connections - connections <= 2, "one for each of nginx's processes"
