"""The hot lane: plain `execute` requests, answered on the connection they came in on.

Whatever `hot_head.parse_head` does not plainly understand goes to Hypercorn, with
the bytes read so far, for the rest of that connection.

A request costs no task and no cancel scope. All checks are those of
`Executor.admit`; a head that is byte for byte the last one on this connection
is not checked again, as long as the tokens have not changed.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from email.utils import formatdate
from http import HTTPStatus
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING

import trio
from attrs import define, field

from controlplane.errors import CorralError, ShuttingDown
from controlplane.web.execute import Executor
from controlplane.web.hot_head import NEED_MORE, NeedMore, NotPlain, PlainHead, parse_head
from controlplane.web.hypercorn_server import HEAD_S, IDLE_S, LINGER_BYTES, LINGER_S, WRITE_SLICE_BYTES, WRITE_STALL_S
from controlplane.web.problems import STEADY_HEADERS, Answer, answer_for, problem
from controlplane.web.request import Head, new_request_id, request_id_of

if TYPE_CHECKING:
    from controlplane.web.auth import Grant
    from controlplane.web.services import Services

BODY_S = 60.0
"""For the whole body of a call."""
READ_BYTES = 64 * 1024
SKIP_MAX_BYTES = 64 * 1024
"""A refused body up to this size is read and dropped, so that the connection can be kept."""


class ClientLeft(Exception):
    """The client closed the connection in the middle of something: there is nobody to answer."""


@define(eq=False)
class HotLane:
    """What all hot connections share. `now` is Trio time, as of the last `tick`."""

    services: Services
    executor: Executor = field(init=False)
    now: float = field(factory=trio.current_time, init=False)
    date: bytes = field(default=b"", init=False)
    steady: bytes = field(default=b"", init=False)
    """The fields that end the head of every success, and the empty line."""
    draining: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.executor = Executor(self.services)
        self.tick()

    def tick(self) -> None:
        """Renew the time; called several times a second, so that no request has to ask for it."""
        self.now = trio.current_time()
        self.date = formatdate(usegmt=True).encode()
        self.steady = b"".join(b"%b: %b\r\n" % pair for pair in (*STEADY_HEADERS, (b"date", self.date))) + b"\r\n"


@define(eq=False)
class HotConnection:
    """One connection while it sends plain requests. `deadline` is Trio time, as for Hypercorn's connections.

    `call_since` is the lane's time at which the present call began, 0 without one.
    """

    lane: HotLane
    sock: socket.socket
    peer: str
    deadline: float = field(init=False)
    idle: bool = field(default=True, init=False)
    call_since: float = field(default=0.0, init=False)
    gone: bool = field(default=False, init=False)
    fd: int = field(init=False)
    _scope: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    _plain: PlainHead | None = field(default=None, init=False)
    _admitted: PlainHead | None = field(default=None, init=False)
    _grant: Grant | None = field(default=None, init=False)
    _generation: int = field(default=-1, init=False)

    def __attrs_post_init__(self) -> None:
        self.fd = self.sock.fileno()
        self.deadline = self.lane.now + HEAD_S

    def is_gone(self) -> bool:
        """Whether the caller has left, as far as the sweeper has seen."""
        return self.gone

    def cut(self) -> None:
        """End the connection now, whatever it is doing."""
        self._scope.cancel()

    async def serve(self) -> bytes | None:
        """Answer requests; return the bytes with which Hypercorn must go on, None when the connection is over."""
        with self._scope:
            with suppress(ClientLeft):
                return await self._serve()
        return None

    async def _serve(self) -> bytes | None:
        buffer = b""
        while True:
            data = await self._receive(READ_BYTES)
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
        failure: Answer | None = None
        answer = b""
        try:
            grant = self._admit(plain)
            if unread:
                with self.lane.services.guards.bodies.reserved(plain.length):
                    body, unread = await self._rest(body, unread), 0
                    answer = await self._call(plain, grant, body)
            else:
                answer = await self._call(plain, grant, body)
        except CorralError as error:
            failure = problem(error, request_id=request_id)
        except trio.Cancelled:
            self._say_goodbye(request_id)
            raise
        except ClientLeft:
            raise
        except Exception as error:  # the boundary: a bug becomes an answer
            failure = answer_for(error, request_id=request_id)
        if self.gone:
            return False
        skipped = await self._skip(unread)
        keep = skipped and not (plain.close or self.lane.draining)
        if failure is None:
            await self._send(self._success_head(len(answer), request_id, keep=keep), answer)
        else:
            await self._send(self._failure_head(failure, keep=keep), failure.body)
        meters = self.lane.services.meters
        meters.hot += 1
        meters.count("execute", failure.status if failure else 200, perf_counter() - began)
        if not skipped:
            await self._linger()
        return keep

    def _admit(self, plain: PlainHead) -> Grant:
        executor = self.lane.executor
        grant = self._grant
        if grant is not None and plain is self._admitted and executor.readmit(grant, self._generation):
            return grant
        generation = self.lane.services.tokens.generation
        grant = executor.admit(self._head(plain))
        self._admitted, self._grant, self._generation = plain, grant, generation
        return grant

    def _head(self, plain: PlainHead) -> Head:
        return Head("POST", plain.path, b"", plain.fields, self.peer)

    async def _call(self, plain: PlainHead, grant: Grant, body: bytes) -> bytes:
        self.call_since = self.lane.now
        try:
            return await self.lane.executor.answer(grant.principal, plain.ref, body, self.is_gone)
        finally:
            self.call_since = 0.0

    def _say_goodbye(self, request_id: str) -> None:
        """The call is being cancelled: at the end of a drain, its caller is told so if that needs no waiting."""
        if not self.lane.draining or self.gone:
            return
        answer = problem(
            ShuttingDown("The control plane stopped during the call.", retry_after_s=5), request_id=request_id
        )
        with suppress(OSError):  # it may be gone or not reading; then there is nobody to tell
            self.sock.send(self._failure_head(answer, keep=False) + answer.body)

    # -- bytes

    async def _receive(self, max_bytes: int) -> bytes:
        """What has come in; nothing once the client has closed or reset the connection."""
        while True:
            await trio.lowlevel.wait_readable(self.fd)
            try:
                return self.sock.recv(max_bytes)
            except BlockingIOError:
                continue
            except OSError:
                return b""

    async def _rest(self, body: bytes, unread: int) -> bytes:
        """Read the missing part of a body."""
        self.deadline = self.lane.now + BODY_S
        chunks = [body]
        while unread:
            data = await self._receive(min(unread, READ_BYTES * 4))
            if not data:
                raise ClientLeft
            chunks.append(data)
            unread -= len(data)
        self.deadline = inf
        return b"".join(chunks)

    async def _skip(self, unread: int) -> bool:
        """Drop the rest of a refused body; False when it is too long, and the connection must end instead."""
        if unread > SKIP_MAX_BYTES:
            return False
        if unread:
            await self._rest(b"", unread)
        return True

    async def _send(self, head: bytes, body: bytes) -> None:
        data = head + body
        sent = self._send_now(data)
        if sent < len(data):
            await self._send_rest(memoryview(data)[sent:])

    def _send_now(self, data: bytes | memoryview) -> int:
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            raise ClientLeft from None

    async def _send_rest(self, view: memoryview) -> None:
        """The slow path: the client must take `WRITE_SLICE_BYTES` in each `WRITE_STALL_S`."""
        due = len(view)
        while view:
            if len(view) <= due:
                due = len(view) - WRITE_SLICE_BYTES
                self.deadline = trio.current_time() + WRITE_STALL_S
            await trio.lowlevel.wait_writable(self.fd)
            view = view[self._send_now(view) :]
        self.deadline = inf

    async def _linger(self) -> None:
        """Half close, and drop what still comes, so that the answer is not lost to a reset."""
        self.deadline = trio.current_time() + LINGER_S
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
        dropped = 0
        while dropped <= LINGER_BYTES and (data := await self._receive(READ_BYTES)):
            dropped += len(data)

    def _success_head(self, length: int, request_id: str, *, keep: bool) -> bytes:
        return (
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b%b"
            % (
                length,
                request_id.encode(),
                b"" if keep else b"connection: close\r\n",
                self.lane.steady,
            )
        )

    def _failure_head(self, answer: Answer, *, keep: bool) -> bytes:
        fields = b"".join(b"%b: %b\r\n" % pair for pair in answer.headers)
        phrase = HTTPStatus(answer.status).phrase.encode()
        close = b"" if keep else b"connection: close\r\n"
        return b"HTTP/1.1 %d %b\r\n%b%bdate: %b\r\n\r\n" % (answer.status, phrase, fields, close, self.lane.date)
