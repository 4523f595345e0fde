"""The front door itself: the cap, the last file descriptor, the orderly end."""

from __future__ import annotations

import os
import resource
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from controlplane.web import door, overflow
from controlplane.web.listeners import open_listeners
from tests.web.fakes import Client, make_services, memory, request, running

if TYPE_CHECKING:
    from tests.web.fakes import Reply, Server

ECHO = request(body=b'{"method":"echo"}')
WAIT = request(body=b'{"method":"wait"}')
HEALTH = request("GET", "/health", token=None)


class TestCap:
    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        return {"max_connections": 16}

    async def fill(self, server: Server) -> list[Client]:
        """Take all connections; each has been answered, so the server knows of it."""
        clients = [await server.connect() for _ in range(16)]
        for client in clients:
            assert (await client.ask(ECHO)).status == 200
        return clients

    async def test_a_thousand_connections_over_the_cap_are_all_told_so(self, server: Server, many_files: None) -> None:
        replies: list[Reply] = []

        async def try_once() -> None:
            client = await server.connect()
            replies.append(await client.ask(ECHO))
            assert await client.is_closed()

        with trio.fail_after(60):
            clients = await self.fill(server)
            async with trio.open_nursery() as nursery:
                for _ in range(1_000):
                    nursery.start_soon(try_once)
            assert (await clients[0].ask(ECHO)).status == 200, "who is in stays in"

        assert len(replies) == 1_000
        assert {(reply.status, reply.json()["code"]) for reply in replies} == {(503, "overloaded")}
        assert all(reply.headers["retry-after"] == "1" for reply in replies)
        assert server.services.meters.refused == 1_000

    async def test_health_is_answered_beyond_the_cap(self, server: Server) -> None:
        with trio.fail_after(10):
            await self.fill(server)
            client = await server.connect()
            reply = await client.ask(HEALTH)
            assert (reply.status, reply.body) == (200, b"fine")
            assert await client.is_closed()

    async def test_silent_connections_beyond_the_cap_are_told_too(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(overflow, "HEARING_S", 0.1)
        with trio.fail_after(10):
            await self.fill(server)
            for client in [await server.connect() for _ in range(overflow.SLOTS + 20)]:
                assert (await client.reply()).status == 503

    async def test_when_one_leaves_the_next_one_is_let_in(self, server: Server) -> None:
        with trio.fail_after(10):
            clients = await self.fill(server)
            clients[0].stream.socket.close()
            while server.services.meters.connections == 16:
                await trio.testing.wait_all_tasks_blocked(0.01)
            assert (await (await server.connect()).ask(ECHO)).status == 200


async def test_without_file_descriptors_it_turns_clients_away_and_recovers(server: Server) -> None:
    sockets = [socket.socket() for _ in range(30)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    next_fd = os.dup(0)
    os.close(next_fd)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (next_fd + 5, hard))
        for sock in sockets:
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", server.port))
        with trio.fail_after(10):
            while server.services.meters.refused + server.services.meters.accepted < 30:
                await trio.testing.wait_all_tasks_blocked(0.01)
            began = time.process_time()
            with trio.move_on_after(0.5):
                await trio.sleep_forever()
            assert time.process_time() - began < 0.25, "it must not spin"
            assert server.services.meters.refused >= 20
            with sockets[-1] as last:
                await trio.lowlevel.wait_readable(last)
                assert last.recv(100).startswith(b"HTTP/1.1 503")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for sock in sockets:
            sock.close()
    with trio.fail_after(10):
        assert (await (await server.connect()).ask(ECHO)).status == 200


# -- the orderly end


async def test_calls_in_flight_are_answered_and_nobody_new_is_let_in(server: Server) -> None:
    with trio.fail_after(10):
        client, idle = await server.connect(), await server.connect()
        assert (await idle.ask(ECHO)).status == 200
        await client.send(WAIT)
        await memory(server.services).waiting.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.door.drain)
            assert await idle.is_closed()
            with pytest.raises(OSError, match="failed"):
                await server.connect()
            memory(server.services).release.set()
            released = trio.current_time()
            reply = await client.reply()
            assert (reply.status, reply.json()["result"]) == (200, "waited")
            assert await client.is_closed()
        assert trio.current_time() - released < 2, "no connection is kept for another request"


async def test_a_call_that_outlasts_the_drain_ends_with_it(server: Server) -> None:
    with trio.fail_after(10):
        client = await server.connect()
        await client.send(WAIT)
        await memory(server.services).waiting.wait()
        await server.door.drain(timeout_s=0.2)
        await memory(server.services).ended.wait()
        if server.door.hot:
            reply = await client.reply()
            assert (reply.status, reply.json()["code"]) == (503, "shutting_down")
        assert await client.is_closed()


async def test_streams_end_when_it_drains(server: Server) -> None:
    with trio.fail_after(10):
        client = await server.connect()
        await client.send(request("GET", "/events"))
        assert await client.frame()
        began = trio.current_time()
        await server.door.drain()
        assert trio.current_time() - began < 2
        last = await client.frame()
        assert last is not None
        assert b'"type":"shutdown"' in last
        assert await client.frame() is None


async def test_an_idle_server_ends_at_once(server: Server) -> None:
    with trio.fail_after(10):
        await server.connect()
        began = trio.current_time()
        await server.door.drain()
        assert trio.current_time() - began < 1


async def test_a_stop_may_come_before_the_first_connection_was_looked_for(server: Server) -> None:
    with trio.fail_after(10):
        await server.door.drain()
        with pytest.raises(OSError, match="failed"):
            await server.connect()


async def test_it_counts_what_it_did(server: Server) -> None:
    with trio.fail_after(10):
        client = await server.connect()
        await client.ask(ECHO)
        await client.ask(request(body=b"{"))

        meters = server.services.meters
        assert (meters.accepted, meters.connections) == (1, 1)
        while sum(meters.requests.values()) < 2:  # counted when the answer has been sent
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert meters.requests == {("execute", 200): 1, ("execute", 400): 1}
        assert server.door.statistics().connections == 1
        client.stream.socket.close()
        while meters.connections:
            await trio.testing.wait_all_tasks_blocked(0.01)


# -- listening


async def test_it_listens_on_every_address_of_a_name_on_one_port() -> None:
    listeners = open_listeners("localhost", 0)
    try:
        assert len({listener.getsockname()[1] for listener in listeners}) == 1
        for listener in listeners:
            assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
            assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
    finally:
        for listener in listeners:
            listener.close()


def test_a_port_in_use_is_an_error_that_says_so() -> None:
    [first] = open_listeners("127.0.0.1", 0)
    with first, pytest.raises(OSError, match="in use"):
        open_listeners("127.0.0.1", first.getsockname()[1])


async def test_accepted_connections_do_not_delay_small_writes() -> None:
    async with running(make_services()) as server:
        await server.connect()
        with trio.fail_after(10):
            while not server.door.connections:
                await trio.testing.wait_all_tasks_blocked(0.01)
        [connection] = server.door.connections
        assert isinstance(connection, door.HotConnection)
        assert connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
