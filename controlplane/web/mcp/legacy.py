"""Clients of the legacy era (2025-03-26 to 2025-11-25): sessions, their messages and streams.

A session is served by one lane for as long as it lives: the primary, a process
shared by clients of the same capabilities, or one of its own. When that process
ends, so does the session; the client gets 404 and initializes anew.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import trio
from attrs import define, field

from controlplane.core.jsonrpc import INTERNAL_ERROR, INVALID_REQUEST
from controlplane.errors import CorralError, NotAcceptable, Overloaded, ShuttingDown
from controlplane.protocol.handshake import Era
from controlplane.protocol.headers import SESSION_FIELD
from controlplane.protocol.inbound import Inbound, Refusal, read, read_batch
from controlplane.protocol.legacy_to_modern import ends_here
from controlplane.protocol.members import error
from controlplane.protocol.routing import CANCELLED, PROGRESS
from controlplane.protocol.versions import may_batch
from controlplane.supervise import calls
from controlplane.supervise.child import DRAIN_S
from controlplane.web.mcp.answers import answer, fault
from controlplane.web.mcp.bridged import BareConversation, BridgedConversation
from controlplane.web.mcp.conversation import Conversation, Give, requested_id
from controlplane.web.mcp.introduction import introduce
from controlplane.web.mcp.membership import Membership
from controlplane.web.mcp.outlet import Outlet, Reply
from controlplane.web.mcp.sessions import ClientSession, NoSession, SessionTable
from controlplane.web.mcp.specials import Special, is_special
from controlplane.web.mcp.streams import NothingLeft, Stream, UnknownEvent, relay
from controlplane.web.request import accepts_events

if TYPE_CHECKING:
    from controlplane.model import Principal
    from controlplane.supervise.lane import Lane
    from controlplane.supervise.runner import Runner
    from controlplane.web.request import Head
    from controlplane.web.services import Services

log = logging.getLogger("corral.web")

DESERTED_S = 60.0
"""A client that was asked something and is connected to no stream of its session may come back within this time."""
ENDING_S = 2.0
"""For the calls of a session to tell their clients, when they have failed at last."""
ENDING_POLL_S = 0.02
SESSIONS_SHARE = 4
"""Of BUFFER_MAX_MB one part in so many is for what is kept and queued for sessions; the hub has the rest."""
_CONVERSATIONS = {Era.LEGACY: Conversation, Era.MODERN: BridgedConversation, Era.BARE: BareConversation}
"""By the era of the server."""
INITIALIZED = "notifications/initialized"
ROOTS_CHANGED = "notifications/roots/list_changed"


@define(eq=False)
class LegacySide:
    """Answers everything of this era. `run` must be running."""

    services: Services
    table: SessionTable = field(init=False)
    _nursery: trio.Nursery | None = field(default=None, init=False)
    _deserted: dict[ClientSession, float] = field(factory=dict, init=False)
    """Sessions whose client was asked something and reads nothing, and since when that is known."""

    def __attrs_post_init__(self) -> None:
        buffers = self.services.config.buffer_max_mb * 2**20
        self.table = SessionTable(self._on_end, max_bytes=buffers // SESSIONS_SHARE)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Service loop: what outlives its connection runs here."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    # -- requests

    async def post(self, principal: Principal, runner: Runner, head: Head, body: bytes, outlet: Outlet) -> Reply | None:
        """Answer one POST.

        Raises:
            Refusal: it is not in order.
            NoSession: it names a session that is not there.
        """
        session = self._session_of(principal, runner, head)
        if session is None:
            return await self._without_session(principal, runner, read(body))
        message = read_batch(body) if may_batch(session.version) else read(body)
        if isinstance(message, list):
            return await self._batch(session, runner, message, outlet)
        if message.kind != "request":
            self.take_note(session, message)
            return Reply(202)
        return await self._request(session, runner, message, outlet)

    async def get(self, principal: Principal, runner: Runner, head: Head, outlet: Outlet) -> Reply | None:
        """The session's own stream, or the rest of one that broke off.

        Raises:
            NotAcceptable, Refusal, NoSession
        """
        if not accepts_events(head.get(b"accept")) or head.get(b"accept") is None:
            raise NotAcceptable(
                "This is an MCP endpoint: GET opens the event stream of a session.",
                hint="Use an MCP client, or POST to /mcp/{id}/execute.",
            )
        session = self._required_session(principal, runner, head)
        last = head.get(b"last-event-id")
        if last is not None:
            try:
                stream, after = session.resume(last.decode("latin-1"))
            except NothingLeft:
                return Reply(204)
            except UnknownEvent:
                raise Refusal(INVALID_REQUEST, "There is nothing to resume at this Last-Event-ID.") from None
            await relay(stream, after, outlet)
            return None
        if session.standalone.is_read:
            raise Refusal(INVALID_REQUEST, "Conflict: this session's stream is open already", status=409)
        await relay(session.standalone, None, outlet)
        return None

    def delete(self, principal: Principal, runner: Runner, head: Head) -> Reply:
        """End a session; raises Refusal, NoSession."""
        self.table.end(self._required_session(principal, runner, head))
        return Reply(200)

    def _required_session(self, principal: Principal, runner: Runner, head: Head) -> ClientSession:
        session = self._session_of(principal, runner, head)
        if session is None:
            raise Refusal(INVALID_REQUEST, "Bad Request: Mcp-Session-Id header is required")
        return session

    def _session_of(self, principal: Principal, runner: Runner, head: Head) -> ClientSession | None:
        raw_id = head.fields.get(SESSION_FIELD)
        if raw_id is None:
            return None
        session = self.table.find(raw_id.decode("latin-1"), principal, runner.instance.id)
        if session.lane is not None and not session.lane.is_open:
            raise NoSession  # its server is gone, and it is about to be
        return session

    async def _without_session(self, principal: Principal, runner: Runner, message: Inbound) -> Reply:
        if message.method != "initialize" or message.id is None:
            detail = "Bad Request: only initialize is possible without a session; Mcp-Session-Id names it after that"
            raise Refusal(INVALID_REQUEST, detail, message.id)
        try:
            if self.services.stopping:
                raise ShuttingDown("The control plane is stopping; it takes no new calls.", retry_after_s=5)
            introduced = await introduce(runner, message.params, message.id)
            session = self.table.create(
                principal,
                runner.instance.id,
                version=introduced.version,
                capabilities_raw=introduced.capabilities_raw,
                client_info_raw=introduced.client_info_raw,
            )
        except CorralError as problem:
            return Reply(200, answer(message.id, fault(problem)))
        self.enrol(session, introduced.lane)
        fields = ((b"mcp-session-id", session.id.encode()),)
        return Reply(200, answer(message.id, b'"result":' + introduced.result), fields)

    def enrol(self, session: ClientSession, lane: Lane) -> None:
        """From now on the session is served by this lane."""
        session.lane = lane
        session.membership = Membership(session, lane, self.background, self._on_lane_over)
        session.membership.begin()

    # -- one message

    async def _request(self, session: ClientSession, runner: Runner, message: Inbound, outlet: Outlet) -> Reply | None:
        assert message.id is not None
        conversation = self.conversation(session, runner, message)
        try:
            if is_special(message.method or "", session.lane.era):
                return Reply(200, answer(message.id, await self._special(session, runner, message)))
            outlet.outlive()  # a client that leaves has not cancelled
            plain = await conversation.begin()
            if plain is not None:
                return Reply(200, plain)
            stream = session.open_stream()
        except CorralError as problem:
            conversation.abandon()
            return Reply(200, answer(message.id, fault(problem)))
        self.background(self._carry_on, conversation, stream)
        await relay(stream, 0, outlet)
        return None

    async def _carry_on(self, conversation: Conversation, stream: Stream) -> None:
        """A large request is held for as long as it may be made again, and counts among the bodies meanwhile."""
        try:
            with self.services.guards.bodies.reserved(len(conversation.params or b"")):
                await conversation.carry_on(stream)
        except Overloaded as problem:
            conversation.cancel()
            stream.post(answer(conversation.raw_id, fault(problem)))
            stream.finish()

    def conversation(self, session: ClientSession, runner: Runner, message: Inbound) -> Conversation:
        """A request of the session's, not begun.

        Raises:
            Refusal: one with the same id is under way.
        """
        assert message.id is not None
        assert message.method is not None
        if message.id in session.calls:
            raise Refusal(INVALID_REQUEST, "a request with this id is under way already", message.id)
        lane: Lane = session.lane
        made = _CONVERSATIONS[lane.era]
        return made(session, runner, lane, message.method, message.params, message.id)

    async def _special(self, session: ClientSession, runner: Runner, message: Inbound) -> bytes:
        async def forward() -> bytes:
            lane: Lane = session.lane
            call = await calls.begin(runner, lane, message.method or "", message.params, asker=session)
            return await lane.session.pending.wait(call)

        special = Special(session, session.lane, session.membership, message.method or "", message.params, forward)
        return await special.answer()

    async def _batch(
        self, session: ClientSession, runner: Runner, messages: list[Inbound | Refusal], outlet: Outlet
    ) -> Reply | None:
        """Each request is answered on one stream, as its answer comes (2025-03-26)."""
        requests = [message for message in messages if isinstance(message, Inbound) and message.kind == "request"]
        refusals = [message for message in messages if isinstance(message, Refusal)]
        for message in messages:
            if isinstance(message, Inbound) and message.kind != "request":
                self.take_note(session, message)
        if not requests and not refusals:
            return Reply(202)
        stream = session.open_stream()
        for refusal in refusals:
            stream.post(refusal.body)
        self.background(self._answer_all, session, runner, requests, stream)
        await relay(stream, 0, outlet)
        return None

    async def _answer_all(
        self, session: ClientSession, runner: Runner, requests: list[Inbound], stream: Stream
    ) -> None:
        try:
            async with trio.open_nursery() as nursery:
                for message in requests:
                    nursery.start_soon(self.answer_on, session, runner, message, stream)
        finally:
            stream.finish()

    async def answer_on(self, session: ClientSession, runner: Runner, message: Inbound, stream: Stream) -> None:
        """Answer one request on a stream that others share; never fails. Nothing is done for a session that is over."""
        assert message.id is not None
        if session.closed.is_set():
            return
        try:
            if is_special(message.method or "", session.lane.era):
                stream.post(answer(message.id, await self._special(session, runner, message)))
                return
            conversation = self.conversation(session, runner, message)
            plain = await conversation.begin()
            if plain is not None:
                stream.post(plain)
            else:
                await conversation.carry_on(stream, is_shared=True)
        except Refusal as refusal:
            stream.post(refusal.body)
        except CorralError as problem:
            stream.post(answer(message.id, fault(problem)))

    def take_note(self, session: ClientSession, message: Inbound) -> None:
        """A notification or a response of the client's; neither has an answer."""
        if message.kind == "response":
            assert message.id is not None
            assert message.member is not None
            give: Give | None = session.answered(message.id)
            if give is not None:
                give(message.member)
            return
        lane: Lane = session.lane
        if message.method == CANCELLED:
            call = session.calls.get(requested_id(message.params))
            if call is not None:
                call.cancel()
        elif (lane.era is Era.LEGACY and message.method is not None and _is_passed_on(message.method, session)) or (
            lane.era is Era.MODERN and message.method is not None and not ends_here(message.method)
        ):
            lane.session.notify(message.method, message.params)

    def background(self, task: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Run something that outlives the connection; a bug in it is logged, and ends nothing else."""
        assert self._nursery is not None, "run() is running"
        self._nursery.start_soon(_contained, task, args)

    # -- the end of sessions

    def give_up_deserted(self, now: float) -> None:
        """Answer the server's questions for clients that left long ago: its call, and others, wait for them.

        Args:
            now: Trio time.
        """
        deserted = [session for session in self.table.all() if len(session.questions) and not session.is_read]
        self._deserted = {session: self._deserted.get(session, now) for session in deserted}
        for session, since in self._deserted.items():
            if now - since >= DESERTED_S:
                for give in session.questions.close():
                    give(error(INTERNAL_ERROR, "the client that was asked has left"))

    def close(self) -> None:
        """The control plane stops: streams that nobody waits for an answer on end, calls finish first."""
        for session in self.table.all():
            self.background(self._end_after_calls, session)

    def _on_lane_over(self, session: ClientSession) -> None:
        for conversation in list(session.calls.values()):
            conversation.lane_is_over()
        self.background(self._end_after_calls, session)

    async def _end_after_calls(self, session: ClientSession) -> None:
        """Its calls have failed, or may finish while the server drains, and tell their clients before their streams go."""
        with trio.move_on_after(DRAIN_S + ENDING_S):
            while session.calls:  # noqa: ASYNC110  (they end within a few turns, a poll is simplest)
                await trio.sleep(ENDING_POLL_S)
        self.table.end(session)

    def _on_end(self, session: ClientSession, unanswered: list[Give]) -> None:
        for give in unanswered:
            give(error(INTERNAL_ERROR, "the client's session is over"))
        for conversation in list(session.calls.values()):
            conversation.cancel()
        if session.membership is not None:
            session.membership.end()


async def _contained(task: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
    try:
        await task(*args)
    except Exception:
        # One client's trouble, or our bug in handling it, must not reach the others.
        log.exception("internal error behind an MCP session")


def _is_passed_on(method: str, session: ClientSession) -> bool:
    """What concerns one client only reaches a server that several share if there is just one, or nobody can tell."""
    if method == INITIALIZED:  # Corral said so itself
        return False
    if method in {ROOTS_CHANGED, PROGRESS}:
        return session.lane.session.audience.only() is session.membership
    return method.startswith("notifications/")
