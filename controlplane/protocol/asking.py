"""A conversation whose server may ask its clients back: whose turn it is, and whose question it asks.

Brings together the `Floor` (who may call now), the `Questions` (who is asked)
and the calls that were given up: a ping follows each, so that it is known when
the server has read that (docs/decisions/0006). What has to be written to the
server goes through the two functions that the session gives.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import trio
from attrs import define, field

from controlplane.errors import CallTimeout
from controlplane.protocol.floor import FADE_S, GHOSTS_MAX, Floor, Turn
from controlplane.protocol.questions import ASKING, Questions

if TYPE_CHECKING:
    from controlplane.protocol.audience import Audience, Member
    from controlplane.protocol.pending import Asked, Call, Pending


QUESTION_MAX_BYTES = 2 * 2**20
"""Of one question: a form, or a prompt with an image. It is held until a person has answered."""


class FloorTaken(Exception):
    """Another client's call holds the floor, and waits for that client."""


@define(eq=False)
class Asking:
    """One conversation's. `refuse` answers a question with an error; `ping` sends one, and returns its id."""

    pending: Pending
    audience: Audience
    refuse: Callable[[bytes], None]
    ping: Callable[[], int]
    is_private: bool = False
    """It is one client's, who joins after the handshake."""
    _floor: Floor = field(factory=Floor, init=False)
    _questions: Questions = field(init=False)
    _soundings: dict[int, int] = field(factory=dict, init=False)
    """Pings sent after the end of a call that was given up: their id, and the call's."""

    def __attrs_post_init__(self) -> None:
        self._questions = Questions(self.audience, self.refuse, awaits_member=self.is_private)

    @property
    def awaits_answer(self) -> bool:
        """Whether the server has asked something that nobody has answered yet."""
        return self._questions.are_open

    # -- calls

    async def enter(self, call: Call, *, can_leave: bool) -> None:
        """Wait until this call may begin, if it is one during which the server may ask.

        Raises:
            CallTimeout: its turn did not come in time.
            FloorTaken: only where the caller can go elsewhere, and should.
        """
        if call.method not in ASKING:
            call.when_over(partial(self._questions.forget_call, call, self.pending))
            return
        turn = await self._floor.take(call.asker, call.deadline, can_leave=can_leave)
        if turn is Turn.ELSEWHERE:
            raise FloorTaken
        if turn is Turn.LATE:
            raise CallTimeout(
                f"another client's call held the server for {call.deadline - call.started:g} s",
                hint="a server that may ask its clients serves one at a time; with sessions: per-session each legacy session has its own",
            )
        call.when_over(partial(self._leave, call))

    def cancel_entry(self, call: Call) -> None:
        """The call could not be sent after all."""
        call.on_end = None
        if call.method in ASKING:
            self._floor.release(call.asker)

    def must_wait(self, method: str, asker: object) -> bool:
        """Whether `enter` would wait."""
        return method in ASKING and not self._floor.is_free_for(asker)

    def is_crowded(self) -> bool:
        """Whether somebody waits for its client here, or may ask after all, so that others should go elsewhere."""
        now = trio.current_time()
        return self._floor.gives_way(now) or (self._questions.has_asked and self._floor.is_haunted(now))

    def gave_up(self, call: Call) -> None:
        """The server was told that nobody waits for a call; it reads in order: when it answers a ping, it knows."""
        if call.method in ASKING:
            self._soundings[self.ping()] = call.wire_id
            if len(self._soundings) > GHOSTS_MAX:
                del self._soundings[next(iter(self._soundings))]

    def answered(self, wire_id: int) -> bool:
        """The server answered something that is no call in flight; whether it was one of these pings."""
        ghost = self._soundings.pop(wire_id, None)
        if ghost is not None:
            self._floor.fade(ghost)
            self.pending.fade(ghost, trio.current_time() + FADE_S)
            return True
        self._floor.lay(wire_id)
        return False

    def _leave(self, call: Call) -> None:
        """A call that ends without an outcome was given up, and the server may not know it yet."""
        self._questions.forget_call(call, self.pending)
        self._floor.release(call.asker, ghost=call.wire_id if call.outcome is None else None)
        self.review(trio.current_time())

    # -- questions

    def put(self, asked: Asked) -> bool:
        """Hand a question to whom it is surely for, or hold it; False when that is nobody, or it is too large."""
        if len(asked.params or b"") > QUESTION_MAX_BYTES:
            return False
        now = trio.current_time()
        has_place = self._questions.put(asked, self.pending, self._floor.ghosts(now), now)
        self._floor.waits(for_client=self._questions.is_call_asked)
        return has_place

    def take(self, asked_id: bytes) -> bool:
        """A question is being answered; False when it was answered or withdrawn before."""
        is_open = self._questions.take(asked_id)
        self._floor.waits(for_client=self._questions.is_call_asked)
        return is_open

    def is_open(self, asked_id: bytes) -> bool:
        """Whether the server still wants an answer."""
        return self._questions.is_open(asked_id)

    def withdraw(self, params: bytes | None) -> None:
        """The server cancels a question of its own."""
        self._questions.withdraw(params)

    def forget_member(self, member: Member) -> None:
        """A client has left the audience: what it was asked gets an error."""
        self._questions.forget_member(member)

    # -- time

    @property
    def needs_clock(self) -> bool:
        """Whether somebody waits for a moment to come: `review` must be called now and then."""
        return self._floor.needs_clock or self._questions.are_held

    def review(self, now: float) -> None:
        """Calls have come and gone, or questions: whose are those that wait, and who has to."""
        self._questions.review(self.pending, self._floor.ghosts(now), now)
        self._floor.waits(for_client=self._questions.is_call_asked)
        self._floor.tick(now)

    def close(self) -> None:
        """The conversation is over: nobody waits any more."""
        self._floor.close()
