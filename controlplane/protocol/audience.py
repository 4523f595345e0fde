"""Who hears what a server says outside of any call: the clients that share one conversation.

Changes of lists go to everybody, updates of a resource to those who subscribed
to it, progress to nobody, and anything else only where there is no doubt whose
it is: to the one member, if there is just one. A member never waits and never
fails. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from attrs import define, field

from controlplane.core.rawjson import decode_or_none
from controlplane.protocol.listening import UPDATED, is_within
from controlplane.protocol.routing import PROGRESS

if TYPE_CHECKING:
    from controlplane.protocol.pending import Asked

LIST_CHANGED = frozenset(
    {
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
    }
)
SUBSCRIPTIONS_MAX = 1_000
"""Resources that the clients of one conversation may be subscribed to."""


class Member(Protocol):
    """One client of a conversation."""

    @property
    def asker(self) -> object:
        """Who its calls are made for."""

    def on_told(self, method: str, params: bytes | None) -> None:
        """The server tells something."""

    def on_asked(self, asked: Asked) -> bool:
        """The server asks something outside of any call; False when this client cannot be asked now."""

    def on_withdrawn(self, asked_id: bytes, params: bytes | None) -> None:
        """The server does not want its question answered any more."""

    def on_end(self, reason: str) -> None:
        """The conversation is over."""


class TooManySubscriptions(Exception):
    """The bound is reached."""


@define(eq=False)
class Audience:
    """The members, and what each has subscribed to."""

    _members: dict[int, Member] = field(factory=dict, init=False)
    _subscribers: dict[str, dict[int, Member]] = field(factory=dict, init=False)
    _ended: str | None = field(default=None, init=False)
    """Why the conversation is over."""

    def __len__(self) -> int:
        return len(self._members)

    def join(self, member: Member) -> None:
        """Take a member in; one that comes too late is told so at once."""
        if self._ended is None:
            self._members[id(member)] = member
        else:
            member.on_end(self._ended)

    def leave(self, member: Member) -> list[str]:
        """Take a member out; returns the resources that nobody is subscribed to any more."""
        self._members.pop(id(member), None)
        return [uri for uri in list(self._subscribers) if self.unsubscribe(uri, member)]

    def subscribe(self, uri: str, member: Member) -> bool:
        """Whether this is the first subscription to the resource, so that the server must be told.

        Raises:
            TooManySubscriptions: see `SUBSCRIPTIONS_MAX`.
        """
        known = self._subscribers.get(uri)
        if known is None:
            if len(self._subscribers) >= SUBSCRIPTIONS_MAX:
                raise TooManySubscriptions
            known = self._subscribers[uri] = {}
        known[id(member)] = member
        return len(known) == 1

    def unsubscribe(self, uri: str, member: Member) -> bool:
        """Whether this was the last subscription to the resource."""
        known = self._subscribers.get(uri)
        if known is None or known.pop(id(member), None) is None or known:
            return False
        del self._subscribers[uri]
        return True

    def only(self) -> Member | None:
        """The one member, if there is just one."""
        return next(iter(self._members.values())) if len(self._members) == 1 else None

    def tell(self, method: str, params: bytes | None) -> None:
        """Hand a notification to those whose it is."""
        for member in self._hearers(method, params):
            member.on_told(method, params)

    def end(self, reason: str) -> None:
        """The conversation is over: everybody leaves."""
        self._ended = reason
        members, self._members = list(self._members.values()), {}
        self._subscribers.clear()
        for member in members:
            member.on_end(reason)

    def _subscribed_to(self, uri: str) -> list[Member]:
        """Those who subscribed to the resource, or to one that it is a part of (MCP, resources)."""
        found = {
            key: member
            for known, members in self._subscribers.items()
            if is_within(uri, known)
            for key, member in members.items()
        }
        return list(found.values())

    def _hearers(self, method: str, params: bytes | None) -> list[Member]:
        if method in LIST_CHANGED:
            return list(self._members.values())
        if method == PROGRESS:  # of a call that is over
            return []
        if method == UPDATED:
            value = decode_or_none(params)
            uri = value.get("uri") if isinstance(value, dict) else None
            return self._subscribed_to(uri) if isinstance(uri, str) else []
        only = self.only()
        return [] if only is None else [only]
