"""One request of a legacy client, from the POST to its response.

Most are answered within `INLINE_S`, as plain JSON. One that takes longer, tells
something or asks something becomes a stream of its session, written by a task
that the connection does not own: in the legacy era a client that loses its
connection has not cancelled, and may resume the stream (MCP 2025-11-25,
transports).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
from typing import TYPE_CHECKING

import trio
from attrs import define, field

from controlplane.core.jsonrpc import INTERNAL_ERROR, METHOD_NOT_FOUND
from controlplane.core.rawjson import encode
from controlplane.errors import CorralError
from controlplane.protocol.logging_levels import level_in, passes
from controlplane.protocol.members import error, object_members
from controlplane.protocol.pending import CANCELLED as GIVEN_UP
from controlplane.protocol.pending import Asked, Told
from controlplane.protocol.routing import CANCELLED, LOG
from controlplane.supervise import calls
from controlplane.web.mcp import known_lists
from controlplane.web.mcp.answers import answer, fault, notification
from controlplane.web.mcp.questions import TooManyQuestions

if TYPE_CHECKING:
    from controlplane.protocol.pending import Call
    from controlplane.supervise.lane import Lane
    from controlplane.supervise.runner import Runner
    from controlplane.web.mcp.client_session import ClientSession
    from controlplane.web.mcp.streams import Stream

INLINE_S = 1.0
"""A call that is answered sooner needs no stream, and nothing to resume."""
ANSWER_S = 300.0
"""For a person to answer what the server asks; meanwhile the call's own time does not run."""

Give = Callable[[bytes], None]
"""Takes the raw member of a client's answer."""


@define(eq=False)
class Conversation:
    """A request under way to a server of the client's own era. `raw_id` is the client's."""

    session: ClientSession
    runner: Runner
    lane: Lane
    method: str
    params: bytes | None
    raw_id: bytes
    call: Call | None = field(default=None, init=False)
    cancelled: bool = field(default=False, init=False)
    _turn: trio.CancelScope | None = field(default=None, init=False)
    """Around the wait until it may be made, if it has to wait."""
    _stream: Stream | None = field(default=None, init=False)
    _first: bytes | Told | Asked | None = field(default=None, init=False)

    async def begin(self) -> bytes | None:
        """Send the request, and wait for a plain answer; None when it needs a stream: `carry_on` with one."""
        self.session.calls[self.raw_id] = self
        if self.lane.session.must_wait(self.method, self.session):
            return None
        said: bytes | Told | Asked | None = b""
        try:
            await self.send()
            said = await self._next(nudge_after_s=INLINE_S)
            final = self.settle(said) if isinstance(said, bytes) else None
        except CorralError as problem:
            final = fault(problem)
        except BaseException:
            self._end()
            raise
        self._first = said
        if final is None:
            return None
        self._end()
        return answer(self.raw_id, final)

    async def carry_on(self, stream: Stream, *, is_shared: bool = False) -> None:
        """Service loop: write what comes on this stream, the response last; a shared one does not finish with it."""
        self._stream = stream
        member = error(INTERNAL_ERROR, "internal error")
        try:
            member = await self._rest()
        except CorralError as problem:
            member = fault(problem)
        finally:
            stream.post(answer(self.raw_id, member))
            if not is_shared:
                stream.finish()
            self._end()

    def abandon(self) -> None:
        """There is no stream to carry it on with."""
        self.cancel()
        self._end()

    def cancel(self) -> None:
        """The client does not want it any more."""
        self.cancelled = True
        if self._turn is not None:
            self._turn.cancel()
        if self.call is not None:
            self.lane.session.pending.give_up(self.call, "the client cancelled the request")

    def lane_is_over(self) -> None:
        """The server has gone; what is in flight there has failed already."""

    # -- what a bridge does otherwise

    async def send(self) -> None:
        """Make the call."""
        self.call = await calls.begin(self.runner, self.lane, self.method, self.params, asker=self.session)

    def settle(self, member: bytes) -> bytes | None:
        """The server's answer as the client gets it; None when something else has to be done first: `go_round`."""
        known_lists.note(self.runner, self.lane, self.method, self.params, member)
        return member

    async def go_round(self) -> bytes | None:
        """Do it; returns the answer, should the call be over with that."""
        raise NotImplementedError

    # -- what comes back

    def _next(self, *, nudge_after_s: float = inf) -> Awaitable[bytes | Told | Asked | None]:
        call = self.call
        assert call is not None
        return self.lane.session.pending.next(call, call.started + nudge_after_s)

    async def _take_turn(self) -> bool:
        """Make the call when it may be made; False when it is not wanted any more by then, and was not made."""
        if self.cancelled:
            return False
        with trio.CancelScope() as self._turn:
            await self.send()
        if self.cancelled:
            self.cancel()
        return self.call is not None

    async def _rest(self) -> bytes:
        if self.call is None and not await self._take_turn():
            return GIVEN_UP
        said = self._first
        while True:
            if isinstance(said, bytes):
                final = self.settle(said) if said is not self._first else None
                if final is None:
                    final = await self.go_round()
                if final is not None:
                    return final
            elif said is not None:
                self._relay(said)
            said = await self._next()

    def _relay(self, said: Told | Asked) -> None:
        if isinstance(said, Asked):
            self._pass_on(said)
        elif said.method == CANCELLED:
            self._withdraw(said.params)
        else:
            assert self.call is not None
            calls.extend(self.runner, self.call)
            wanted = self.session.log_level
            if said.method != LOG or wanted is None or passes(level_in(said.params), wanted):
                self.session.deliver(notification(said.method, said.params), self._stream)

    # -- what the server asks

    def ask(self, method: str, params: bytes | None, give: Give) -> str | None:
        """Put a question to the client; returns its id towards the client, None if it cannot be asked any more."""
        try:
            own_id, message = self.session.ask(give, method, params)
        except TooManyQuestions as refused:
            give(error(METHOD_NOT_FOUND, str(refused)))
            return None
        self.session.deliver(message, self._stream)
        return own_id

    def _pass_on(self, asked: Asked) -> None:
        for conversation in self.session.calls.values():  # a question does not say which of them asks it
            conversation.wait_for_client()
        own_id = self.ask(asked.method, asked.params, lambda member: self._give(asked, member))
        if own_id is not None:
            self.session.asked[asked.id] = own_id

    def _give(self, asked: Asked, member: bytes) -> None:
        self.session.asked.pop(asked.id, None)
        self.lane.session.answer(asked.id, member)
        if not self.session.asked:
            for conversation in self.session.calls.values():
                conversation.go_on()

    def wait_for_client(self) -> None:
        """A person is asked something: the call gets the time for that."""
        if self.call is not None:
            self.call.deadline = max(self.call.deadline, trio.current_time() + ANSWER_S)

    def go_on(self) -> None:
        """The client has answered: it is the server's turn, and the call's own time begins anew."""
        if self.call is not None:
            self.call.deadline = trio.current_time() + self.runner.instance.spec.limits.call_timeout_s

    def _withdraw(self, params: bytes | None) -> None:
        """The server does not want an answer any more: the client is told, with the id that it knows."""
        own_id = self.session.asked.pop(requested_id(params), None)
        if own_id is not None:
            retract(self.session, own_id, params, self._stream)

    def _end(self) -> None:
        if self.session.calls.get(self.raw_id) is self:
            del self.session.calls[self.raw_id]
        self.session.touch()
        if self.call is not None:
            self.lane.session.pending.give_up(self.call, "the call was ended")
        asked = self.session.asked
        for asked_id in [asked_id for asked_id in asked if not self.lane.session.waits_for(asked_id)]:
            self.session.questions.withdraw(asked.pop(asked_id))


def requested_id(params: bytes | None) -> bytes:
    """The raw id that a `notifications/cancelled` names; empty if it names none."""
    return bytes(object_members(params).get("requestId", b""))


def retract(session: ClientSession, own_id: str, params: bytes | None, related: Stream | None = None) -> None:
    """Tell a client that the server wants no answer any more, by the id that the client knows.

    Args:
        params: Of the server's `notifications/cancelled`, raw.
        related: The stream of the call that it belongs to.
    """
    if session.questions.withdraw(own_id) is not None:
        renamed = encode(object_members(params) | {"requestId": own_id})
        session.deliver(notification(CANCELLED, renamed), related)
