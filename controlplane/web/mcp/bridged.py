"""One request of a legacy client to a server that is not of its era: a modern one, or a bare one.

What the server asks for in its result is put to the client as requests, and the
call is made again with the answers, as often as it asks. The client's own
connection sees one call.
"""

from __future__ import annotations

from functools import partial
from math import inf

import trio
from attrs import define, field

from controlplane.core.rawjson import decode_or_none
from controlplane.errors import CallTimeout, CorralError
from controlplane.protocol import legacy_to_modern as bridge
from controlplane.protocol.capabilities import capability_set
from controlplane.protocol.legacy_to_modern import Ask, Final
from controlplane.protocol.members import object_members
from controlplane.protocol.pending import CANCELLED, Asked, Told
from controlplane.protocol.routing import PROGRESS
from controlplane.supervise import calls
from controlplane.web.mcp import known_lists
from controlplane.web.mcp.answers import answer, fault
from controlplane.web.mcp.conversation import ANSWER_S, Conversation


@define(eq=False)
class BridgedConversation(Conversation):
    """As `Conversation`, in rounds."""

    _rounds: bridge.InputRounds | None = field(default=None, init=False)
    _step: Ask | None = field(default=None, init=False)
    _failed: Final | None = field(default=None, init=False)
    _open: list[str] = field(factory=list, init=False)
    _changed: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)
    _progress: float = field(default=-inf, init=False)
    """The furthest that the client was told of."""
    _is_repeated: bool = field(default=False, init=False)

    async def send(self) -> None:
        """Make the call, or make it again with the client's answers."""
        session = self.session
        if self._rounds is None:
            params = bridge.modern_params(
                self.params,
                client_info=session.client_info_raw,
                capabilities=session.capabilities_raw,
                log_level=session.log_level,
            )
            self._rounds = bridge.InputRounds(params, capability_set(session.capabilities_raw))
        else:
            params = self._rounds.retry_params()
            self._is_repeated = True
        self.call = await calls.begin(
            self.runner, self.lane, self.method, params, asker=session, logs=session.log_level is not None
        )

    def settle(self, member: bytes) -> bytes | None:
        """The final answer, or None when the server asks for input first."""
        assert self._rounds is not None
        step = self._rounds.on_result(member)
        if isinstance(step, Final):
            known_lists.note(self.runner, self.lane, self.method, self.params, step.member)
            return bridge.legacy_member(self.method, step.member)
        self._step = step
        return None

    async def go_round(self) -> bytes | None:
        """Ask the client what the server wants to know, and call again."""
        step, rounds = self._step, self._rounds
        assert step is not None
        assert rounds is not None
        asked = [
            self.ask(request.method, request.params, partial(self._take, request.key)) for request in step.requests
        ]
        self._open = [own_id for own_id in asked if own_id is not None]
        if not step.requests:
            await trio.sleep(step.pause_s)
        with trio.move_on_after(ANSWER_S):
            while not (rounds.is_answered or self._failed or self.cancelled):
                await self._changed.park()
        for own_id in self._open:  # what is still open is not wanted any more
            self.session.questions.withdraw(own_id)
        if self.cancelled:
            return CANCELLED
        if self._failed is not None:
            return self._failed.member
        if not rounds.is_answered:
            raise CallTimeout(f"the client did not answer the server within {ANSWER_S:g} s")
        await self.send()
        return None

    def _relay(self, said: Told | Asked) -> None:
        if isinstance(said, Told) and said.method == PROGRESS and not self._goes_on(said.params):
            assert self.call is not None
            calls.extend(self.runner, self.call)
        else:
            super()._relay(said)

    def _goes_on(self, params: bytes | None) -> bool:
        """Whether progress is more than the client knows.

        A server that is called again begins anew, but for the client it is one call, whose progress must increase
        (MCP 2025-11-25, progress).
        """
        value = decode_or_none(bytes(object_members(params).get("progress", b"null")))
        if not isinstance(value, int | float):
            return True
        if self._is_repeated and value <= self._progress:
            return False
        self._progress = max(self._progress, value)
        return True

    def cancel(self) -> None:
        """The client does not want it any more, nor answer anything for it."""
        super().cancel()
        self._changed.unpark_all()

    def lane_is_over(self) -> None:
        """Between two rounds nothing is in flight: the client is told, and not asked any more."""
        self._failed = self._failed or Final(fault(calls.refusal(self.runner)))
        self._changed.unpark_all()

    def _take(self, key: str, member: bytes) -> None:
        """One of the client's answers."""
        assert self._rounds is not None
        self._failed = self._failed or self._rounds.answer(key, member)
        self._changed.unpark_all()


class BareConversation(Conversation):
    """With a server that answers in order and without ids: there is nothing to stream, and nothing that it asks."""

    async def begin(self) -> bytes | None:
        """The plain answer, however long it takes."""
        try:
            member = await self.runner.call(self.method, self.params)
        except CorralError as problem:
            member = fault(problem)
        return answer(self.raw_id, member)
