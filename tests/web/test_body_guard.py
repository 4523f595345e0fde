"""What is done around an ASGI application's handling of bodies, against a server that the test plays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio
import trio.testing

from controlplane.web import body_guard
from controlplane.web.body_guard import BodyGuard

if TYPE_CHECKING:
    import pytest

    from controlplane.web.asgi import App, Message, Receive, Scope, Send

LIMIT = 1_000


class Server:
    """Hypercorn's part: a queue of ten messages, and a list of what was answered."""

    def __init__(self, app: App, **headers: bytes) -> None:
        self.inlet, self.outlet = trio.open_memory_channel[dict[str, Any]](10)
        self.sent: list[Message] = []
        self.guard = BodyGuard(app, lambda _scope: LIMIT)
        self.scope: Scope = {
            "type": "http",
            "path": "/",
            "method": "POST",
            "headers": [(name.replace("_", "-").encode(), value) for name, value in headers.items()],
        }

    async def send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(message)

    async def run(self) -> None:
        with trio.fail_after(10):
            await self.guard(self.scope, self.outlet.receive, self.send)

    async def body(self, *pieces: bytes, end: bool = True) -> None:
        for number, piece in enumerate(pieces, 1):
            more = not end or number < len(pieces)
            await self.inlet.send({"type": "http.request", "body": piece, "more_body": more})

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])


async def answer(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def read_all(receive: Receive) -> bytes:
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message.get("body", b"")
        if not message["more_body"]:
            break
    return body


async def reading(scope: Scope, receive: Receive, send: Send) -> None:
    await read_all(receive)
    await answer(send)


async def ignoring(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send)


async def test_a_body_within_the_limit_passes() -> None:
    server = Server(reading)
    await server.body(b"x" * 400, b"x" * 600)

    await server.run()

    assert server.status == 200


async def test_one_byte_more_is_a_413_and_the_application_is_stopped() -> None:
    went_on = False

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal went_on
        await read_all(receive)
        went_on = True

    server = Server(app)
    await server.body(b"x" * 400, b"x" * 601)

    await server.run()

    assert server.status == 413
    assert not went_on


async def test_a_declared_excess_never_starts_the_application() -> None:
    started = False

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal started
        started = True

    server = Server(app, content_length=b"1001")
    await server.body(b"x" * 1001)

    await server.run()

    assert server.status == 413
    assert not started


async def test_an_excess_after_the_answer_began_ends_it_without_a_second_one() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await read_all(receive)

    server = Server(app)
    await server.body(b"x" * 1001)

    await server.run()

    assert [message["type"] for message in server.sent] == ["http.response.start"]


async def test_a_body_that_nobody_reads_is_drained_so_that_the_server_never_waits() -> None:
    server = Server(ignoring, transfer_encoding=b"chunked")

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run)
            await server.body(*[b"x"] * 500)

    assert server.status == 200


async def test_a_small_body_that_nobody_reads_is_drained_before_the_answer_ends() -> None:
    server = Server(ignoring, content_length=b"10")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        await trio.testing.wait_all_tasks_blocked()
        assert [message["type"] for message in server.sent] == ["http.response.start"]
        await server.body(b"x" * 10)

    assert server.sent[-1]["more_body"] is False


async def test_a_client_that_does_not_send_its_small_body_does_not_hold_the_answer_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(body_guard, "KEEP_DRAIN_S", 0.05)
    monkeypatch.setattr(body_guard, "LATE_DRAIN_S", 0.05)
    server = Server(ignoring, content_length=b"10")

    await server.run()

    assert server.sent[-1]["more_body"] is False


async def test_the_end_of_an_answer_is_not_cancelled_by_the_disconnect_that_it_provokes() -> None:
    """Quart-Trio's shape: one task answers, the other one cancels it as soon as the client is gone."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                nursery.cancel_scope.cancel()

            nursery.start_soon(listen)
            await answer(send)
            nursery.cancel_scope.cancel()

    server = Server(app)
    await server.body(b"")
    sending_ended = False

    async def send(message: Message) -> None:
        nonlocal sending_ended
        if message["type"] == "http.response.body":
            await server.inlet.send({"type": "http.disconnect"})
            await trio.testing.wait_all_tasks_blocked()  # what Hypercorn still has to do for the connection
            sending_ended = True

    with trio.fail_after(10):
        await server.guard(server.scope, server.outlet.receive, send)

    assert sending_ended


async def test_a_disconnect_before_the_answer_ends_is_passed_on() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((await receive())["type"])

    server = Server(app)
    await server.inlet.send({"type": "http.disconnect"})

    await server.run()

    assert seen == ["http.disconnect"]


async def test_what_is_no_request_is_left_alone() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    await BodyGuard(app, lambda _scope: 0)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]

    assert seen == ["lifespan"]
