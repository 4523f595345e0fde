"""Modern calls that wait for their client's answers, between one HTTP request and its retry.

A server of the legacy era asks in the middle of a call; a modern client is told
`input_required` and comes back with the answers and the `requestState` that it
was given. That state is a random token and nothing else: what it stands for
never leaves this table, so there is nothing to forge. It counts for the user,
the instance and the very request that it was given for, once, and for
`TTL_S` (MCP 2026-07-28, multi round-trip requests: state is hostile input and
should be bound to principal, time and request).

Every refusal has the same words: a stranger learns nothing about a token.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio
from attrs import define, field, frozen

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

TTL_S = 300.0
"""For a person to answer a form; the server's call is held as long."""
PER_INSTANCE_MAX = 64
"""As many as an instance may have calls in flight: each parked call is one."""
PER_USER_MAX = 256
"""One user's share, over all its instances."""
TOKEN_BYTES = 32

T = TypeVar("T")


class StateRefused(Exception):
    """A `requestState` that stands for nothing, or not for this request; the answer is -32602."""

    def __init__(self) -> None:
        super().__init__(
            "The requestState is unknown or expired, or belongs to another request: call again without it."
        )


@frozen(kw_only=True)
class ParkedStatistics:
    """`parked` now; `dropped` so far, for their age or to make room."""

    parked: int
    dropped: int


@frozen(slots=True, eq=False)
class _Entry(Generic[T]):
    token: str
    value: T
    user: str
    instance_id: UUID
    digest: bytes
    expires: float


_Index = dict[Any, dict[str, _Entry[T]]]
"""Entries by user or by instance, the oldest first."""


@define(eq=False)
class Parked(Generic[T]):
    """The table.

    Args:
        on_drop: Told of every value that nobody will claim any more: its call must be cancelled. Must not raise.
        clock: Seconds.
    """

    on_drop: Callable[[T], None]
    clock: Callable[[], float] = trio.current_time
    _entries: dict[str, _Entry[T]] = field(factory=dict, init=False, repr=False)
    _by_user: _Index[T] = field(factory=dict, init=False, repr=False)
    _by_instance: _Index[T] = field(factory=dict, init=False, repr=False)
    _dropped: int = field(default=0, init=False)

    def __len__(self) -> int:
        return len(self._entries)

    def park(self, value: T, *, user: str, instance_id: UUID, digest: bytes) -> str:
        """Keep `value` for the retry of this request; return the `requestState` that claims it.

        At a cap the oldest of the same instance or user gives way: it has had the most time to be answered.

        Args:
            value: Whatever goes on with the call.
            user: The owner that the caller's credential belongs to.
            instance_id: Of the instance that was called.
            digest: Of method and params, as `protocol.modern_to_legacy.digest` makes it.
        """
        self._make_room(self._by_instance.get(instance_id), PER_INSTANCE_MAX)
        self._make_room(self._by_user.get(user), PER_USER_MAX)
        token = secrets.token_urlsafe(TOKEN_BYTES)
        entry = _Entry(token, value, user, instance_id, digest, self.clock() + TTL_S)
        self._entries[token] = entry
        self._by_user.setdefault(user, {})[token] = entry
        self._by_instance.setdefault(instance_id, {})[token] = entry
        return token

    def claim(self, token: str, user: str, instance_id: UUID, digest: bytes) -> T:
        """Take out what `token` stands for; it counts once, and a wrong claim leaves it to the right one.

        Raises:
            StateRefused: unknown, expired, or another user's, instance's or request's.
        """
        entry = self._entries.get(token)
        if entry is None or (entry.user, entry.instance_id, entry.digest) != (user, instance_id, digest):
            raise StateRefused
        if self.clock() >= entry.expires:
            self._drop(entry)
            raise StateRefused
        self._forget(entry)
        return entry.value

    def drop(self, token: str) -> None:
        """Its client has left before it had the token."""
        entry = self._entries.get(token)
        if entry is not None:
            self._drop(entry)

    def expire(self, now: float) -> None:
        """Drop what was not claimed in time."""
        while (oldest := next(iter(self._entries.values()), None)) is not None and now >= oldest.expires:
            self._drop(oldest)

    def close(self) -> None:
        """Drop everything."""
        for entry in list(self._entries.values()):
            self._drop(entry)

    def statistics(self) -> ParkedStatistics:
        return ParkedStatistics(parked=len(self._entries), dropped=self._dropped)

    def _make_room(self, entries: dict[str, _Entry[T]] | None, limit: int) -> None:
        while entries is not None and len(entries) >= limit:
            self._drop(next(iter(entries.values())))

    def _drop(self, entry: _Entry[T]) -> None:
        self._forget(entry)
        self._dropped += 1
        self.on_drop(entry.value)

    def _forget(self, entry: _Entry[T]) -> None:
        del self._entries[entry.token]
        for index, key in ((self._by_user, entry.user), (self._by_instance, entry.instance_id)):
            entries = index[key]
            del entries[entry.token]
            if not entries:
                del index[key]
