"""The hot lane: plain calls and MCP messages, answered on the connection they came in on.

Whatever `hot_head.parse_head` does not plainly understand goes to Hypercorn, with
the bytes read so far, for the rest of that connection.

A request costs no task and no cancel scope. All checks are those of the handlers
that both doors share (`Executor`, `McpEndpoint`); a head that is byte for byte
the last one on this connection is not checked again, as long as the tokens have
not changed.
"""

from __future__ import annotations

from contextlib import suppress
from email.utils import formatdate
from http import HTTPStatus
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING

import trio
from attrs import define, field

from controlplane.cluster.roster import HeldElsewhere
from controlplane.errors import CorralError, NotFound, ShuttingDown
from controlplane.web import traced
from controlplane.web.execute import Executor
from controlplane.web.hot_forward import HotExchange, scope_of
from controlplane.web.hot_head import NEED_MORE, NeedMore, NotPlain, PlainHead, parse_head
from controlplane.web.hot_outlet import HotOutlet, lines
from controlplane.web.hot_wire import READ_BYTES, Wire
from controlplane.web.hypercorn_server import HEAD_S, IDLE_S
from controlplane.web.mcp.outlet import ClientLeft, Reply
from controlplane.web.peers import NODE_HEADER
from controlplane.web.placing import Placing
from controlplane.web.problems import STEADY_HEADERS, Answer, answer_for, problem, unexpected
from controlplane.web.request import Head, new_request_id, request_id_of
from controlplane.web.vouching import VOUCHED

if TYPE_CHECKING:
    from controlplane.web.auth import Grant
    from controlplane.web.mcp.endpoint import McpEndpoint
    from controlplane.web.services import Services

Outcome = bytes | Reply | Answer
"""A whole answer: a success that is nothing but its body, another one of the MCP endpoint, a problem."""
_SUCCESS = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b%b%b"
_WHOLE = b"HTTP/1.1 %d %b\r\n%b%b%b%b"


@define(eq=False)
class HotLane:
    """What all hot connections share. `now` is Trio time, as of the last `tick`."""

    services: Services
    executor: Executor = field(init=False)
    placing: Placing = field(init=False)
    now: float = field(factory=trio.current_time, init=False)
    date: bytes = field(default=b"", init=False)
    steady: bytes = field(default=b"", init=False)
    """The fields that end the head of every success, and the empty line."""
    draining: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.executor = Executor(self.services)
        self.placing = Placing(self.services)
        self.tick()

    def tick(self) -> None:
        """Renew the time; called several times a second, so that no request has to ask for it."""
        self.now = trio.current_time()
        self.date = formatdate(usegmt=True).encode()
        self.steady = lines((*STEADY_HEADERS, (b"date", self.date))) + b"\r\n"


@define(eq=False)
class HotConnection(Wire):
    """One connection while it sends plain requests. `deadline` is Trio time, as for Hypercorn's connections.

    `call_since` is the lane's time at which the present call (or stream) began, 0 without one.
    """

    lane: HotLane = field(kw_only=True)
    peer: str = field(kw_only=True)
    idle: bool = field(default=True, init=False)
    call_since: float = field(default=0.0, init=False)
    _plain: PlainHead | None = field(default=None, init=False)
    _request_head: tuple[PlainHead, Head] | None = field(default=None, init=False)
    _admitted: PlainHead | None = field(default=None, init=False)
    _grant: Grant | None = field(default=None, init=False)
    _generation: int = field(default=-1, init=False)
    _outlet: HotOutlet | None = field(default=None, init=False)
    _ends: bool = field(default=False, init=False)
    """The connection must end after the answer that was handed back."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.deadline = self.lane.now + HEAD_S

    @property
    def outlives(self) -> bool:
        """Whether the present request goes on although its client has left."""
        return self._outlet is not None and self._outlet.outlives

    async def serve(self) -> bytes | None:
        """Answer requests; return the bytes with which Hypercorn must go on, None when the connection is over."""
        with self._scope:
            try:
                return await self._serve()
            except ClientLeft:
                return None
            finally:
                self._release_outlet()
        return None

    async def _serve(self) -> bytes | None:
        buffer = b""
        while True:
            data = await self.receive(READ_BYTES)
            if not data:
                return None
            if not buffer:
                self.deadline = self.lane.now + HEAD_S
            buffer += data
            position = 0
            while position < len(buffer):
                plain = self._parse(buffer, position)
                if plain is NEED_MORE:
                    break
                if not isinstance(plain, PlainHead):
                    return buffer[position:]
                begin = position + len(plain.raw)
                position = begin + plain.length
                if not await self._request(plain, buffer[begin:position]):
                    return None
            if position:
                buffer = buffer[position:]
                self.idle = True
                self.deadline = self.lane.now + (HEAD_S if buffer else IDLE_S)

    def _parse(self, buffer: bytes, position: int) -> PlainHead | NeedMore | NotPlain:
        last = self._plain
        if last is not None and buffer.startswith(last.raw, position):
            return last
        plain = parse_head(buffer, position)
        if isinstance(plain, PlainHead):
            self._plain = plain
        return plain

    # -- one request

    async def _request(self, plain: PlainHead, body: bytes) -> bool:
        """Answer one request, whose body has begun with `body`; False when the connection is over."""
        began = perf_counter()
        self.idle = False
        self.deadline = inf
        own_id = plain.fields.get(b"x-request-id")
        request_id = new_request_id() if own_id is None else request_id_of(self._head(plain))
        unread = plain.length - len(body)
        outcome: Outcome | None
        try:
            grant = self._admit(plain)
            if unread:
                with self.lane.services.guards.bodies.reserved(plain.length):
                    body, unread = await self.rest(body, unread), 0
                    outcome = await self._handle(plain, grant, body, request_id)
            else:
                outcome = await self._handle(plain, grant, body, request_id)
        except CorralError as error:
            outcome = problem(error, request_id=request_id)
        except trio.Cancelled:
            self._say_goodbye(request_id)
            raise
        except ClientLeft:
            raise
        except Exception as error:  # the boundary: a bug becomes an answer
            outcome = answer_for(error, request_id=request_id)
        goes_on = self._outlet is None or self._release_outlet()
        if outcome is None:
            return goes_on and not self._ends
        if self.gone or self.torn:
            return False
        skipped = await self.skip(unread) if unread else True
        keep = skipped and not (plain.close or self.lane.draining)
        await self.send(self._whole(outcome, request_id, keep=keep))
        self._count(plain, 200 if isinstance(outcome, bytes) else outcome.status, began)
        if not skipped:
            await self.linger()
        return keep

    def _admit(self, plain: PlainHead) -> Grant:
        services = self.lane.services
        handler: Executor | McpEndpoint = self.lane.executor if plain.route == "execute" else services.mcp
        grant = self._grant
        if grant is not None and plain is self._admitted and handler.readmit(grant, self._generation):
            return grant
        generation = services.tokens.generation
        grant = handler.admit(self._head(plain))
        # What another node says of a request (`vouching`) is asked about each time.
        self._admitted = None if VOUCHED in plain.fields else plain
        self._grant, self._generation = grant, generation
        return grant

    def _head(self, plain: PlainHead) -> Head:
        """The same object for the same head, so that a handler may remember what it found in it."""
        known = self._request_head
        if known is None or known[0] is not plain:
            known = self._request_head = plain, Head("POST", plain.path, b"", plain.fields, self.peer)
        return known[1]

    async def _handle(self, plain: PlainHead, grant: Grant, body: bytes, request_id: str) -> Outcome | None:
        """The answer; None when it was a stream, which has ended in order."""
        self.call_since = self.lane.now
        try:
            if plain.route == "execute":
                if traced.wanted(plain.fields):
                    return await self.lane.executor.answer(
                        grant.principal, plain.ref, body, self.is_gone, traced_by=plain.fields
                    )
                return await self.lane.executor.answer(grant.principal, plain.ref, body, self.is_gone)
            return await self._post(plain, grant, body, request_id)
        except (HeldElsewhere, NotFound):
            if not await self._hand_on(plain, body, request_id):
                raise
            return None
        finally:
            self.call_since = 0.0

    async def _hand_on(self, plain: PlainHead, body: bytes, request_id: str) -> bool:
        """Have another node answer; False if none can, or if it was another that handed this on."""
        if self.lane.services.roster.is_alone or NODE_HEADER in plain.fields:
            return False
        began = perf_counter()
        exchange = HotExchange(
            self, self.lane, request_id, body, not plain.close, lambda status: self._count(plain, status, began)
        )
        scope = scope_of(plain, request_id)
        try:
            if not await self.lane.placing.hand_on(
                self._head(plain), scope, exchange.receive, exchange.send, body=body, is_counted=True
            ):
                return False
        except BaseException:
            self.torn |= exchange.status != 0  # no other answer can be sent
            raise
        self._ends = not exchange.keep
        return True

    async def _post(self, plain: PlainHead, grant: Grant, body: bytes, request_id: str) -> bytes | Reply | None:
        began = perf_counter()
        self._outlet = outlet = HotOutlet(self, self.lane, grant.principal, request_id, keep=not plain.close)
        try:
            reply = await self.lane.services.mcp.post(grant, plain.ref, self._head(plain), body, outlet)
            if outlet.begun:
                await outlet.end()
                return None
        except Exception as error:
            if not outlet.begun or isinstance(error, ClientLeft):
                raise
            unexpected(error, request_id=request_id)  # too late for an answer: logged, and the stream is cut short
            raise ClientLeft from None
        finally:
            if outlet.begun:
                self._count(plain, 200, began)
        if reply is None and (self.gone or self.torn):
            raise ClientLeft
        if reply is None:
            raise RuntimeError("the MCP endpoint gave no answer")
        return reply.body if reply.is_plain else reply

    def _release_outlet(self) -> bool:
        """Forget the stream of the request that is over; False when the connection must end with it."""
        outlet, self._outlet = self._outlet, None
        if outlet is None:
            return True
        outlet.release()
        return outlet.keep and not self.lane.draining

    def _say_goodbye(self, request_id: str) -> None:
        """The call is being cancelled: at the end of a drain, its caller is told so if that needs no waiting."""
        if self._outlet is not None and self._outlet.begun:
            self._outlet.say_goodbye()
            return
        if not self.lane.draining or self.gone or self.torn:
            return
        answer = problem(
            ShuttingDown("The control plane stopped during the call.", retry_after_s=5), request_id=request_id
        )
        with suppress(ClientLeft):  # it may be gone or not reading; then there is nobody to tell
            self.send_now(self._whole(answer, request_id, keep=False))

    def _count(self, plain: PlainHead, status: int, began: float) -> None:
        meters = self.lane.services.meters
        meters.hot += 1
        meters.count(plain.route, status, perf_counter() - began)

    # -- whole answers

    def _whole(self, outcome: Outcome, request_id: str, *, keep: bool) -> bytes:
        """Head and body."""
        close = b"" if keep else b"connection: close\r\n"
        if isinstance(outcome, bytes):
            return _SUCCESS % (len(outcome), request_id.encode(), close, self.lane.steady, outcome)
        phrase = HTTPStatus(outcome.status).phrase.encode()
        if isinstance(outcome, Reply):
            own = lines((*outcome.fields, (b"x-request-id", request_id.encode())))
            return _WHOLE % (outcome.status, phrase, own, close, self.lane.steady, outcome.body)
        own = lines((*outcome.headers, (b"date", self.lane.date)))
        return _WHOLE % (outcome.status, phrase, own, close, b"\r\n", outcome.body)
