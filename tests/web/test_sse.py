"""Event streams of one instance and of the fleet."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID, uuid4

import pytest
import trio
import trio.testing

from controlplane.model import Principal, Role
from controlplane.web import sse
from controlplane.web.hypercorn_server import HypercornConnection
from tests.web.fakes import MEMORY_ID, TOKENS, Client, make_services, make_token, request, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controlplane.web.services import Services
    from tests.web.fakes import Server

STREAM = "/mcp/memory/stream"


class Reader:
    """Reads one stream's events as JSON."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def next(self) -> dict[str, Any]:
        with trio.fail_after(10):
            frame = await self.client.frame()
        assert frame is not None, "the stream ended"
        return self._parse(frame)

    async def rest(self) -> list[dict[str, Any]]:
        events = []
        with trio.fail_after(10):
            while (frame := await self.client.frame()) is not None:
                events.append(self._parse(frame))
        return events

    @staticmethod
    def _parse(frame: bytes) -> dict[str, Any]:
        fields = dict(line.split(": ", 1) for line in frame.decode().split("\n"))
        assert fields.keys() == {"id", "data"}, "plain `onmessage` clients must get every event"
        return {"id": fields["id"], **json.loads(fields["data"])}


async def open_stream(server: Server, path: str = STREAM, **more: Any) -> Reader:
    client = await server.connect()
    await client.send(request("GET", path, **{"token": TOKENS[Role.VIEWER], **more}))
    return Reader(client)


async def wait_subscribers(services: Services, count: int) -> None:
    with trio.fail_after(10):
        while services.hub.statistics().subscribers != count:
            await trio.testing.wait_all_tasks_blocked(0.01)


def publish(services: Services, number: int, owner: str = "alice", instance_id: UUID = MEMORY_ID) -> None:
    services.hub.publish_nowait("status", instance_id=instance_id, owner=owner, data={"number": number})


async def test_a_stream_says_connected_and_then_what_happens(server: Server) -> None:
    reader = await open_stream(server)
    connected = await reader.next()
    for number in range(3):
        publish(server.services, number)

    assert (connected["type"], connected["instance_id"]) == ("connected", str(MEMORY_ID))
    assert [(await reader.next())["number"] for _ in range(3)] == [0, 1, 2]


async def test_its_head_keeps_proxies_and_caches_from_holding_it_back(server: Server) -> None:
    with trio.fail_after(10):
        client = await server.connect()
        await client.send(request("GET", STREAM, X_Request_Id="mine"))
        head = (await client.stream.receive_some(4096)).lower()

    assert head.startswith(b"http/1.1 200")
    for field in (
        b"content-type: text/event-stream; charset=utf-8",
        b"cache-control: no-store",
        b"x-accel-buffering: no",
        b"x-request-id: mine",
        b"x-content-type-options: nosniff",
    ):
        assert field in head


async def test_an_instances_stream_has_its_own_events_alone(server: Server) -> None:
    reader = await open_stream(server)
    await reader.next()
    publish(server.services, 1, instance_id=uuid4())
    publish(server.services, 2)

    assert (await reader.next())["number"] == 2


async def test_the_fleet_shows_each_owner_its_own_and_an_administrator_all(server: Server) -> None:
    mine = await open_stream(server, "/events")
    everything = await open_stream(server, "/events", token=TOKENS[Role.ADMIN])
    await mine.next()
    await everything.next()
    publish(server.services, 1, owner="bob", instance_id=uuid4())
    publish(server.services, 2)

    assert (await mine.next())["number"] == 2
    assert [(await everything.next())["number"] for _ in range(2)] == [1, 2]


async def test_a_reader_that_returns_gets_what_it_missed(server: Server) -> None:
    reader = await open_stream(server)
    await reader.next()
    publish(server.services, 1)
    last = await reader.next()
    reader.client.stream.socket.close()
    publish(server.services, 2)
    publish(server.services, 3)

    again = await open_stream(server, Last_Event_ID=last["id"])

    assert [(await again.next()).get("number") for _ in range(3)] == [None, 2, 3]


@pytest.mark.parametrize("last", ["nonsense", "0-0", "", "deadbeef-5", "\xe9", "9" * 300])
async def test_an_unknown_last_event_id_is_no_silent_hole(server: Server, last: str) -> None:
    publish(server.services, 1)

    reader = await open_stream(server, Last_Event_ID=last)

    assert (await reader.next())["type"] == "connected"
    if last:
        assert (await reader.next())["type"] == "gap"


async def test_a_reader_that_leaves_is_forgotten(server: Server) -> None:
    reader = await open_stream(server)
    await reader.next()
    await wait_subscribers(server.services, 1)

    reader.client.stream.socket.close()

    await wait_subscribers(server.services, 0)


async def test_a_stream_ends_when_its_token_is_revoked(server: Server) -> None:
    reader, other = await open_stream(server), await open_stream(server, token=TOKENS[Role.ADMIN], path="/events")
    await reader.next()
    await other.next()
    principal = server.services.tokens.verify(f"Bearer {TOKENS[Role.VIEWER]}")

    server.services.tokens.discard_token(UUID(principal.token_id))

    assert await reader.rest() == []
    publish(server.services, 1)
    assert (await other.next())["number"] == 1


async def test_a_stream_ends_when_its_token_expires(server: Server) -> None:
    tokens = server.services.tokens
    now = tokens.clock()
    from datetime import UTC, datetime

    tokens.put_token(
        make_token("corral_short-lived", "alice", Role.VIEWER, expires_at=datetime.fromtimestamp(now + 0.5, UTC))
    )
    reader = await open_stream(server, token="corral_short-lived")
    await reader.next()

    assert await reader.rest() == []


async def test_when_the_hub_closes_every_stream_ends_with_a_last_word(server: Server) -> None:
    readers = [await open_stream(server) for _ in range(3)]
    for reader in readers:
        await reader.next()

    server.services.hub.close()

    assert [[event["type"] for event in await reader.rest()] for reader in readers] == [["shutdown"]] * 3


async def test_after_a_stream_the_connection_can_be_used_again(server: Server) -> None:
    reader = await open_stream(server)
    await reader.next()
    server.services.hub.close()
    await reader.rest()

    with trio.fail_after(10):
        assert (await reader.client.ask(request("GET", "/health"))).status == 200


@pytest.mark.parametrize("path", ["/mcp/files/stream", "/mcp/bob/files/stream", "/mcp/nothing/stream"])
async def test_somebody_elses_stream_does_not_exist(server: Server, path: str) -> None:
    with trio.fail_after(10):
        reply = await (await server.connect()).ask(request("GET", path))

    assert reply.status == 404
    assert server.services.hub.statistics().subscribers == 0


@pytest.mark.parametrize(
    ("method", "changes", "status"),
    [
        ("POST", {"body": b"{}"}, 405),
        ("GET", {"Accept": "application/json"}, 406),
        ("GET", {"path": f"{STREAM}?last=1"}, 422),
        ("HEAD", {}, 200),
        ("OPTIONS", {"token": None}, 204),
    ],
)
async def test_other_requests_are_answered_at_once(
    server: Server, method: str, changes: dict[str, Any], status: int
) -> None:
    with trio.fail_after(10):
        client = await server.connect()
        await client.send(request(method, **{"path": STREAM, **changes}))
        head = await client.stream.receive_some(4096)

    assert head.startswith(b"HTTP/1.1 %d" % status)
    if status in {204, 405}:
        assert b"allow: GET, HEAD, OPTIONS" in head
    assert server.services.hub.statistics().subscribers == 0


async def test_a_reader_that_stops_reading_loses_its_own_stream_only() -> None:
    services = make_services()
    async with running(services) as server:
        stalled, good = await open_stream(server), await open_stream(server)
        await wait_subscribers(services, 2)
        seen = 0
        await good.next()
        with trio.fail_after(30):
            for number in range(3_000):  # 30 MB: more than socket buffers and queue hold together
                services.hub.publish_nowait(
                    "status", instance_id=MEMORY_ID, owner="alice", data={"number": number, "pad": "x" * 10_000}
                )
                if number % 20 == 19:
                    while seen <= number:
                        event = await good.next()
                        assert event["number"] == seen
                        seen += 1
        assert seen == 3_000
        assert services.hub.statistics().lagged == 1
        assert services.hub.statistics().subscribers == 1
        assert stalled.client.stream.socket.fileno() >= 0


async def test_a_stream_that_ends_in_the_middle_of_a_write_ends_with_a_whole_event() -> None:
    services = make_services()
    async with running(services) as server:
        reader = await open_stream(server)
        await reader.next()
        principal = services.tokens.verify(f"Bearer {TOKENS[Role.VIEWER]}")
        with trio.fail_after(30):
            [connection] = server.door.connections
            assert isinstance(connection, HypercornConnection)
            while not connection._send_lock.locked():
                services.hub.publish_nowait(
                    "status", instance_id=MEMORY_ID, owner="alice", data={"pad": "x" * 1_000_000}
                )
                await trio.testing.wait_all_tasks_blocked(0.01)
            services.tokens.discard_token(UUID(principal.token_id))
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert all(len(event["pad"]) == 1_000_000 for event in await reader.rest())


async def test_a_thousand_readers_get_every_event_in_order(many_files: None) -> None:
    services = make_services()
    async with running(services) as server:
        with trio.fail_after(60):
            readers = [await open_stream(server) for _ in range(1_000)]
            await wait_subscribers(services, 1_000)
            for number in range(5):
                publish(services, number)
            for reader in readers:
                assert (await reader.next())["type"] == "connected"
                assert [(await reader.next())["number"] for _ in range(5)] == [0, 1, 2, 3, 4]


class Script:
    """A source of frames that the test holds."""

    def __init__(self) -> None:
        self.inlet, self._outlet = trio.open_memory_channel[bytes](10)
        self.closed = False

    async def take(self) -> bytes:
        return await self._outlet.receive()

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def test_the_generator_yields_frames_until_the_source_ends() -> None:
    tokens, script = make_services().tokens, Script()
    principal = tokens.verify(f"Bearer {TOKENS[Role.VIEWER]}")
    for frame in (b"a", b"b"):
        script.inlet.send_nowait(frame)
    script.inlet.close()

    with trio.fail_after(10):
        assert [frame async for frame in sse.frames(script, principal, tokens)] == [b"a", b"b"]
    assert script.closed


async def test_the_generator_ends_soon_after_its_token_was_revoked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "LIVENESS_CHECK_S", 0.05)
    tokens, script = make_services().tokens, Script()
    principal: Principal = tokens.verify(f"Bearer {TOKENS[Role.VIEWER]}")
    generator: AsyncIterator[bytes] = sse.frames(script, principal, tokens)
    script.inlet.send_nowait(b"a")
    with trio.fail_after(10):
        assert await generator.__anext__() == b"a"
        tokens.discard_token(UUID(principal.token_id))
        assert [frame async for frame in generator] == []
