"""What the child asks (sampling, elicitation, roots): whose question it is, and which are still open. Pure.

A question belongs to the calls of the one asker on the conversation, else to
the one client of the conversation, else to nobody: then it is refused. Where
two may have asked it waits until one of them is over, for `HOLD_S` at most. It
is never put to one of several by guess.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import Enum
from typing import TYPE_CHECKING

from attrs import define, field

from controlplane.core.rawjson import members
from controlplane.protocol.pending import Asked, Call, Told
from controlplane.protocol.routing import CANCELLED

if TYPE_CHECKING:
    from controlplane.protocol.audience import Audience, Member
    from controlplane.protocol.pending import Pending

ASKING = frozenset({"tools/call", "prompts/get", "resources/read"})
"""During these a server may ask its client back."""
OPEN_MAX = 64
"""Questions of one child that wait for an answer; more are refused."""
HOLD_S = 10.0
"""For one of two who may have asked to end its call; then the question is refused, and the server's call goes on."""


class Nobody(Enum):
    """Why a question goes to nobody now."""

    SURELY = "surely"
    NOT_YET = "not yet"
    """One of several."""


@define(eq=False)
class Questions:
    """The open ones, by the child's raw id. `on_forgotten` is told of each that nobody will answer any more."""

    audience: Audience
    on_forgotten: Callable[[bytes], None]
    awaits_member: bool = False
    """The one client that the conversation is for has not joined yet: what is asked until then waits for it."""
    has_asked: bool = field(default=False, init=False)
    """Whether the child has ever asked anything."""
    _open: dict[bytes, Call | Member] = field(factory=dict, init=False)
    _held: dict[bytes, tuple[Asked, float]] = field(factory=dict, init=False)
    """Those that may be one of several clients', and until when on Trio's clock."""

    @property
    def is_call_asked(self) -> bool:
        """Whether a call waits for what its client answers."""
        return any(isinstance(owner, Call) for owner in self._open.values())

    @property
    def are_open(self) -> bool:
        """Whether the child still wants an answer of anybody."""
        return bool(self._open or self._held)

    @property
    def are_held(self) -> bool:
        """Whether a question waits to be somebody's: `review` must be called now and then."""
        return bool(self._held)

    def is_open(self, asked_id: bytes) -> bool:
        """Whether the child still wants an answer."""
        return asked_id in self._open

    def put(self, asked: Asked, pending: Pending, ghosts: Collection[object] = (), now: float = 0.0) -> bool:
        """Hand a question to whom it is for; False when that is nobody, or it has no place.

        Args:
            asked: What the child wrote.
            pending: The calls in flight.
            ghosts: Who made calls that were given up, of which the child may not know yet.
            now: On Trio's clock.
        """
        self.has_asked = True
        if len(self._open) + len(self._held) >= OPEN_MAX or asked.id in self._open or asked.id in self._held:
            return False
        owner = self._owner(pending, ghosts)
        if owner is Nobody.NOT_YET:
            self._held[asked.id] = (asked, now + HOLD_S)
            return True
        return self._hand(asked, owner)

    def review(self, pending: Pending, ghosts: Collection[object], now: float) -> None:
        """See whose the held questions are, as calls have ended or time has gone by."""
        for asked, until in list(self._held.values()):
            owner = self._owner(pending, ghosts)
            if owner is Nobody.NOT_YET and now < until:
                continue
            del self._held[asked.id]
            if not self._hand(asked, owner):
                self.on_forgotten(asked.id)

    def take(self, asked_id: bytes) -> bool:
        """Whether the question is still open; it no longer is."""
        return self._open.pop(asked_id, None) is not None

    def withdraw(self, params: bytes | None) -> None:
        """The child cancels a question: whoever has it is told."""
        asked_id = bytes((members(params or b"null") or {}).get("requestId", b""))
        self._held.pop(asked_id, None)
        owner = self._open.pop(asked_id, None)
        if isinstance(owner, Call):
            owner.hear(Told(CANCELLED, params))
        elif owner is not None:
            owner.on_withdrawn(asked_id, params)

    def forget_call(self, call: Call, pending: Pending) -> None:
        """A call is over. Its open questions may be another's of its client; else they will not be answered."""
        heir = next((other for other in _asking(pending) if other.asker is call.asker and other is not call), None)
        for asked_id in [asked_id for asked_id, owner in self._open.items() if owner is call]:
            if heir is not None:
                self._open[asked_id] = heir
            else:
                del self._open[asked_id]
                self.on_forgotten(asked_id)

    def forget_member(self, member: Member) -> None:
        """A client has left: the same."""
        for asked_id in [asked_id for asked_id, owner in self._open.items() if owner is member]:
            del self._open[asked_id]
            self.on_forgotten(asked_id)

    def _owner(self, pending: Pending, ghosts: Collection[object]) -> Call | Member | Nobody:
        calls = _asking(pending)
        askers = {call.asker for call in calls} | set(ghosts)
        if len(askers) > 1:
            return Nobody.NOT_YET if calls else Nobody.SURELY
        if calls:
            return calls[0]
        only = self.audience.only()
        if only is None:
            return Nobody.NOT_YET if self.awaits_member else Nobody.SURELY
        self.awaits_member = False
        return only if askers <= {only.asker} else Nobody.SURELY

    def _hand(self, asked: Asked, owner: Call | Member | Nobody) -> bool:
        if isinstance(owner, Nobody):
            return False
        self._open[asked.id] = owner
        if isinstance(owner, Call):
            owner.hear(asked)
        elif not owner.on_asked(asked):
            self._open.pop(asked.id, None)
            return False
        return True


def _asking(pending: Pending) -> list[Call]:
    return [call for call in pending if call.asker is not None and call.method in ASKING]
