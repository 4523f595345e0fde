"""An MCP endpoint that does what the `method` of the message says, for tests of the doors in front of it."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import trio
from attrs import define, field

from controlplane.errors import InstanceUnavailable
from controlplane.model import Role
from controlplane.web import guards
from controlplane.web.mcp.outlet import ClientLeft, Reply
from tests.web.fakes import make_services

if TYPE_CHECKING:
    from controlplane.web.auth import Grant
    from controlplane.web.mcp.outlet import Outlet
    from controlplane.web.request import Head
    from controlplane.web.services import Services

ERROR = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Bad"}}'


@define(eq=False)
class ScriptedEndpoint:
    """Answers by the method: see `post`. `how` says how the last wait ended: `released`, `gone`, `left`, `cancelled`."""

    services: Services
    heads: list[Head] = field(factory=list)
    waiting: trio.Event = field(factory=trio.Event)
    release: trio.Event = field(factory=trio.Event)
    ended: trio.Event = field(factory=trio.Event)
    closed: trio.Event = field(factory=trio.Event)
    how: str = ""
    kept: Outlet | None = None

    def admit(self, head: Head) -> Grant:
        checks = self.services.guards
        checks.check_host(head)
        checks.check_origin(head)
        grant = checks.grant(head)
        guards.require(grant.principal, Role.CALLER)
        checks.admit_call(grant.principal)
        if head.method == "POST":
            guards.check_content_type(head)
            guards.check_encoding(head)
            guards.check_length(head, guards.CALL_BODY_MAX_BYTES)
        return grant

    def readmit(self, grant: Grant, generation: int) -> bool:
        if not self.services.tokens.holds(grant, generation):
            return False
        self.services.guards.admit_call(grant.principal)
        return True

    async def post(self, grant: Grant, ref: str, head: Head, body: bytes, outlet: Outlet) -> Reply | None:
        self.services.supervisor.find(grant.principal, ref)
        self.heads.append(head)
        message = json.loads(body)
        script = getattr(self, f"_{message['method']}", None)
        if script is not None:
            return cast("Reply | None", await script(outlet))
        params = json.dumps(message.get("params"))
        return Reply(200, b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (message.get("id", 0), params.encode()))

    # -- whole answers

    async def _initialize(self, outlet: Outlet) -> Reply:
        return Reply(200, b'{"jsonrpc":"2.0","id":0,"result":{}}', ((b"mcp-session-id", b"abc"),))

    async def _accepted(self, outlet: Outlet) -> Reply:
        return Reply(202)

    async def _empty(self, outlet: Outlet) -> Reply:
        return Reply(204)

    async def _refuse(self, outlet: Outlet) -> Reply:
        return Reply(405, ERROR, ((b"allow", b"POST"),))

    async def _unavailable(self, outlet: Outlet) -> Reply:
        raise InstanceUnavailable("it restarts", retry_after_s=2.5)

    async def _bug(self, outlet: Outlet) -> Reply:
        raise RuntimeError("secret /internal/path of ours")

    async def _nothing(self, outlet: Outlet) -> None:
        return None

    async def _keep(self, outlet: Outlet) -> Reply:
        self.kept = outlet
        return Reply(202)

    # -- streams

    async def _stream(self, outlet: Outlet) -> None:
        await outlet.begin(((b"mcp-session-id", b"abc"),))
        for number in range(3):
            await outlet.send(b"id: %d\ndata: {}\n\n" % number)
        await outlet.end()

    async def _keep_stream(self, outlet: Outlet) -> None:
        self.kept = outlet
        await self._stream(outlet)

    async def _unended(self, outlet: Outlet) -> None:
        await outlet.begin()
        await outlet.send(b"data: 1\n\n")
        await outlet.send(b"")
        await outlet.send(b"data: 2\n\n")

    async def _broken(self, outlet: Outlet) -> None:
        await outlet.begin()
        await outlet.send(b"data: 1\n\n")
        raise InstanceUnavailable("too late to say so")

    async def _twice(self, outlet: Outlet) -> None:
        await outlet.begin()
        await outlet.begin()

    async def _unbegun(self, outlet: Outlet) -> None:
        await outlet.send(b"data: 1\n\n")

    async def _large(self, outlet: Outlet) -> None:
        await outlet.begin()
        for _ in range(4):
            await outlet.send(b"data: %b\n\n" % (b"x" * 2**20))
        await outlet.end()

    async def _flood(self, outlet: Outlet) -> None:
        await outlet.begin()
        await self._until_told(self._pour(outlet))

    async def _pour(self, outlet: Outlet) -> None:
        while True:
            await outlet.send(b"data: %b\n\n" % (b"x" * 2**16))

    async def _quiet(self, outlet: Outlet) -> None:
        await outlet.begin()
        await outlet.send(b"data: begun\n\n")
        await self._until_told(self._watch(outlet))
        if self.how == "released":
            await outlet.send(b"data: released\n\n")
            await outlet.end()

    async def _heedless(self, outlet: Outlet) -> Reply:
        """Waits, and never asks whether anybody is there."""
        await self._until_told(self._pause())
        return Reply(202)

    async def _heedless_stream(self, outlet: Outlet) -> None:
        await outlet.begin()
        await self._heedless(outlet)

    async def _outlive(self, outlet: Outlet) -> Reply:
        outlet.outlive()
        await self._until_told(self._pause())
        return Reply(202)

    async def _outlive_stream(self, outlet: Outlet) -> None:
        outlet.outlive()
        await outlet.begin()
        await outlet.send(b"data: begun\n\n")
        await self._until_told(self._send_at_last(outlet))

    async def _wait(self, outlet: Outlet) -> Reply:
        await self._until_told(self._watch(outlet))
        return Reply(200, b'{"jsonrpc":"2.0","id":0,"result":"waited"}')

    async def _shrug(self, outlet: Outlet) -> None:
        """Has nothing to say to a client that has left."""
        with suppress(ClientLeft):
            await self._until_told(self._watch(outlet))

    async def _pause(self) -> None:
        await self.release.wait()
        self.how = "released"

    async def _send_at_last(self, outlet: Outlet) -> None:
        await self.release.wait()
        await outlet.send(b"data: late\n\n")

    async def _watch(self, outlet: Outlet) -> None:
        while not (self.release.is_set() or self.closed.is_set()):
            with trio.move_on_after(0.05):
                await self.release.wait()
            if outlet.is_gone():
                self.how = "gone"
                raise ClientLeft
        self.how = "released"

    async def _until_told(self, waiting: Any) -> None:
        self.waiting.set()
        try:
            await waiting
        except trio.Cancelled:
            self.how = "cancelled"
            raise
        except ClientLeft:
            self.how = self.how or "left"
            raise
        finally:
            self.ended.set()

    # -- the other ways in

    async def get(self, grant: Grant, ref: str, head: Head, outlet: Outlet) -> Reply | None:
        if head.get(b"mcp-session-id") is None:
            return Reply(405, ERROR, ((b"allow", b"POST"),))
        await self._quiet(outlet)
        return None

    async def delete(self, grant: Grant, ref: str, head: Head) -> Reply:
        return Reply(200 if head.get(b"mcp-session-id") == b"abc" else 404, ERROR)

    async def get_sse(self, grant: Grant, ref: str, head: Head, outlet: Outlet) -> Reply | None:
        await outlet.begin()
        await outlet.send(b"event: endpoint\ndata: /mcp/%b/messages?session=abc\n\n" % ref.encode())
        await self._until_told(self._watch(outlet))
        return None

    async def post_message(self, grant: Grant, ref: str, head: Head, body: bytes, outlet: Outlet) -> Reply:
        return Reply(202 if head.query == b"session=abc" else 404)

    async def run(self) -> None:
        await trio.sleep_forever()

    def close(self) -> None:
        self.closed.set()


def make_mcp_services(**settings: Any) -> Services:
    """As `make_services`, with a scripted endpoint."""
    services = make_services(**settings)
    services.mcp = cast("Any", ScriptedEndpoint(services))
    return services


def endpoint_of(services: Services) -> ScriptedEndpoint:
    return cast("ScriptedEndpoint", services.mcp)
