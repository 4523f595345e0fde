"""What the child asks (sampling, elicitation, roots): whose question it is, and which are still open. Pure.

A question belongs to the calls of the one asker who holds the floor, else to
the one client of the conversation, else to nobody: then it is refused. It is
never put to one of several by guess.
"""

from __future__ import annotations

from collections.abc import Callable
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
OPEN_MAX = 256
"""Questions of one child that wait for an answer; more are refused."""


@define(eq=False)
class Questions:
    """The open ones, by the child's raw id. `on_forgotten` is told of each that nobody will answer any more."""

    audience: Audience
    on_forgotten: Callable[[bytes], None]
    _open: dict[bytes, Call | Member] = field(factory=dict, init=False)

    def put(self, asked: Asked, pending: Pending) -> bool:
        """Hand a question to whom it is for; False when that is nobody, or it has no place."""
        if len(self._open) >= OPEN_MAX or asked.id in self._open:
            return False
        call = next((call for call in pending if call.asker is not None and call.method in ASKING), None)
        if call is not None:
            self._open[asked.id] = call
            call.hear(asked)
            return True
        member = self.audience.only()
        if member is None:
            return False
        self._open[asked.id] = member
        if not member.on_asked(asked):
            self._open.pop(asked.id, None)
            return False
        return True

    def take(self, asked_id: bytes) -> bool:
        """Whether the question is still open; it no longer is."""
        return self._open.pop(asked_id, None) is not None

    def withdraw(self, params: bytes | None) -> None:
        """The child cancels a question: whoever has it is told."""
        asked_id = bytes((members(params or b"null") or {}).get("requestId", b""))
        owner = self._open.pop(asked_id, None)
        if isinstance(owner, Call):
            owner.hear(Told(CANCELLED, params))
        elif owner is not None:
            owner.on_withdrawn(asked_id, params)

    def forget_call(self, call: Call) -> None:
        """A call is over: its open questions will not be answered."""
        for asked_id in [asked_id for asked_id, owner in self._open.items() if owner is call]:
            del self._open[asked_id]
            self.on_forgotten(asked_id)

    def forget_member(self, member: Member) -> None:
        """A client has left: the same."""
        for asked_id in [asked_id for asked_id, owner in self._open.items() if owner is member]:
            del self._open[asked_id]
            self.on_forgotten(asked_id)
