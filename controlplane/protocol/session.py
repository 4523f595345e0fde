"""One JSON-RPC conversation with a child, over its stdin and stdout.

One reader, one writer, one table of calls in flight. The session never judges:
noise on stdout, over-long lines and refused questions are reported to its
`Listener`; when the stream ends, every pending call fails at once with the
error that the owner names.

What the child says besides answers goes to the call it belongs to, else to the
`Audience`: the clients that share this conversation.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Protocol

import trio
from attrs import define, field

from controlplane.core import jsonrpc
from controlplane.core.framing import LineSplitter, Oversized
from controlplane.core.jsonrpc import Garbled, Notification, Request, Response
from controlplane.errors import BadChildMessage, Busy, CallTimeout, CorralError, InstanceCrashed, PayloadTooLarge
from controlplane.protocol import dialect, routing
from controlplane.protocol.asking import Asking
from controlplane.protocol.audience import Audience, Member
from controlplane.protocol.greeting import PROBE_TIMEOUT_S, Greeting
from controlplane.protocol.handshake import (
    FIRST_CALL_ID,
    INITIALIZE_ID,
    PROBE_ID,
    Era,
    Handshake,
    ProtocolFacts,
    Ready,
    Refused,
    SendInitialize,
    Step,
    initialize_params,
    modern_meta,
)
from controlplane.protocol.outbox import Outbox, OutboxFull
from controlplane.protocol.pending import CALLER_GONE, PATIENCE_S, TICK_S, Asked, Call, Pending, Told
from controlplane.protocol.turns import Turns

MAX_MESSAGE_BYTES = 16 * 2**20
REMEMBERED_BYTES = 4096
"""Of each of the last frames, for a post-mortem; what is shown is cut after redaction."""
READ_BYTES = 256 * 1024
EVENTS_PER_TURN = 32
"""What a server tells before the streams get their turn: each line may be two events, and a subscriber's queue holds 256.
A burst that arrives in one read must not cut readers who never had a chance to read."""


UNANSWERED = jsonrpc.INTERNAL_ERROR
"""Internal error: what a server gets whose question lost its client."""


class Listener(Protocol):
    """Who owns a session hears of everything that is not an answer."""

    def on_notification(self, method: str, params: bytes | None) -> None: ...
    def on_child_request(self, method: str) -> None: ...
    def on_noise(self, line: bytes) -> None: ...
    def on_oversized(self, size_bytes: int) -> None: ...


class HandshakeRefused(Exception):
    """The server answered the handshake with something that cannot be used."""


@define(eq=False)
class Session:
    """Talk to one child. `version` is Corral's own, for the handshake.

    `broken` is set when the conversation cannot go on: stdout ended, stdin
    broke, or a bare server fell out of step.
    """

    outbox: Outbox
    stdout_fd: int
    listener: Listener
    version: str
    audience: Audience = field(factory=Audience, init=False)
    facts: ProtocolFacts | None = field(default=None, init=False)
    broken: trio.Event = field(factory=trio.Event, init=False)
    broken_reason: str = field(default="", init=False)
    gave_up: bool = field(default=False, init=False)
    """It was broken off over a time limit, which a bare server cannot be told of: no fault of the server's."""
    last_frames: list[bytes] = field(factory=list, init=False)
    heard: int = field(default=0, init=False)
    """Grows with everything that the child writes on stdout."""
    pending: Pending = field(init=False)
    tap: Callable[[bytes | Oversized], None] | None = field(default=None, init=False)
    """Gets each line that is read, where somebody watches; `outbox.tap` gets what is sent."""
    _next_id: int = field(default=FIRST_CALL_ID, init=False)
    _greeting: Greeting | None = field(factory=Greeting, init=False)
    """While the handshake is under way."""
    _clock: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)
    _epitaph: Callable[[], CorralError] | None = field(default=None, init=False)
    _turns: Turns = field(init=False)
    _introduction: bytes | None = field(default=None, init=False)
    _asking: Asking | None = field(default=None, init=False)
    """Only where the child may ask."""

    def __attrs_post_init__(self) -> None:
        self.pending = Pending(self._on_dropped)
        self._turns = Turns(self.pending)

    async def run(self) -> None:
        """Service loop: read, write, watch time limits. Ends when the conversation is over."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write)
            nursery.start_soon(self._watch_deadlines)
            await self._read()
            nursery.cancel_scope.cancel()

    def introduce(self, params: bytes, *, may_ask: bool, is_private: bool = False) -> None:
        """Have the handshake speak the legacy era at once, without a probe, on behalf of clients.

        Args:
            params: Raw, of `initialize`: with the capabilities of the clients that the conversation is for.
            may_ask: Whether these let the child ask.
            is_private: Whether it is for one client, which what the child asks first may wait for.
        """
        self._introduction = params
        if may_ask:
            self._asking = Asking(
                self.pending, self.audience, self._refuse_unanswered, self._ping, is_private=is_private
            )
        self._greeting = Greeting(Handshake(is_direct=True))

    async def shake_hands(self) -> ProtocolFacts:
        """Find the server's era and introduce Corral. The caller bounds the time.

        Raises:
            HandshakeRefused: the server's answer cannot be used.
        """
        greeting = self._greeting
        assert greeting is not None, "one handshake is enough"
        if self._introduction is not None:
            step: Step = SendInitialize()
        else:
            params = jsonrpc.encode({"_meta": modern_meta(self.version)})
            self._send(jsonrpc.request_line(PROBE_ID, "server/discover", params))
            step = await greeting.first_step()
        while True:
            match step:
                case Ready(facts):
                    return self._begin(facts, greeting.unanswered)
                case Refused(reason):
                    raise HandshakeRefused(reason)
                case SendInitialize():
                    params = self._introduction or jsonrpc.encode(initialize_params(self.version))
                    self._send(jsonrpc.request_line(INITIALIZE_ID, "initialize", params))
            step = await greeting.next_step()

    async def call(
        self,
        method: str,
        params: bytes | None,
        *,
        timeout_s: float,
        owed_s: float = 0.0,
        is_gone: Callable[[], bool] | None = None,
        on_notification: Callable[[str, bytes | None], None] | None = None,
        is_own: bool = False,
    ) -> bytes:
        """Ask the server and wait for the raw `"result":…` or `"error":…` member of its answer.

        Args:
            method: The JSON-RPC method.
            params: Raw JSON, or None.
            timeout_s: Seconds until the call is given up and the server told so.
            owed_s: Seconds that a server without ids is given to answer, whoever still waits. It cannot be told that a
                call was given up, and its next answer would be the wrong one: then it is given up itself.
            is_gone: Asked now and then; True ends the call, because nobody waits for it.
            on_notification: Gets progress and log notifications that belong to this call.
            is_own: Corral asks on its own account; see `Call`.

        Raises:
            CallTimeout, Busy, InstanceCrashed, BadChildMessage, PayloadTooLarge
        """
        facts = self.facts
        assert facts is not None, "calls come after the handshake"
        own = dialect.synthesized(facts, method)
        if own is not None:
            return own
        if facts.era is Era.BARE:
            return await self._call_in_turn(method, params, timeout_s, owed_s, is_gone)
        outgoing = dialect.outgoing_params(facts.era, params, self.version)
        began = trio.current_time()
        call = Call(method, began, began + timeout_s, is_gone, hears=on_notification is not None, is_own=is_own)
        self._begin_call(call, outgoing, own_token=call.hears)
        if on_notification is None:
            return await self.pending.wait(call)
        while not isinstance(said := await self.pending.next(call), bytes):
            if isinstance(said, Told):
                on_notification(said.method, said.params)
        return said

    async def open(
        self,
        method: str,
        params: bytes | None,
        *,
        timeout_s: float,
        asker: object,
        is_gone: Callable[[], bool] | None = None,
        logs: bool = True,
        can_leave: bool = False,
    ) -> Call:
        """Send a request whose caller takes what comes, piece by piece, with `pending.next`.

        Args:
            method: The JSON-RPC method.
            params: Raw JSON as the child is to have it; a progress token in it is replaced by Corral's own.
            timeout_s: Seconds, the wait for the floor included.
            asker: Who the child's questions are for.
            is_gone: See `call`.
            logs: Whether log lines may be this call's.
            can_leave: Whether the caller can go to another process of the instance.

        Raises:
            CallTimeout, Busy, InstanceCrashed, PayloadTooLarge
            FloorTaken: only where the caller can go elsewhere, and should.
        """
        now = trio.current_time()
        call = Call(method, now, now + timeout_s, is_gone, hears=True, asker=asker, logs=logs)
        if self._asking is not None:
            self._clock.unpark_all()  # it may have to say when a turn has come
            await self._asking.enter(call, can_leave=can_leave)
        try:
            self._begin_call(call, params, own_token=params is not None and b'"progressToken"' in params)
        except CorralError:
            if self._asking is not None:
                self._asking.cancel_entry(call)
            raise
        return call

    def request_nowait(self, method: str, params: bytes | None) -> None:
        """Ask the child something whose answer does not matter."""
        self._next_id += 1
        with suppress(CorralError):
            self._send(jsonrpc.request_line(self._next_id, method, params))

    @property
    def can_be_asked(self) -> bool:
        """Whether the child would answer if it was asked whether it is there: not one that answers in order and without
        ids, nor surely one that waits for a client's answer itself."""
        if self.facts is None or self.facts.era is Era.BARE:
            return False
        return self._asking is None or not self._asking.awaits_answer

    def ask_if_there(self) -> None:
        """Ask the child what it must answer at once, in its era: `ping`, or `server/discover`, as the modern one has no
        ping. That it says something is answer enough."""
        if self.facts is not None and self.facts.era is Era.MODERN:
            self.request_nowait("server/discover", jsonrpc.encode({"_meta": modern_meta(self.version)}))
        else:
            self.request_nowait("ping", None)

    def must_wait(self, method: str, asker: object) -> bool:
        """Whether `open` would wait for its turn."""
        return self._asking is not None and self._asking.must_wait(method, asker)

    @property
    def has_queue(self) -> bool:
        """Whether callers of a bare server wait for their turn, or have it."""
        return self._turns.is_taken

    def is_crowded(self) -> bool:
        """Whether calls that may ask should rather go to another process."""
        return self._asking is not None and self._asking.is_crowded()

    def notify(self, method: str, params: bytes | None) -> None:
        """Tell the child something; it is dropped when the child does not read."""
        tail = b"" if params is None else b',"params":' + jsonrpc.one_line(params)
        with suppress(CorralError):
            self._send(b'{"jsonrpc":"2.0","method":%b%b}\n' % (jsonrpc.encode_text(method), tail))

    def answer(self, asked_id: bytes, member: bytes) -> bool:
        """Answer a question of the child's, once; False when it was answered or withdrawn before."""
        if self._asking is None or not self._asking.take(asked_id):
            return False
        with suppress(CorralError):  # it does not read; the writer notices a broken pipe
            self._send(b'{"jsonrpc":"2.0","id":%b,%b}\n' % (jsonrpc.one_line(asked_id), jsonrpc.one_line(member)))
        return True

    def waits_for(self, asked_id: bytes) -> bool:
        """Whether the child still wants an answer to a question."""
        return self._asking is not None and self._asking.is_open(asked_id)

    def fail_pending(self, error: Callable[[], CorralError]) -> None:
        """End every call in flight, and every one that comes later."""
        self._epitaph = error
        self.pending.fail_all(lambda _call: error())
        self._turns.close()
        if self._asking is not None:
            self._asking.close()

    # -- calls

    def _begin_call(self, call: Call, params: bytes | None, *, own_token: bool) -> None:
        if self._epitaph is not None:
            raise self._epitaph()
        self._next_id = call.wire_id = self._next_id + 1
        if own_token:
            params = routing.under_own_token(call, params)
        line = jsonrpc.request_line(call.wire_id, call.method, params)
        self.pending.add(call)
        try:
            self._send(line, soon=len(self.pending) > 1)
        except CorralError:
            self.pending.pop(call.wire_id)
            raise
        if self._clock:
            self._clock.unpark_all()

    async def _call_in_turn(
        self, method: str, params: bytes | None, timeout_s: float, owed_s: float, is_gone: Callable[[], bool] | None
    ) -> bytes:
        """A bare server answers in order and without ids: one call at a time."""
        began = trio.current_time()
        async with self._turns.take(began + timeout_s) as has_turn:
            if not has_turn:
                raise CallTimeout(f"no answer to {method} within {timeout_s:g} s")
            if self._epitaph is None and self.broken.is_set():
                raise InstanceCrashed(self.broken_reason)
            if is_gone is not None and trio.current_time() - began > PATIENCE_S and is_gone():
                raise CallTimeout(CALLER_GONE)
            params = dialect.outgoing_params(Era.BARE, params, self.version)
            owed_until = trio.current_time() + owed_s
            call = Call(method, began, began + timeout_s, is_gone, owed_until=owed_until)
            self._begin_call(call, params, own_token=False)
            return dialect.mended(method, await self.pending.wait(call))

    def _on_dropped(self, call: Call, why: str) -> None:
        """A call ended unanswered: tell the server, or give a bare one up (the next answer would be the wrong one)."""
        if self.facts is not None and self.facts.era is Era.BARE:
            self.gave_up = True
            self._break(f"a call {why}, and a server without ids cannot be told")
            return
        params = {"requestId": call.wire_id, "reason": why}
        # If it does not read, the answer, should one ever come, is dropped as late.
        with suppress(OutboxFull, BrokenPipeError):
            self.outbox.send_nowait(jsonrpc.notification_line("notifications/cancelled", params))
        if self._asking is not None:
            self._asking.gave_up(call)

    def _ping(self) -> int:
        self._next_id += 1
        with suppress(OutboxFull, BrokenPipeError):
            self.outbox.send_nowait(jsonrpc.request_line(self._next_id, "ping", None))
        return self._next_id

    def _send(self, line: bytes, *, soon: bool = False) -> None:
        if len(line) > self.outbox.max_bytes:
            raise PayloadTooLarge(f"the message has {len(line)} bytes; at most {self.outbox.max_bytes} are sent on")
        try:
            self.outbox.send_nowait(line, soon=soon)
        except OutboxFull:
            raise Busy("the server does not read as fast as it is called", retry_after_s=1) from None
        except BrokenPipeError:
            self._break("the server closed its stdin")
            raise InstanceCrashed("the server closed its stdin") from None
        if self._greeting is not None:
            self._greeting.unanswered += 1

    # -- service loops

    async def _write(self) -> None:
        await self.outbox.run()
        self._break("the server closed its stdin")

    async def _watch_deadlines(self) -> None:
        while True:
            if not (self.pending.needs_clock or (self._asking is not None and self._asking.needs_clock)):
                await self._clock.park()
            await trio.sleep(TICK_S)
            now = trio.current_time()
            self.pending.expire(now)
            if self._asking is not None:
                self._asking.review(now)

    async def _read(self) -> None:
        splitter = LineSplitter(MAX_MESSAGE_BYTES)
        while True:
            await trio.lowlevel.wait_readable(self.stdout_fd)  # first: a read in vain costs a call more than this
            try:
                data = os.read(self.stdout_fd, READ_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            self.heard += 1
            lines = splitter.feed(data) if data else splitter.close()
            told = 0
            for line in lines:
                told += not self._on_line(line, is_whole=bool(data))
                if told == EVENTS_PER_TURN:
                    told = 0
                    await trio.lowlevel.checkpoint()
            if not data:
                self._break("the server closed its stdout")
                return

    def _break(self, reason: str) -> None:
        if not self.broken.is_set():
            self.broken_reason = reason
            self.broken.set()
            self._turns.close()

    # -- what the server says

    def _on_line(self, line: bytes | Oversized, *, is_whole: bool) -> bool:
        """Take one line; whether it was an answer, which only its caller hears of."""
        if self.tap is not None:
            self.tap(line)
        if isinstance(line, Oversized):
            self._on_oversized(line.size_bytes)
            return False
        message = jsonrpc.parse(line)
        if isinstance(message, Response):
            self._on_response(message)
            return self.tap is None
        self._remember(line)
        try:
            self._on_other(line, message if is_whole or not isinstance(message, Garbled) else None)
        except RecursionError:  # nested so deep that it decoded, and did not encode a few frames further down the stack
            self.listener.on_noise(line)
        return False

    def _on_other(self, line: bytes, message: Garbled | Notification | Request | None) -> None:
        match message:
            case None:
                self.listener.on_noise(line)
            case Garbled(raw_id):
                self.listener.on_noise(line)
                self._settle(jsonrpc.own_id(raw_id), BadChildMessage("the server's answer is not valid JSON"))
            case Notification(method, params):
                self._on_notification(method, params)
            case Request():
                self._answer(message)

    def _on_response(self, response: Response) -> None:
        if self._greeting is not None:
            self._greeting.on_reply(response)
        elif response.id is not None:
            self._settle(jsonrpc.own_id(response.id), response.member)
        elif self.pending.in_order and (call := self.pending.first()) is not None:
            self._settle(call.wire_id, response.member)

    def _settle(self, wire_id: int, outcome: bytes | CorralError) -> None:
        if self._asking is not None and self.pending.get(wire_id) is None and self._asking.answered(wire_id):
            return
        call = self.pending.pop(wire_id)
        if call is not None:
            call.settle(outcome)
            self._turns.look_again()

    def _on_oversized(self, size_bytes: int) -> None:
        """Whose answer it was is unknown: every caller is told rather than left waiting."""
        self.listener.on_oversized(size_bytes)
        detail = f"the server wrote a message of {size_bytes} bytes; the limit is {MAX_MESSAGE_BYTES}"
        if self.pending.in_order:
            self._break(detail + ", and a server without ids may have meant it for an answer")
        self.pending.fail_all(lambda _call: BadChildMessage(detail))

    def _on_notification(self, method: str, params: bytes | None) -> None:
        era = self.facts.era if self.facts is not None else Era.LEGACY
        call = routing.owner_of(method, params, self.pending, era)
        if call is not None:
            if call.hears:
                call.hear(Told(method, routing.under_callers_token(call, method, params)))
        elif method == routing.CANCELLED:
            if self._asking is not None:
                self._asking.withdraw(params)
        elif method != routing.LOG or not (
            self.pending or self.pending.given_up()
        ):  # a call's log line is nobody else's
            self.audience.tell(method, params)
        self.listener.on_notification(method, params)

    def _answer(self, request: Request) -> None:
        """The server asks: `ping` is answered, anything else goes to whom it is surely for, or is refused."""
        if self.pending.in_order:  # it would answer our answer
            self.listener.on_child_request(request.method)
        elif request.method == "ping":
            with suppress(CorralError):
                self._send(jsonrpc.result_line(request.id, {}))
        elif self._asking is None or not self._asking.put(Asked(request.id, request.method, request.params)):
            self.listener.on_child_request(request.method)
            self._refuse(request.id, jsonrpc.METHOD_NOT_FOUND, f"{request.method} is not offered here")
        elif self._asking.needs_clock:
            self._clock.unpark_all()

    def forget_member(self, member: Member) -> None:
        """A client has left the audience: what it was asked gets an error."""
        if self._asking is not None:
            self._asking.forget_member(member)

    def end_subscriptions(self, error: Callable[[], CorralError]) -> None:
        """End the calls that would never end by themselves, or not before a person has answered."""
        for call in [call for call in self.pending if call.deadline == inf or not call.counts]:
            self.pending.pop(call.wire_id)
            call.settle(error())

    def _refuse_unanswered(self, asked_id: bytes) -> None:
        """Whoever was asked has left."""
        self._refuse(asked_id, UNANSWERED, "the client that was asked has left")

    def _refuse(self, raw_id: bytes, code: int, message: str) -> None:
        with suppress(CorralError):  # it does not read; the writer notices a broken pipe
            self._send(jsonrpc.error_line(raw_id, code, message))

    def _remember(self, line: bytes) -> None:
        self.last_frames.append(line[:REMEMBERED_BYTES])
        del self.last_frames[:-5]

    # -- after the handshake

    def _begin(self, facts: ProtocolFacts, unanswered: int) -> ProtocolFacts:
        self.facts = facts
        self._greeting = None
        if facts.era is Era.BARE:
            self._begin_in_order(unanswered)
        elif facts.era is Era.LEGACY and facts.version is not None:
            self._send(jsonrpc.notification_line("notifications/initialized"))
        return facts

    def _begin_in_order(self, unanswered: int) -> None:
        """Answers to the handshake's other lines are still on the way; none may be taken for a call's."""
        self.pending.in_order = True
        for _ in range(unanswered):
            self._next_id += 1
            self.pending.owe(self._next_id, until=trio.current_time() + PROBE_TIMEOUT_S)
        self._clock.unpark_all()
