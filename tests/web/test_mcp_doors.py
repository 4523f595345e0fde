"""`/mcp/{ref}` through both doors: what a client sees of an endpoint's answers, and what the endpoint sees of its client."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from controlplane.model import Role
from controlplane.web import asgi_exchange, door, hot, hot_wire, hypercorn_server
from controlplane.web.asgi_routes import match
from controlplane.web.hot_head import PlainHead, parse_head
from controlplane.web.mcp.outlet import ClientLeft
from controlplane.web.request import Head
from tests.web.fakes import MEMORY_ID, TOKENS, Client, request, running
from tests.web.fakes_mcp import endpoint_of, make_mcp_services

if TYPE_CHECKING:
    from controlplane.web.services import Services
    from tests.web.fakes import Reply, Server

ECHO = b'{"method":"echo","id":7,"params":{"text":"hello"}}'


@pytest.fixture
def services(settings: dict[str, Any]) -> Services:
    return make_mcp_services(**settings)


@pytest.fixture
def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every deadline of a connection is over soon."""
    for module in (hot, hypercorn_server):
        monkeypatch.setattr(module, "HEAD_S", 0.3)
        monkeypatch.setattr(module, "IDLE_S", 0.6)
    for module in (hot_wire, hypercorn_server):
        monkeypatch.setattr(module, "WRITE_STALL_S", 0.3)
    monkeypatch.setattr(hot_wire, "BODY_S", 0.3)
    monkeypatch.setattr(hypercorn_server, "BODY_STALL_S", 0.3)
    monkeypatch.setattr(door, "TICK_S", 0.05)


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (door, asgi_exchange):
        monkeypatch.setattr(module, "GONE_GRACE_S", 0.1)
    monkeypatch.setattr(door, "TICK_S", 0.05)


def post(method: str = "echo", *, path: str = "/mcp/memory", **more: Any) -> bytes:
    more.setdefault("body", json.dumps({"jsonrpc": "2.0", "id": 7, "method": method, "params": {"a": 1}}).encode())
    return request(path=path, **more)


async def ask(server: Server, data: bytes) -> Reply:
    with trio.fail_after(10):
        return await (await server.connect()).ask(data)


async def streaming(server: Server, method: str) -> Client:
    """A client whose request waits in the endpoint."""
    client = await server.connect()
    await client.send(post(method))
    await endpoint_of(server.services).waiting.wait()
    return client


# -- whole answers


async def test_a_message_is_answered_by_the_endpoint(server: Server, hot: bool) -> None:
    with trio.fail_after(10):
        client = await server.connect()
        reply = await client.ask(post(X_Request_Id="mine", Accept="application/json, text/event-stream"))

        assert reply.status == 200
        assert reply.headers["content-type"] == "application/json"
        assert int(reply.headers["content-length"]) == len(reply.body)
        assert reply.headers["x-request-id"] == "mine"
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "date" in reply.headers
        assert reply.json() == {"jsonrpc": "2.0", "id": 7, "result": {"a": 1}}
        assert (await client.ask(post())).status == 200, "the connection is kept"

    assert server.services.meters.hot == (2 if hot else 0)
    assert server.services.meters.requests == {("mcp", 200): 2}


@pytest.mark.parametrize(("method", "status"), [("accepted", 202), ("empty", 204)])
async def test_an_answer_may_have_no_body(server: Server, method: str, status: int) -> None:
    with trio.fail_after(10):
        client = await server.connect()
        for _ in range(2):
            reply = await client.ask(post(method))
            assert (reply.status, reply.body) == (status, b"")
            assert "content-type" not in reply.headers
            assert reply.headers.get("content-length") == ("0" if status == 202 else None)
        assert (await client.ask(post())).status == 200


async def test_an_answer_may_have_a_status_and_fields_of_its_own(server: Server) -> None:
    reply = await ask(server, post("initialize"))
    assert (reply.status, reply.headers["mcp-session-id"]) == (200, "abc")

    reply = await ask(server, post("refuse"))
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert reply.headers["content-type"] == "application/json"
    assert reply.json()["error"]["code"] == -32600


async def test_the_platforms_own_failures_are_problems(server: Server) -> None:
    reply = await ask(server, post("unavailable"))
    assert (reply.status, reply.json()["code"]) == (503, "instance_unavailable")
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.headers["retry-after"] == "3"


@pytest.mark.parametrize("method", ["bug", "nothing", "unbegun"])
async def test_a_bug_is_an_answer_that_tells_nothing(server: Server, method: str) -> None:
    reply = await ask(server, post(method))
    assert (reply.status, reply.json()["code"]) == (500, "internal")
    assert b"/internal/path" not in reply.body


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (post(token=None), 401),
        (post(token="corral_nonsense"), 401),
        (post(token=TOKENS[Role.VIEWER]), 403),
        (post(host="evil.example"), 421),
        (post(Origin="https://evil.example"), 403),
        (post(content_type="text/plain"), 415),
        (post(path="/mcp/nothing"), 404),
        (post(path="/mcp/bob/files"), 404),
        (request(path="/mcp/memory", body=b"x").replace(b"Length: 1", b"Length: 99999999"), 413),
    ],
)
async def test_who_may_not_is_told_so_by_a_problem(server: Server, data: bytes, status: int) -> None:
    reply = await ask(server, data)
    assert reply.status == status
    assert reply.headers["content-type"] == "application/problem+json"
    assert endpoint_of(server.services).heads == []


@pytest.mark.parametrize("path", ["/mcp/memory", f"/mcp/{MEMORY_ID}", "/mcp/alice/memory", "/mcp/alice%2Fmemory"])
async def test_the_instance_may_be_named_in_each_way(server: Server, path: str) -> None:
    assert (await ask(server, post(path=path))).status == 200


class TestRateLimit:
    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        return {"rate_limit_rps": 2}

    async def test_messages_count_like_calls(self, server: Server) -> None:
        with trio.fail_after(10):
            client = await server.connect()
            statuses = [(await client.ask(post())).status for _ in range(4)]
        assert statuses[:2] == [200, 200]
        assert 429 in statuses


async def test_the_same_head_on_a_connection_is_the_same_object(server: Server, hot: bool) -> None:
    with trio.fail_after(10):
        client = await server.connect()
        for body in (ECHO, ECHO.replace(b"hello", b"world"), ECHO + b" "):
            assert (await client.ask(post(body=body))).status == 200
    first, second, third = endpoint_of(server.services).heads
    assert (first is second) == hot
    assert second is not third


async def test_calls_messages_and_streams_share_a_connection(server: Server, hot: bool) -> None:
    execute = request(body=b'{"method":"echo"}')
    with trio.fail_after(10):
        client = await server.connect()
        await client.send(execute + post() + post("accepted") + execute + post("initialize"))
        assert [(await client.reply()).status for _ in range(5)] == [200, 200, 202, 200, 200]
        for _ in range(2):
            await client.send(post("stream"))
            assert [await client.frame() for _ in range(4)] == [
                b"id: 0\ndata: {}",
                b"id: 1\ndata: {}",
                b"id: 2\ndata: {}",
                None,
            ]
            assert (await client.ask(execute)).status == 200
    assert server.services.meters.requests == {("execute", 200): 4, ("mcp", 200): 4, ("mcp", 202): 1}
    assert server.services.meters.hot == (9 if hot else 0)


async def test_a_request_may_come_in_pieces(server: Server) -> None:
    with trio.fail_after(20):
        client = await server.connect()
        for byte in post():
            await client.send(bytes([byte]))
        assert (await client.reply()).status == 200


# -- streams


async def test_a_stream_has_the_fields_of_one(server: Server) -> None:
    with trio.fail_after(10):
        client = await server.connect()
        await client.send(post("stream", X_Request_Id="mine"))
        head = await client.head()
        assert head.status == 200
        assert head.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert head.headers["x-accel-buffering"] == "no"
        assert head.headers["cache-control"] == "no-store"
        assert head.headers["transfer-encoding"] == "chunked"
        assert head.headers["mcp-session-id"] == "abc"
        assert head.headers["x-request-id"] == "mine"
        assert "date" in head.headers
        assert "content-length" not in head.headers


async def test_a_stream_that_the_endpoint_left_open_is_ended_in_order(server: Server) -> None:
    with trio.fail_after(10):
        client = await server.connect()
        await client.send(post("unended"))
        assert [await client.frame() for _ in range(3)] == [b"data: 1", b"data: 2", None]
        assert (await client.ask(post())).status == 200


async def test_a_stream_whose_endpoint_fails_is_cut_short(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with trio.fail_after(10):
        client = await server.connect()
        await client.send(post("broken"))
        seen = b""
        while data := await client.stream.receive_some(65536):
            seen += data
    assert seen.endswith(b"data: 1\n\n\r\n"), "no last chunk: the client must see that something is missing"
    assert "incident" in caplog.text


async def test_a_stream_that_is_begun_twice_is_cut_short(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with trio.fail_after(10):
        client = await server.connect()
        await client.send(post("twice"))
        seen = b""
        while data := await client.stream.receive_some(65536):
            seen += data
    assert seen.count(b"HTTP/1.1 200") == 1
    assert not seen.endswith(b"0\r\n\r\n")
    assert "begins once" in caplog.text


async def test_a_large_stream_passes_whole_to_a_slow_reader(server: Server) -> None:
    with trio.fail_after(20):
        client = await server.connect()
        await client.send(post("large"))
        sizes = []
        while (frame := await client.frame()) is not None:
            sizes.append(len(frame))
        assert sizes == [6 + 2**20] * 4
        assert (await client.ask(post())).status == 200


async def test_who_asked_to_close_the_connection_gets_its_stream_first(server: Server) -> None:
    with trio.fail_after(10):
        client = await server.connect()
        await client.send(post("stream", Connection="close"))
        assert (await client.head()).headers["connection"] == "close"
        assert [await client.frame() for _ in range(4)][3] is None
        assert await client.is_closed()


@pytest.mark.parametrize("method", ["keep", "keep_stream"])
async def test_an_outlet_that_outlives_its_request_takes_nothing(server: Server, method: str) -> None:
    with trio.fail_after(10):
        client = await server.connect()
        await client.send(post(method))
        if method == "keep":
            assert (await client.reply()).status == 202
        else:
            while await client.frame() is not None:
                pass
        assert (await client.ask(post())).status == 200
        kept = endpoint_of(server.services).kept
        assert kept is not None
        with pytest.raises(ClientLeft):
            await kept.send(b"data: stray\n\n")
        with pytest.raises(ClientLeft):
            await kept.begin()
        await kept.end()
        assert (await client.ask(post())).status == 200


# -- clients that are slow, quiet, or gone


@pytest.mark.usefixtures("short_deadlines")
async def test_a_quiet_stream_may_last(server: Server) -> None:
    with trio.fail_after(10):
        client = await streaming(server, "quiet")
        assert await client.frame() == b"data: begun"
        with trio.move_on_after(1.2):
            await endpoint_of(server.services).ended.wait()
        endpoint_of(server.services).release.set()
        assert await client.frame() == b"data: released"
        assert await client.frame() is None


@pytest.mark.usefixtures("short_deadlines")
async def test_a_client_that_takes_nothing_is_cut(server: Server) -> None:
    with trio.fail_after(20):
        await streaming(server, "flood")
        await endpoint_of(server.services).ended.wait()
        while server.door.connections:
            await trio.testing.wait_all_tasks_blocked(0.01)


@pytest.mark.parametrize("method", ["quiet", "wait"])
async def test_the_endpoint_learns_soon_that_its_client_left(server: Server, method: str) -> None:
    with trio.fail_after(10):
        client = await streaming(server, method)
        client.stream.socket.close()
        with trio.fail_after(5):  # half a second is the aim; this is a guard against hanging
            await endpoint_of(server.services).ended.wait()
        assert endpoint_of(server.services).how == "gone"
        while server.door.connections:
            await trio.testing.wait_all_tasks_blocked(0.01)


async def test_no_answer_to_a_client_that_has_left_is_no_fault(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with trio.fail_after(10):
        client = await streaming(server, "shrug")
        client.stream.socket.close()
        await endpoint_of(server.services).ended.wait()
        while server.door.connections:
            await trio.testing.wait_all_tasks_blocked(0.01)
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize("method", ["heedless", "heedless_stream"])
async def test_an_endpoint_that_does_not_ask_is_cancelled(server: Server, method: str) -> None:
    with trio.fail_after(10):
        client = await streaming(server, method)
        client.stream.socket.close()
        await endpoint_of(server.services).ended.wait()
        assert endpoint_of(server.services).how == "cancelled"


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize(("method", "how"), [("outlive", "released"), ("outlive_stream", "left")])
async def test_a_request_may_outlive_its_client(server: Server, method: str, how: str) -> None:
    endpoint = endpoint_of(server.services)
    with trio.fail_after(10):
        client = await streaming(server, method)
        client.stream.socket.close()
        with trio.move_on_after(1):
            await endpoint.ended.wait()
        assert not endpoint.ended.is_set()
        endpoint.release.set()
        await endpoint.ended.wait()
        assert endpoint.how == how
        while server.door.connections:
            await trio.testing.wait_all_tasks_blocked(0.01)


# -- the end of streams


async def test_a_stream_ends_in_order_when_its_token_is_revoked(server: Server) -> None:
    with trio.fail_after(10):
        client = await streaming(server, "quiet")
        assert await client.frame() == b"data: begun"
        server.services.tokens.load([], [])
        assert await client.frame() is None
        await endpoint_of(server.services).ended.wait()
        assert endpoint_of(server.services).how == "cancelled"


async def test_a_hot_stream_whose_reader_stalls_ends_at_once_when_its_token_is_revoked() -> None:
    async with running(make_mcp_services(), hot=True) as server:
        with trio.fail_after(10):
            await streaming(server, "flood")
            [connection] = server.door.connections
            assert isinstance(connection, door.HotConnection)
            while not connection.torn:  # until the socket's buffers are full
                await trio.testing.wait_all_tasks_blocked(0.01)
            server.services.tokens.load([], [])
            await endpoint_of(server.services).ended.wait()
            while server.door.connections:
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert endpoint_of(server.services).how == "cancelled"


async def test_a_token_that_is_revoked_during_the_call_opens_no_stream(server: Server) -> None:
    with trio.fail_after(10):
        client = await streaming(server, "wait")
        server.services.tokens.load([], [])
        endpoint_of(server.services).release.set()
        assert (await client.reply()).status == 200, "the answer of a call is no stream"


async def test_streams_that_nobody_waits_on_end_at_once_when_it_drains(server: Server) -> None:
    with trio.fail_after(10):
        client = await streaming(server, "quiet")
        assert await client.frame() == b"data: begun"
        began = trio.current_time()
        await server.door.drain()
        assert trio.current_time() - began < 2
        assert await client.frame() == b"data: released"
        assert await client.frame() is None
        assert await client.is_closed()


async def test_a_stream_that_outlasts_the_drain_ends_with_it(server: Server, hot: bool) -> None:
    with trio.fail_after(10):
        client = await streaming(server, "heedless_stream")
        await server.door.drain(timeout_s=0.2)
        await endpoint_of(server.services).ended.wait()
        seen = b""
        while data := await client.stream.receive_some(65536):
            seen += data
    assert seen.startswith(b"HTTP/1.1 200 ")
    assert seen.endswith(b"\r\n\r\n0\r\n\r\n") or not hot


async def test_a_message_that_outlasts_the_drain_is_told_so(server: Server, hot: bool) -> None:
    with trio.fail_after(10):
        client = await streaming(server, "heedless")
        await server.door.drain(timeout_s=0.2)
        if hot:
            reply = await client.reply()
            assert (reply.status, reply.json()["code"]) == (503, "shutting_down")
        assert await client.is_closed()


# -- the other methods and paths


async def test_get_opens_the_stream_of_a_session(server: Server) -> None:
    with trio.fail_after(10):
        client = await server.connect()
        await client.send(request("GET", "/mcp/memory", Mcp_Session_Id="abc", Accept="text/event-stream"))
        head = await client.head()
        assert (head.status, head.headers["x-accel-buffering"]) == (200, "no")
        assert await client.frame() == b"data: begun"
        client.stream.socket.close()
        await endpoint_of(server.services).ended.wait()
        assert endpoint_of(server.services).how == "gone"


async def test_get_may_be_refused_by_the_endpoint(server: Server) -> None:
    reply = await ask(server, request("GET", "/mcp/memory", Accept="text/event-stream"))
    assert (reply.status, reply.headers["allow"], reply.json()["error"]["code"]) == (405, "POST", -32600)


@pytest.mark.parametrize("token", [None, TOKENS[Role.CALLER]])
async def test_a_browser_is_told_what_the_url_is(server: Server, token: str | None) -> None:
    reply = await ask(
        server, request("GET", "/mcp/memory", token=token, Accept="text/html,application/xml;q=0.9,*/*;q=0.8")
    )
    assert (reply.status, reply.json()["code"]) == (406, "not_acceptable")
    assert "MCP endpoint" in reply.json()["detail"]


@pytest.mark.parametrize(
    ("path", "method", "allow"),
    [
        ("/mcp/memory", "HEAD", "POST, GET, DELETE, OPTIONS"),
        ("/mcp/memory", "PUT", "POST, GET, DELETE, OPTIONS"),
        ("/mcp/memory", "PATCH", "POST, GET, DELETE, OPTIONS"),
        ("/mcp/memory/sse", "POST", "GET, OPTIONS"),
        ("/mcp/memory/sse", "HEAD", "GET, OPTIONS"),
        ("/mcp/memory/messages", "GET", "POST, OPTIONS"),
        ("/mcp/memory/messages", "DELETE", "POST, OPTIONS"),
        ("/mcp/memory/execute", "DELETE", "POST, OPTIONS"),
    ],
)
async def test_other_methods_are_a_405_that_says_which_there_are(
    server: Server, path: str, method: str, allow: str
) -> None:
    with trio.fail_after(10):
        client = await server.connect()
        await client.send(request(method, path))
        head = await client.head()
        assert (head.status, head.headers["allow"]) == (405, allow)
        if method != "HEAD":
            client = await server.connect()
            options = await client.ask(request("OPTIONS", path, token=None))
            assert (options.status, options.headers["allow"]) == (204, allow)


async def test_a_delete_of_the_protocol_is_the_endpoints_and_a_plain_one_goes_on(server: Server) -> None:
    for fields, status in (({"Mcp_Session_Id": "abc"}, 200), ({"MCP_Protocol_Version": "2026-07-28"}, 404)):
        reply = await ask(server, request("DELETE", "/mcp/memory", **fields))
        assert (reply.status, reply.json()["error"]["code"]) == (status, -32600)
        assert (await ask(server, request("DELETE", "/mcp/nothing", **fields))).json()["code"] == "not_found"
    plain = await ask(server, request("DELETE", "/mcp/memory"))
    assert plain.body == b"fine", "the application behind removes the instance"


async def test_the_two_old_paths_reach_the_endpoint(server: Server) -> None:
    with trio.fail_after(10):
        client = await server.connect()
        await client.send(request("GET", "/mcp/memory/sse"))
        assert await client.frame() == b"event: endpoint\ndata: /mcp/memory/messages?session=abc"
    for query, status in (("?session=abc", 202), ("?session=abd", 404)):
        reply = await ask(server, post(path=f"/mcp/memory/messages{query}"))
        assert (reply.status, reply.body) == (status, b"")
    for method, path in (("GET", "/mcp/nothing/sse"), ("POST", "/mcp/nothing/messages")):
        body = ECHO if method == "POST" else None
        assert (await ask(server, request(method, path, body=body))).json()["code"] == "not_found"
        assert (await ask(server, request(method, path, body=body, token=None))).status == 401


PATHS = {
    "/mcp/memory": ("mcp", "memory"),
    "/mcp/alice/memory": ("mcp", "alice/memory"),
    "/mcp/memory/execute": ("execute", "memory"),
    "/mcp/alice/memory/execute": ("execute", "alice/memory"),
    "/mcp/memory/stream": ("stream", "memory"),
    "/mcp/memory/sse": ("sse", "memory"),
    "/mcp/alice/memory/sse": ("sse", "alice/memory"),
    "/mcp/memory/messages": ("messages", "memory"),
    # An instance may be called like a route; then its owner does not stand before it, or one more step after it.
    "/mcp/sse": ("mcp", "sse"),
    "/mcp/sse/sse": ("sse", "sse"),
    "/mcp/execute": ("mcp", "execute"),
    "/mcp/alice/sse": ("sse", "alice"),
    "/mcp/alice/sse/sse": ("sse", "alice/sse"),
    "/mcp/alice/execute/execute": ("execute", "alice/execute"),
    "/mcp/alice/sse2": ("mcp", "alice/sse2"),
    "/mcp/alice/executed": ("mcp", "alice/executed"),
    "/mcp/a/b/c": None,
    "/mcp/a/b/execute/execute": None,
    "/mcp/": None,
    "/mcp": None,
    "/mcp//": None,
    "/mcp/memory/": None,
    "/mcp//memory": None,
    "/mcp/alice/sse\n": ("mcp", "alice/sse\n"),
}


@pytest.mark.parametrize("path", PATHS)
def test_both_doors_read_a_path_alike(path: str) -> None:
    found = match(Head.of("POST", path, b"", [], ""))
    assert found == PATHS[path]
    plain = parse_head(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode())
    if isinstance(plain, PlainHead):
        assert (plain.route, plain.ref) == found
        assert plain.path == path
    else:
        assert found is None or found[0] not in {"execute", "mcp"} or "\n" in path


# -- pages of other origins


class TestCors:
    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        return {"allowed_origins": ("https://app.example",)}

    async def test_a_preflight_allows_what_mcp_clients_send(self, server: Server) -> None:
        wanted = "content-type, mcp-method, Mcp-Param-Region, mcp-param-zone-2, x-other, mcp-param-b@d"
        reply = await ask(
            server,
            request(
                "OPTIONS",
                "/mcp/memory",
                token=None,
                Origin="https://app.example",
                Access_Control_Request_Method="POST",
                Access_Control_Request_Headers=wanted,
            ),
        )
        assert reply.status == 204
        assert reply.headers["access-control-allow-origin"] == "https://app.example"
        assert "DELETE" in reply.headers["access-control-allow-methods"]
        allowed = {name.strip() for name in reply.headers["access-control-allow-headers"].split(",")}
        assert {"mcp-method", "mcp-name", "mcp-protocol-version", "mcp-session-id", "last-event-id"} <= allowed
        assert {"mcp-param-region", "mcp-param-zone-2"} <= allowed
        assert not {"x-other", "mcp-param-b@d"} & allowed

    async def test_answers_and_streams_expose_the_session(self, server: Server) -> None:
        for method in ("initialize", "stream"):
            with trio.fail_after(10):
                client = await server.connect()
                await client.send(post(method, Origin="https://app.example"))
                head = await client.head()
            assert head.headers["access-control-allow-origin"] == "https://app.example"
            assert "mcp-session-id" in head.headers["access-control-expose-headers"]
            assert head.headers["vary"] == "Origin"

    async def test_a_foreign_preflight_is_allowed_nothing(self, server: Server) -> None:
        reply = await ask(
            server,
            request(
                "OPTIONS",
                "/mcp/memory",
                token=None,
                Origin="https://evil.example",
                Access_Control_Request_Method="POST",
                Access_Control_Request_Headers="mcp-param-region",
            ),
        )
        assert reply.status == 403
        assert "access-control-allow-headers" not in reply.headers
