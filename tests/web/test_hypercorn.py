"""What hostile and clumsy clients send to the other door must never end the server, nor get a 500."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from quart import Response
from quart import request as quart_request
from quart_trio import QuartTrio

from controlplane.web import door, hypercorn_server
from controlplane.web.http1 import PlainHttp1
from tests.web.fakes import make_services, memory, plain_app, request, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controlplane.web.asgi import Receive, Scope, Send
    from tests.web.fakes import Client, Server

ECHO = b'{"method":"echo"}'
WEBSOCKET = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bKdPyn3u98cTfZJSh4TNeQ==\r\n\r\n"
)
H2C = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
)
CALL = request(body=ECHO)
CRAFTED = {
    "websocket and a trailing byte (hypercorn#225)": WEBSOCKET + b"x",
    "websocket without a key": WEBSOCKET.replace(b"Sec-WebSocket-Key: bKdPyn3u98cTfZJSh4TNeQ==\r\n", b""),
    "websocket and bad frames": WEBSOCKET + b"\xff" * 200,
    "websocket to a call": CALL.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
    "the HTTP/2 preface and garbage": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 500,
    "the HTTP/2 preface cut short": b"PRI * HTTP/2.0\r\n\r\n",
    "h2c with bad settings": H2C.replace(b"AAMAAABkAAQAAP__", b"!!!!"),
    "h2c and junk": H2C + b"junk" * 50,
    "a path that is not ASCII": b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an escape that is not UTF-8": b"GET /%ff%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a broken escape": b"GET /%zz%2 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "a huge field": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
    "a thousand fields": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 1000 + b"\r\n",
    "a negative length": CALL.replace(b"Length: 17", b"Length: -1"),
    "two lengths": CALL.replace(b"Length: 17", b"Length: 17\r\nContent-Length: 5"),
    "both framings": CALL.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "both framings, smuggling": b"POST /mcp/memory/execute HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an obscured framing": CALL.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: xchunked\r\n\r\n"),
    "a framing with a space": CALL.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding : chunked\r\n\r\n"),
    "a bad chunk": b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a huge chunk size": b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"f" * 200
    + b"\r\n",
    "expecting to continue, and gone": b"POST /echo HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
    b"Content-Length: 10\r\n\r\n",
    "absolute-form": b"GET http://x/y HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "asterisk-form": b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "CONNECT": b"CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HTTP/1.0": b"GET /nope HTTP/1.0\r\n\r\n",
    "an unknown version": b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "NULs": b"\0" * 100,
    "a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    "a start": b"GET / HT",
    "white space": b"\r\n" * 1000,
}


async def poke(server: Server, data: bytes) -> bytes:
    """Send bytes, close the writing side, and return all that comes back."""
    answer = b""
    client = await server.connect()
    try:
        await client.send(data)
        await client.stream.send_eof()
        while len(answer) < 10**6 and (more := await client.stream.receive_some(65536)):
            answer += more
    except trio.BrokenResourceError:
        pass  # a reset is an answer too
    client.stream.socket.close()
    server.clients.remove(client)
    return answer


async def is_alive(server: Server) -> bool:
    return (await (await server.connect()).ask(CALL)).status == 200


@pytest.mark.parametrize("data", CRAFTED.values(), ids=CRAFTED.keys())
async def test_a_crafted_request_ends_its_own_connection_at_most(
    server: Server, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with trio.fail_after(20):
        answer = await poke(server, data)
        assert await is_alive(server)

    assert b"HTTP/1.1 500" not in answer
    assert b"HTTP/1.1 101" not in answer
    assert not caplog.records


async def test_four_hundred_mutated_requests_end_nothing(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    draw = random.Random(1)
    bases = [*CRAFTED.values(), CALL, request("GET", "/events"), request("GET", "/health")]
    with trio.fail_after(60):
        for _ in range(400):
            data = bytearray(draw.choice(bases)[:2000])
            for _ in range(draw.randrange(1, 8)):
                data[draw.randrange(len(data))] = draw.randrange(256)
            with trio.move_on_after(2) as patience:  # a mutation may have become an event stream
                answer = await poke(server, bytes(data))
                assert b"HTTP/1.1 500" not in answer, bytes(data)
                assert b"HTTP/1.1 101" not in answer, bytes(data)
            if patience.cancelled_caught:
                server.hang_up()
        assert await is_alive(server)
    assert not caplog.records


async def test_a_request_with_both_framings_is_refused_and_nothing_behind_it_is_read(server: Server) -> None:
    with trio.fail_after(10):
        answer = await poke(server, CRAFTED["both framings, smuggling"])

    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"HTTP/1.1") == 1
    assert memory(server.services).calls == []


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (CRAFTED["a huge field"], 431),
        (CRAFTED["no Host"], 400),
        (CRAFTED["an unknown version"], 505),
        (CRAFTED["an unknown version"].replace(b"GET", b"HEAD"), 505),
        (CRAFTED["NULs"], 400),
    ],
)
async def test_what_violates_http_itself_is_a_problem_with_a_request_id_too(
    server: Server, data: bytes, status: int
) -> None:
    with trio.fail_after(10):
        head, _, body = (await poke(server, data)).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 %d" % status)
    assert b"x-request-id: " in head
    assert b"application/problem+json" in head
    if not data.startswith(b"HEAD"):
        assert json.loads(body)["status"] == status


async def test_an_upgrade_is_ignored(server: Server) -> None:
    with trio.fail_after(10):
        client = await server.connect()
        reply = await client.ask(WEBSOCKET.replace(b"GET / ", b"GET /health "))
        assert (reply.status, reply.body) == (200, b"fine")
        assert (await client.ask(CALL)).status == 200


async def test_http_2_is_refused(server: Server) -> None:
    with trio.fail_after(10):
        assert (await poke(server, CRAFTED["the HTTP/2 preface and garbage"])).startswith(b"HTTP/1.1 505")


async def test_a_bug_in_an_application_is_answered_and_logged_once(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with trio.fail_after(10):
        client = await server.connect()
        reply = await client.ask(request("GET", "/bug"))
        assert (reply.status, reply.json()["code"]) == (500, "internal")
        assert b"/internal/path" not in reply.body
        assert (await client.ask(CALL)).status == 200
    assert len(caplog.records) == 1


async def test_a_bug_in_the_protocol_ends_one_connection_and_is_logged(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(self: PlainHttp1, request: Any) -> None:
        raise RuntimeError("a bug of theirs")

    with trio.fail_after(10):
        other = await server.connect()
        await other.ask(request("GET", "/health"))
        with monkeypatch.context() as patch:
            patch.setattr(PlainHttp1, "_create_stream", broken)
            assert await poke(server, request("GET", "/health")) == b""
        assert (await other.ask(request("GET", "/health"))).status == 200
    assert [record.levelname for record in caplog.records] == ["WARNING"]


# -- bodies


def chunked(size: int, path: str = "/echo") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    return head + chunk * (size // 65536) + b"0\r\n\r\n"


async def send_what_it_takes(client: Client, data: bytes) -> None:
    """The server may have said what it had to say, and closed, before all is sent."""
    with suppress(trio.BrokenResourceError):
        await client.send(data)


@pytest.mark.parametrize("path", ["/echo", "/ignore", "/mcp/memory/execute"])
async def test_a_chunked_body_beyond_the_limit_is_a_413(server: Server, path: str) -> None:
    data = chunked(7 * 2**20, path)
    if path.startswith("/mcp"):
        data = data.replace(b"Host", AUTHORIZATION + b"Host", 1)
    with trio.fail_after(20):
        client = await server.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_what_it_takes, client, data)
            reply = await client.reply()
            nursery.cancel_scope.cancel()
    if path != "/ignore":
        assert (reply.status, reply.json()["code"]) == (413, "payload_too_large")
        assert "x-request-id" in reply.headers


AUTHORIZATION = b"Authorization: Bearer corral_test-token-of-a-caller-0123456789\r\nContent-Type: application/json\r\n"


async def test_a_declared_body_beyond_the_limit_is_a_413(server: Server) -> None:
    with trio.fail_after(10):
        reply = await (await server.connect()).ask(request(path="/echo", Content_Length="6291457"))

    assert (reply.status, reply.json()["code"]) == (413, "payload_too_large")


async def test_a_deploy_may_be_larger(server: Server) -> None:
    with trio.fail_after(20):
        reply = await (await server.connect()).ask(request(path="/deploy", body=b"x" * (8 * 2**20)))

    assert reply.status == 200


async def test_a_body_at_the_limit_passes(server: Server) -> None:
    with trio.fail_after(20):
        reply = await (await server.connect()).ask(chunked(6 * 2**20))

    assert (reply.status, reply.body) == (200, str(6 * 2**20).encode())


async def test_a_small_body_that_nobody_reads_leaves_the_connection_usable(server: Server) -> None:
    with trio.fail_after(10):
        client = await server.connect()
        for _ in range(3):
            assert (await client.ask(request(path="/ignore", body=b"x" * 60_000))).status == 200


async def test_a_large_body_that_nobody_reads_does_not_wedge_the_connection(server: Server) -> None:
    with trio.fail_after(20):
        client = await server.connect()
        await client.send(request(path="/ignore", body=b"x" * (5 * 2**20)))
        assert (await client.reply()).status == 200
        assert await client.is_closed()
        while server.door.connections:
            await trio.testing.wait_all_tasks_blocked(0.01)


# -- a reader that does not read


async def endless_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Writes for ever."""
    if scope["type"] != "http":
        await plain_app(scope, receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})


async def test_a_stalled_reader_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hypercorn_server, "WRITE_STALL_S", 0.3)
    async with running(make_services(), app=endless_app) as server:
        with trio.fail_after(20):
            client = await server.connect()
            await client.send(request("GET", "/"))
            await client.stream.receive_some(100)
            while server.door.connections:
                await trio.testing.wait_all_tasks_blocked(0.01)


async def test_a_stalled_reader_does_not_hold_the_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(make_services(), app=endless_app) as server:
        with trio.fail_after(20):
            client = await server.connect()
            await client.send(request("GET", "/"))
            await client.stream.receive_some(100)
            await trio.testing.wait_all_tasks_blocked(0.2)
            began = trio.current_time()
            await server.door.drain(timeout_s=0.3)
        assert trio.current_time() - began < 5, "the write may stall for 15 s, the shutdown must not"
        assert not server.door.connections


# -- Quart-Trio behind it


def make_quart() -> QuartTrio:
    app = QuartTrio("behind")

    @app.get("/hello")
    async def hello() -> str:
        return "hello"

    @app.post("/size")
    async def size() -> str:
        return str(len(await quart_request.get_data()))

    @app.get("/numbers")
    async def numbers() -> Response:
        async def generate() -> AsyncIterator[bytes]:
            for number in range(1000):
                yield b"%d\n" % number

        response = Response(generate())
        response.timeout = None
        return response

    return app


@pytest.fixture
async def quart() -> AsyncIterator[Server]:
    async with running(make_services(), app=make_quart()) as server:
        yield server


async def test_quart_answers_behind_our_own_routes(quart: Server) -> None:
    with trio.fail_after(20):
        client = await quart.connect()
        for _ in range(20):
            assert (await client.ask(request("GET", "/hello"))).body == b"hello"
            assert (await client.ask(request(path="/size", body=b"x" * 100_000))).body == b"100000"
            reply = await client.ask(request("GET", "/numbers"))
            assert reply.body.split() == [b"%d" % number for number in range(1000)]
            assert (await client.ask(CALL)).status == 200
    assert {"x-request-id", "x-content-type-options"} <= reply.headers.keys()


async def test_quarts_idle_connections_are_closed(quart: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quart-Trio cancels the send of its own answer's end when the client's disconnect comes in between."""
    monkeypatch.setattr(hypercorn_server, "IDLE_S", 0.3)
    monkeypatch.setattr(door, "TICK_S", 0.05)
    with trio.fail_after(10):
        client = await quart.connect()
        assert (await client.ask(request("GET", "/hello"))).status == 200
        assert await client.is_closed()


async def test_a_chunked_body_beyond_the_limit_never_reaches_quarts_memory(quart: Server) -> None:
    with trio.fail_after(20):
        client = await quart.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_what_it_takes, client, chunked(20 * 2**20, "/size"))
            assert (await client.reply()).status == 413
            nursery.cancel_scope.cancel()


async def test_quart_does_not_hold_the_shutdown(quart: Server) -> None:
    with trio.fail_after(10):
        client = await quart.connect()
        assert (await client.ask(request("GET", "/hello"))).status == 200
        began = trio.current_time()
        await quart.door.drain()
        assert trio.current_time() - began < 2
