"""HTTP+SSE, the transport of 2024-11-05: one event stream per session, and messages posted beside it.

Deprecated, and here for clients that know nothing newer. The session is made by
the GET and ends with it; everything that the server says goes on its stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote

from attrs import define

from controlplane.core.jsonrpc import INVALID_REQUEST
from controlplane.errors import CorralError, NotAcceptable
from controlplane.protocol.handshake import LEGACY_VERSIONS
from controlplane.protocol.inbound import Inbound, Refusal, read
from controlplane.web.mcp.answers import answer, fault
from controlplane.web.mcp.introduction import introduce
from controlplane.web.mcp.outlet import Outlet, Reply
from controlplane.web.mcp.sessions import ClientSession, NoSession
from controlplane.web.request import accepts_events

if TYPE_CHECKING:
    from controlplane.model import Principal
    from controlplane.supervise.runner import Runner
    from controlplane.web.mcp.legacy import LegacySide
    from controlplane.web.request import Head

VERSION = LEGACY_VERSIONS[-1]


@define(eq=False)
class HttpSse:
    """Answers both of its routes, with the sessions of `legacy`."""

    legacy: LegacySide

    async def get(self, principal: Principal, runner: Runner, ref: str, head: Head, outlet: Outlet) -> None:
        """Open a session, and stay until one side ends it; raises NotAcceptable, QuotaExceeded, Overloaded."""
        if not accepts_events(head.get(b"accept")):
            raise NotAcceptable("This route answers text/event-stream only.")
        table = self.legacy.table
        path = f"/mcp/{quote(ref)}/messages"
        session = table.create(principal, runner.instance.id, version=VERSION, messages_path=path)
        await table.relay_until_left(session, outlet)

    def post(self, principal: Principal, runner: Runner, head: Head, body: bytes) -> Reply:
        """Take one message of a session.

        Raises:
            Refusal: it is not in order.
            NoSession: there is no such session.
        """
        named = parse_qs(head.query.decode("latin-1")).get("session", [""])[0]
        session = self.legacy.table.find(named, principal, runner.instance.id)
        if session.is_resumable:
            raise NoSession  # of the newer transport: nobody reads what would be answered here
        message = read(body)
        if message.kind == "request":
            self.legacy.background(self._answer, session, runner, message)
        elif session.lane is not None:
            self.legacy.take_note(session, message)
        return Reply(202)

    async def _answer(self, session: ClientSession, runner: Runner, message: Inbound) -> None:
        if session.lane is not None:
            await self.legacy.answer_on(session, runner, message, session.standalone)
            return
        assert message.id is not None
        try:
            session.standalone.post(await self._initialized(session, runner, message))
        except Refusal as refusal:
            session.standalone.post(refusal.body)
        except CorralError as problem:
            session.standalone.post(answer(message.id, fault(problem)))

    async def _initialized(self, session: ClientSession, runner: Runner, message: Inbound) -> bytes:
        assert message.id is not None
        if message.method != "initialize":
            raise Refusal(INVALID_REQUEST, "initialize comes first", message.id)
        if session.is_beginning or session.lane is not None:
            raise Refusal(INVALID_REQUEST, "this session is being initialized already", message.id)
        session.is_beginning = True
        try:
            introduced = await introduce(runner, message.params, message.id)
        finally:
            session.is_beginning = False
        session.capabilities_raw, session.client_info_raw = introduced.capabilities_raw, introduced.client_info_raw
        if not session.closed.is_set():
            self.legacy.enrol(session, introduced.lane)
        return answer(message.id, b'"result":' + introduced.result)
