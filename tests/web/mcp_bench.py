"""Both sides of the MCP endpoint in front of one scripted server, over real pipes and without HTTP or a supervisor."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import trio
from attrs import define, field

from controlplane.config import Config
from controlplane.hub import Hub
from controlplane.model import Principal, Role
from controlplane.protocol.handshake import META, MODERN_VERSION, Era, ProtocolFacts
from controlplane.supervise.accounts import Accounts, of_operator
from controlplane.supervise.lane import Lane
from controlplane.supervise.meter import Meter
from controlplane.web.mcp.legacy import LegacySide
from controlplane.web.mcp.modern import ModernSide
from controlplane.web.request import Head
from tests.protocol.conftest import WAIT_S, open_talk
from tests.web.fakes import make_services
from tests.web.mcp_outlet import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from controlplane.protocol.pending import Call
    from controlplane.web.mcp.client_session import ClientSession
    from controlplane.web.mcp.outlet import Reply
    from tests.protocol.conftest import Peer, Talk

ADA = Principal(owner="ada", role=Role.CALLER, token_id="ada's")
INSTANCE = UUID(int=7)
CALL_LIMIT_S = 20.0
LONGEST_CALL_S = 60.0
ASKS = {"elicitation": {}, "roots": {}, "sampling": {}}
OFFERS = {"resources": {"subscribe": True}, "tools": {"listChanged": True}}


class _QuietMeter(Meter):
    """Counts, and announces nothing."""

    def count(self, seconds: float, *, failed: bool) -> bool:
        super().count(seconds, failed=failed)
        return False


@define(eq=False)
class Bench:
    """The server is `peer`; every client is Ada's."""

    talk: Talk
    lane: Lane
    runner: Any
    modern: ModernSide
    legacy: LegacySide
    nursery: trio.Nursery
    _ids: int = field(default=0, init=False)

    @property
    def peer(self) -> Peer:
        return self.talk.peer

    @property
    def calls(self) -> list[Call]:
        """In flight to the server."""
        return list(self.lane.session.pending)

    async def hear(self, method: str) -> dict[str, Any]:
        """The server's next message that is no ping, which must be this one."""
        while (message := await self.peer.hear()).get("method") == "ping":
            pass
        assert message.get("method") == method, message
        return message

    async def settled(self) -> None:
        """All that the server has said has come in, and what it leads to is done."""
        await self.peer.say({"jsonrpc": "2.0", "id": "sync", "method": "ping"})
        while (await self.peer.hear()).get("id") != "sync":
            pass
        await trio.testing.wait_all_tasks_blocked()

    async def heard_nothing_more(self) -> None:
        """As `settled`, and meanwhile the server was told nothing."""
        await trio.testing.wait_all_tasks_blocked()
        await self.peer.say({"jsonrpc": "2.0", "id": "sync", "method": "ping"})
        assert (await self.peer.hear()).get("id") == "sync"

    # -- a client of the modern era

    async def post(self, method: str, client: Client | None = None, **params: Any) -> Posted:
        """A request is made, as far as it gets by itself."""
        self._ids += 1
        meta = {META + "protocolVersion": MODERN_VERSION, META + "clientCapabilities": ASKS} | params.pop("meta", {})
        body = {"jsonrpc": "2.0", "id": self._ids, "method": method, "params": params | {"_meta": meta}}
        fields = {b"mcp-protocol-version": MODERN_VERSION.encode(), b"mcp-method": method.encode()}
        if (name := params.get("name") or params.get("uri")) is not None:
            fields[b"mcp-name"] = name.encode()
        posted = Posted(client or Client())
        head = Head("POST", "/mcp/bench", b"", fields, "127.0.0.1")
        self.nursery.start_soon(posted.of, self.modern.post, ADA, self.runner, head, json.dumps(body).encode())
        await trio.testing.wait_all_tasks_blocked()
        return posted

    # -- and of the legacy era

    def session(self) -> ClientSession:
        """A session of a new client, served by the lane."""
        session = self.legacy.table.create(
            ADA, INSTANCE, version="2025-11-25", capabilities_raw=json.dumps(ASKS).encode(), client_info_raw=b"{}"
        )
        self.legacy.enrol(session, self.lane)
        return session

    async def send(self, session: ClientSession, method: str, raw_id: int, **params: Any) -> Posted:
        body = {"jsonrpc": "2.0", "id": raw_id, "method": method, "params": params}
        fields = {b"mcp-session-id": session.id.encode()}
        posted = Posted(Client())
        head = Head("POST", "/mcp/bench", b"", fields, "127.0.0.1")
        self.nursery.start_soon(posted.of, self.legacy.post, ADA, self.runner, head, json.dumps(body).encode())
        await trio.testing.wait_all_tasks_blocked()
        return posted


@define(eq=False)
class Posted:
    """One request, and what came of it."""

    client: Client
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    reply: Reply | None = None
    over: trio.Event = field(factory=trio.Event)

    async def of(self, handler: Any, *arguments: Any) -> None:
        with self.scope:
            self.reply = await handler(*arguments, self.client)
        self.over.set()

    async def answer(self) -> dict[str, Any]:
        """The response, whichever way it came."""
        with trio.fail_after(WAIT_S):
            await self.over.wait()
        found = self.client.messages[-1] if self.reply is None else json.loads(self.reply.body)
        return cast("dict[str, Any]", found)

    async def result(self) -> dict[str, Any]:
        answer = await self.answer()
        assert "result" in answer, answer
        return cast("dict[str, Any]", answer["result"])


@asynccontextmanager
async def open_bench(era: Era, *, may_ask: bool = True) -> AsyncIterator[Bench]:
    """A server of this era behind both sides of the endpoint."""
    services = make_services()
    async with open_talk() as talk, trio.open_nursery() as nursery:
        if era is Era.LEGACY and may_ask:
            talk.session.introduce(b"{}", may_ask=True)
            nursery.start_soon(_be_introduced, talk.peer)
            await talk.session.shake_hands()
        else:
            await talk.shake_hands(era.value)
        version = MODERN_VERSION if era is Era.MODERN else "2025-11-25"
        child = SimpleNamespace(session=talk.session, over=trio.Event(), leaving=trio.Event())
        lane = Lane(cast("Any", child), ProtocolFacts(era=era, version=version, capabilities=OFFERS))
        legacy = LegacySide(services)
        await nursery.start(legacy.run)
        yield Bench(talk, lane, _runner(lane), ModernSide(services), legacy, nursery)
        nursery.cancel_scope.cancel()


async def _be_introduced(peer: Peer) -> None:
    await peer.answer(await peer.hear(), {"protocolVersion": "2025-11-25", "capabilities": OFFERS, "serverInfo": {}})
    assert (await peer.hear())["method"] == "notifications/initialized"


def _runner(lane: Lane) -> Any:
    """What a call needs of a `Runner`."""

    async def same(_: object) -> Lane:
        return lane

    limits = SimpleNamespace(call_timeout_s=CALL_LIMIT_S)
    config = SimpleNamespace(max_call_timeout_s=LONGEST_CALL_S, calls_in_flight=1_000)
    return SimpleNamespace(
        instance=SimpleNamespace(
            id=INSTANCE, name="bench", owner="ada", spec=SimpleNamespace(limits=limits, sessions="shared")
        ),
        around=SimpleNamespace(config=config, hub=Hub(max_bytes=2**20)),
        lane=lane,
        lanes=SimpleNamespace(legacy=same, roomy=same, refuses_legacy=False),
        catalogue=SimpleNamespace(mirrored=dict),
        meter=_QuietMeter(),
        account=Accounts(of_operator(Config())).of("ada"),
        serving=True,
        calls_in_flight=0,
    )
